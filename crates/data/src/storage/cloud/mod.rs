//! Object stores: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`, `https://host/path`.
//!
//! Credentials, regions and endpoints come from the environment under the names that the providers' own tools use (`AWS_*`,
//! `GOOGLE_*`, `AZURE_*`; see docs/data.md). A read asks for exactly the bytes that are wanted, in parts of at most
//! [`Limits::part`] bytes. What fails for the moment (timeouts, 429, 5xx, connections that end early, answers that are too short) is
//! asked for again for as long as [`Limits::patience`]; then, and at once for refused credentials, the *store* is at fault and the
//! run stops, so that no step ever sees other clips because of the network.

mod address;
mod failure;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use address::Address;
use failure::Failure;

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
    clients: Mutex<HashMap<String, Arc<Client>>>,
}

/// The client of one bucket.
struct Client {
    store: Arc<dyn ObjectStore>,
    /// A request has been answered: there are credentials.
    answered: AtomicBool,
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

/// An object, and the client to ask for it.
struct Object {
    client: Arc<Client>,
    address: Address,
    key: Key,
}

impl Object {
    fn failure(&self, error: Error) -> Failure {
        failure::failure(error, &self.address, self.client.answered.load(Ordering::Relaxed))
    }
}

impl CloudStore {
    /// Object stores with these settings beside the environment's.
    pub fn new(limits: Limits, options: Vec<(String, String)>) -> Self {
        Self {
            permits: Semaphore::new(limits.requests.max(1)),
            limits,
            options,
            runtime: OnceLock::new(),
            clients: Mutex::default(),
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

    fn object(&self, path: &Path) -> Result<Object, StoreError> {
        let address = Address::of(path)?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.get(&address.root) {
            Some(client) => Arc::clone(client),
            None => {
                let store = address::open(&address, &self.limits, &self.options)?;
                let client = Arc::new(Client { store, answered: AtomicBool::new(false) });
                clients.insert(address.root.clone(), Arc::clone(&client));
                client
            }
        };
        drop(clients);
        Ok(Object { client, key: address.key()?, address })
    }

    /// Asks until there is an answer or patience has run out.
    async fn persist<T, F>(&self, object: &Object, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let began = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let permit = self.permits.acquire().await;
            let answer = ask().await;
            drop(permit);
            match answer {
                Ok(answer) => {
                    object.client.answered.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Missing) => return Err(self.missing(object).await),
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

    /// What is missing: the object, which costs a sample, or its whole bucket, which no sample survives. A listing tells.
    async fn missing(&self, object: &Object) -> StoreError {
        let address = &object.address;
        let none = StoreError::Sample("does not exist".into());
        if address.is_web() {
            return none;
        }
        let first = {
            let _permit = self.permits.acquire().await;
            object.client.store.list(Some(&object.key)).next().await
        };
        match first.map(|first| first.map_err(|error| object.failure(error))) {
            Some(Err(Failure::Missing)) => StoreError::Storage(format!(
                "is in `{}`, which does not exist: check the name, and the account or endpoint that the environment names",
                address.root
            )),
            // What refuses to list says nothing of the object: a key to objects alone may be all there is.
            Some(Err(Failure::Final(_) | Failure::Passing(_))) | Some(Ok(_)) | None => none,
        }
    }

    /// One part of a range.
    async fn part(&self, object: &Object, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let wanted = length(&range)?;
        let (store, key) = (&object.client.store, &object.key);
        self.persist(object, || async {
            let why = match store.get_range(key, range.clone()).await {
                Ok(bytes) if bytes.len() == wanted => return Ok(bytes.to_vec()),
                Ok(bytes) => format!("{wanted} bytes were asked for and {} came", bytes.len()),
                Err(error) => match object.failure(error) {
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

impl Store for CloudStore {
    fn size(&self, path: &Path) -> Result<u64, StoreError> {
        let object = &self.object(path)?;
        let size = || async {
            object.client.store.head(&object.key).await.map(|meta| meta.size).map_err(|error| object.failure(error))
        };
        self.wait(self.persist(object, size))
    }

    fn read(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let total = length(&range)?;
        let object = self.object(path)?;
        let part = self.limits.part.max(1);
        let starts = (range.start..range.end).step_by(usize::try_from(part).unwrap_or(usize::MAX));
        let parts: Vec<Range<u64>> = starts.map(|start| start..range.end.min(start.saturating_add(part))).collect();
        self.wait(async {
            let reads = futures_util::stream::iter(parts).map(|part| self.part(&object, part)).buffered(4);
            let mut reads = std::pin::pin!(reads);
            let mut bytes = Vec::with_capacity(total);
            while let Some(part) = reads.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            Ok(bytes)
        })
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let object = &self.object(folder)?;
        if object.address.is_web() {
            let why = "is a web address, which cannot be listed: name the files, as in shard-{000..127}.tar";
            return Err(StoreError::Storage(why.into()));
        }
        let root = &object.address.root;
        let ask = || async {
            let mut objects = object.client.store.list(Some(&object.key));
            let mut found = Vec::new();
            while let Some(listed) = objects.try_next().await.map_err(|error| object.failure(error))? {
                found.push(PathBuf::from(format!("{root}{}", listed.location)));
                if found.len() > MOST_LISTED {
                    let why = format!("holds more than {MOST_LISTED} objects: name a smaller part");
                    return Err(Failure::Final(StoreError::Storage(why)));
                }
            }
            Ok(found)
        };
        let mut found = self.wait(self.persist(object, ask))?;
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_or_listed_is_named() {
        let store = CloudStore::default();
        let error = store.size(Path::new("ftp://host/x")).unwrap_err();
        assert!(error.to_string().contains("`ftp://`, which is not read"), "{error}");
        assert!(store.list(Path::new("https://host/x/")).unwrap_err().to_string().contains("cannot be listed"));
    }
}
