//! Object stores: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`, `https://host/path`.
//!
//! Credentials, regions and endpoints come from the environment under the names that the providers' own tools use (`AWS_*`,
//! `GOOGLE_*`, `AZURE_*`; see docs/data.md). A read asks for exactly the bytes that are wanted, in parts of at most
//! [`Limits::part`] bytes. What fails for the moment (timeouts, 429, 5xx, connections that end early, answers that are too short) is
//! asked for again for as long as [`Limits::patience`]; then, and at once for refused credentials, the *store* is at fault and the
//! run stops, so that no step ever sees other clips because of the network.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::{Store, StoreError, length, too_short};

/// Objects of one listing, at most.
const MOST_LISTED: usize = 1 << 24;

/// How hard an object store is asked.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests at the same time, over all threads.
    pub requests: usize,
    /// Bytes of one request.
    pub part: u64,
    /// Time for one request.
    pub timeout: Duration,
    /// How long a read is asked for again before the store counts as gone.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 32, part: 8 << 20, timeout: Duration::from_secs(30), patience: Duration::from_secs(180) }
    }
}

/// Object stores by their addresses.
pub struct CloudStore {
    limits: Limits,
    /// Settings beside the environment's, under the providers' names: `aws_endpoint`, `google_service_account`, ...
    options: Vec<(String, String)>,
    permits: Semaphore,
    runtime: OnceLock<Result<Runtime, String>>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl fmt::Debug for CloudStore {
    /// Without the settings, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudStore").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Default for CloudStore {
    fn default() -> Self {
        Self::new(Limits::default(), Vec::new())
    }
}

/// An address, taken apart.
struct Address {
    /// What stands before the key: `s3://bucket/`.
    root: String,
    scheme: String,
    host: String,
    key: String,
}

impl Address {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let text = path.to_str().ok_or_else(|| StoreError::Sample("is an address that is not UTF-8".into()))?;
        let none = || StoreError::Sample("is no address: write scheme://bucket/key".into());
        let (scheme, rest) = text.split_once("://").ok_or_else(none)?;
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(none());
        }
        Ok(Self {
            root: format!("{scheme}://{host}/"),
            scheme: scheme.to_lowercase(),
            host: host.into(),
            key: key.into(),
        })
    }

    fn key(&self) -> Result<Key, StoreError> {
        let key = match self.scheme.as_str() {
            // The path of a web address is written with `%20` and the like, and is again when it is asked for.
            "http" | "https" => Key::from_url_path(&self.key),
            _ => Key::parse(self.key.trim_end_matches('/')),
        };
        key.map_err(|error| StoreError::Sample(format!("is no key of an object store: {error}")))
    }
}

/// What became of one try.
enum Failure {
    /// It may work the next time.
    Passing(String),
    Final(StoreError),
}

impl CloudStore {
    /// Object stores with these settings beside the environment's.
    pub fn new(limits: Limits, options: Vec<(String, String)>) -> Self {
        Self {
            permits: Semaphore::new(limits.requests.max(1)),
            limits,
            options,
            runtime: OnceLock::new(),
            stores: Mutex::default(),
        }
    }

    /// Runs requests to their end, from any thread.
    fn wait<T: Send>(&self, work: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        let start = || {
            let builder = &mut tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).thread_name("object-store").enable_all();
            builder.build().map_err(|error| format!("no threads for requests can be started: {error}"))
        };
        let runtime = self.runtime.get_or_init(start).as_ref().map_err(|why| StoreError::Storage(why.clone()))?;
        if tokio::runtime::Handle::try_current().is_err() {
            return runtime.block_on(work);
        }
        // Within another runtime, waiting would stop its thread from working.
        let ended = || StoreError::Storage("a request panicked".into());
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join().unwrap_or_else(|_| Err(ended())))
    }

    fn store(&self, address: &Address) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&address.root) {
            return Ok(Arc::clone(store));
        }
        let made = self.open(address)?;
        stores.insert(address.root.clone(), Arc::clone(&made));
        Ok(made)
    }

    fn open(&self, address: &Address) -> Result<Arc<dyn ObjectStore>, StoreError> {
        // The second time is refused, which changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: Error| StoreError::Storage(format!("cannot be opened: {error}"));
        let timeout = format!("{}ms", self.limits.timeout.as_millis());
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
            max_retries: 100,
            retry_timeout: self.limits.patience,
        };
        let store: Arc<dyn ObjectStore> = match address.scheme.as_str() {
            "s3" => {
                let mut builder = AmazonS3Builder::from_env().with_bucket_name(&address.host).with_retry(retry);
                for (key, value) in self.settings::<AmazonS3ConfigKey>() {
                    builder = builder.with_config(key, value);
                }
                builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout);
                Arc::new(builder.build().map_err(failed)?)
            }
            "gs" => {
                let mut builder =
                    GoogleCloudStorageBuilder::from_env().with_bucket_name(&address.host).with_retry(retry);
                for (key, value) in self.settings::<GoogleConfigKey>() {
                    builder = builder.with_config(key, value);
                }
                builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), timeout);
                Arc::new(builder.build().map_err(failed)?)
            }
            "az" => {
                let mut builder =
                    MicrosoftAzureBuilder::from_env().with_container_name(&address.host).with_retry(retry);
                for (key, value) in self.settings::<AzureConfigKey>() {
                    builder = builder.with_config(key, value);
                }
                builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), timeout);
                Arc::new(builder.build().map_err(failed)?)
            }
            "http" | "https" => {
                let plain = if address.scheme == "http" { "true" } else { "false" };
                let builder = HttpBuilder::new().with_url(&address.root).with_retry(retry);
                let builder = builder.with_config(ClientConfigKey::AllowHttp, plain);
                Arc::new(builder.with_config(ClientConfigKey::Timeout, timeout).build().map_err(failed)?)
            }
            other => {
                return Err(StoreError::Storage(format!(
                    "is at `{other}://`, which is not read: s3://, gs://, az://, https:// and http:// are"
                )));
            }
        };
        Ok(store)
    }

    /// The settings that a provider knows.
    fn settings<K: FromStr>(&self) -> impl Iterator<Item = (K, String)> {
        self.options.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value.clone())))
    }

    /// Asks until there is an answer or patience has run out.
    async fn persist<T, F: Future<Output = Result<T, Failure>>>(&self, ask: impl Fn() -> F) -> Result<T, StoreError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let permit = self.permits.acquire().await;
            let answer = ask().await;
            drop(permit);
            match answer {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(why)) if began.elapsed() + pause > self.limits.patience => {
                    let seconds = self.limits.patience.as_secs();
                    return Err(StoreError::Storage(format!(
                        "could not be read within {seconds} seconds of trying: {why}; check the network and the endpoint, then \
                         continue with --resume"
                    )));
                }
                Err(Failure::Passing(_)) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// One part of a range.
    async fn part(&self, store: &dyn ObjectStore, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let wanted = length(&range)?;
        self.persist(|| async {
            let why = match store.get_range(key, range.clone()).await {
                Ok(bytes) if bytes.len() == wanted => return Ok(bytes.to_vec()),
                Ok(bytes) => format!("{wanted} bytes were asked for and {} came", bytes.len()),
                Err(error) => match failure(error) {
                    Failure::Passing(why) => why,
                    ended => return Err(ended),
                },
            };
            // An answer that is too short, or a range beyond the end: which of them, its size says.
            match store.head(key).await {
                Ok(meta) if meta.size < range.end => Err(Failure::Final(too_short(meta.size, range.end))),
                _ => Err(Failure::Passing(why)),
            }
        })
        .await
    }
}

