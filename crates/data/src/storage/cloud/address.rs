//! Addresses, and the clients of their providers.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientConfigKey, Error, ObjectStore, RetryConfig};

use super::{Limits, StoreError};

/// An address, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// What stands before the key: `s3://bucket/`.
    pub root: String,
    pub scheme: String,
    pub host: String,
    key: String,
}

impl Address {
    pub fn of(path: &Path) -> Result<Self, StoreError> {
        let text = path.to_str().ok_or_else(|| StoreError::Sample("is an address that is not UTF-8".into()))?;
        let none = || StoreError::Sample("is not an address: write scheme://bucket/key".into());
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

    /// True for web addresses, which have no buckets and cannot be listed.
    pub fn is_web(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }

    pub fn key(&self) -> Result<Key, StoreError> {
        let key = match self.is_web() {
            // The path of a web address is written with `%20` and the like, and is again when it is asked for.
            true => Key::from_url_path(&self.key),
            false => Key::parse(self.key.trim_end_matches('/')),
        };
        key.map_err(|error| StoreError::Sample(format!("is not a key of an object store: {error}")))
    }

    /// The variables of the environment by which this provider is given credentials.
    pub fn credentials(&self) -> &'static str {
        match self.scheme.as_str() {
            "s3" => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
            "gs" => "GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
            "az" => {
                "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY, or AZURE_SKIP_SIGNATURE=true for a \
                 public container"
            }
            _ => "no variable",
        }
    }
}

/// The client of an address's provider.
pub(super) fn open(
    address: &Address,
    limits: &Limits,
    options: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    // The second time is refused, which changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: Error| {
        StoreError::Storage(format!("cannot be opened: {error}; credentials are given by {}", address.credentials()))
    };
    let timeout = format!("{}ms", limits.timeout.as_millis());
    let retry = retries(limits);
    let store: Arc<dyn ObjectStore> = match address.scheme.as_str() {
        "s3" => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(&address.host).with_retry(retry);
            for (key, value) in settings::<AmazonS3ConfigKey>(options) {
                builder = builder.with_config(key, value);
            }
            builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout);
            Arc::new(builder.build().map_err(failed)?)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&address.host).with_retry(retry);
            for (key, value) in settings::<GoogleConfigKey>(options) {
                builder = builder.with_config(key, value);
            }
            builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), timeout);
            Arc::new(builder.build().map_err(failed)?)
        }
        "az" => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(&address.host).with_retry(retry);
            for (key, value) in settings::<AzureConfigKey>(options) {
                builder = builder.with_config(key, value);
            }
            builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), timeout);
            Arc::new(builder.build().map_err(failed)?)
        }
        "http" | "https" => {
            let plain = if address.scheme == "http" { "true" } else { "false" };
            let builder = HttpBuilder::new().with_url(&address.root).with_retry(retry);
            let builder = builder.with_config(ClientConfigKey::AllowHttp, plain);
            let built = builder.with_config(ClientConfigKey::Timeout, timeout).build();
            Arc::new(built.map_err(|error| StoreError::Storage(format!("cannot be opened: {error}")))?)
        }
        other => {
            return Err(StoreError::Storage(format!(
                "is at `{other}://`, which is not read: s3://, gs://, az://, https:// and http:// are"
            )));
        }
    };
    Ok(store)
}

/// A client tries a few times by itself; for as long as patience lasts it is asked again.
fn retries(limits: &Limits) -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(1), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: 3, retry_timeout: limits.patience.min(Duration::from_secs(20)) }
}

/// The settings that a provider knows.
fn settings<K: FromStr>(options: &[(String, String)]) -> impl Iterator<Item = (K, String)> {
    options.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value.clone())))
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
    }
}