/// What an error of the store means.
fn failure(error: Error) -> Failure {
    let refused = |text: &str| {
        Failure::Final(StoreError::Storage(format!(
            "is refused by the object store: {text}; renew or correct the credentials, then continue with --resume"
        )))
    };
    let text = vjepa_recipe::text::short(&error.to_string(), 400);
    match error {
        Error::NotFound { .. } => Failure::Final(StoreError::Sample("does not exist".into())),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => refused(&text),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            Failure::Final(StoreError::Storage(format!("cannot be read: {text}")))
        }
        _ if REFUSALS.iter().any(|word| text.contains(word)) => refused(&text),
        _ => Failure::Passing(text),
    }
}

/// Words of answers that will not get better: S3 answers expired credentials with 400, to HEAD without a reason.
const REFUSALS: [&str; 4] = ["400 Bad Request", "InvalidAccessKeyId", "RequestTimeTooSkewed", "SignatureDoesNotMatch"];

impl Store for CloudStore {
    fn size(&self, path: &Path) -> Result<u64, StoreError> {
        let address = Address::of(path)?;
        let (store, key) = (self.store(&address)?, address.key()?);
        let ask = || async { store.head(&key).await.map(|meta| meta.size).map_err(failure) };
        self.wait(self.persist(ask))
    }

    fn read(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let total = length(&range)?;
        let address = Address::of(path)?;
        let (store, key) = (self.store(&address)?, address.key()?);
        let part = self.limits.part.max(1);
        let starts = (range.start..range.end).step_by(usize::try_from(part).unwrap_or(usize::MAX));
        let parts: Vec<Range<u64>> = starts.map(|start| start..range.end.min(start.saturating_add(part))).collect();
        self.wait(async {
            let reads = futures_util::stream::iter(parts).map(|part| self.part(store.as_ref(), &key, part)).buffered(4);
            let mut reads = std::pin::pin!(reads);
            let mut bytes = Vec::with_capacity(total);
            while let Some(part) = reads.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            Ok(bytes)
        })
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let address = Address::of(folder)?;
        if address.scheme.starts_with("http") {
            let why = "is a web address, which cannot be listed: name the files, as in shard-{000..127}.tar";
            return Err(StoreError::Storage(why.into()));
        }
        let (store, key) = (self.store(&address)?, address.key()?);
        let root = &address.root;
        let ask = || async {
            let mut objects = store.list(Some(&key));
            let mut found = Vec::new();
            while let Some(object) = objects.try_next().await.map_err(failure)? {
                found.push(PathBuf::from(format!("{root}{}", object.location)));
                if found.len() > MOST_LISTED {
                    let why = format!("holds more than {MOST_LISTED} objects: name a smaller part");
                    return Err(Failure::Final(StoreError::Storage(why)));
                }
            }
            Ok(found)
        };
        let mut found = self.wait(self.persist(ask))?;
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let parts = |text: &str| Address::of(Path::new(text)).map(|a| (a.root.clone(), a.key().unwrap().to_string()));
        assert_eq!(parts("s3://b/x/y z.tar").unwrap(), ("s3://b/".into(), "x/y z.tar".into()));
        assert_eq!(parts("https://host:81/x/y%20z.tar").unwrap(), ("https://host:81/".into(), "x/y z.tar".into()));
        assert_eq!(parts("gs://b").unwrap(), ("gs://b/".into(), String::new()));
        assert!(parts("s3:///x").is_err() && parts("/x").is_err());
        let store = CloudStore::default();
        let error = store.size(Path::new("ftp://host/x")).unwrap_err();
        assert!(error.to_string().contains("`ftp://`, which is not read"), "{error}");
        assert!(store.list(Path::new("https://host/x/")).unwrap_err().to_string().contains("cannot be listed"));
    }
}
