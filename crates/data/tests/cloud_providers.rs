//! `gs://` and `az://` give what `s3://` and local files give. `tests/cloud/run.sh` starts fake-gcs-server and Azurite.
#![cfg(feature = "cloud")]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/remote.rs"]
mod remote;
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proxy::Fault;
use remote::{Bucket, absent, gives_the_local_batches, loader, send};
use support::config;
use vjepa_data::DataError;
use vjepa_data::storage::{CloudStore, Store, StoreError};

/// How long is asked again, where an answer will come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long where none will.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// The emulator's account and key, the same everywhere.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// What a refusal of the store says; it is never the sample's fault.
fn refused(store: &CloudStore, address: &str) -> String {
    let error = store.read(Path::new(address), 0..10).unwrap_err();
    assert!(matches!(error, StoreError::Storage(_)), "{error}");
    error.to_string()
}

/// A bucket of fake-gcs-server.
fn bucket(server: &str, name: &str) -> Bucket {
    let json = "Content-Type: application/json\r\n";
    send(server, "POST /storage/v1/b", json, format!(r#"{{"name":"{name}"}}"#).as_bytes());
    Bucket::new(&format!("gs://{name}"), |key, bytes| {
        let key = key.replace('/', "%2F");
        send(server, &format!("POST /upload/storage/v1/b/{name}/o?uploadType=media&name={key}"), "", bytes);
    })
}

fn google(endpoint: &str, patience: Duration) -> CloudStore {
    let options = [("google_base_url", endpoint), ("google_allow_http", "true"), ("google_bearer_token", "test")];
    remote::store(&options, patience)
}

#[test]
fn google_gives_the_batches_of_the_loose_files() {
    let Some(server) = remote::server("VJEPA_GS_ENDPOINT") else { return };
    let bucket = bucket(&server, "plain");
    let endpoint = format!("http://{server}");
    gives_the_local_batches(&bucket, || Arc::new(google(&endpoint, PATIENCE)));
    let public =
        [("google_base_url", endpoint.as_str()), ("google_allow_http", "true"), ("google_skip_signature", "true")];
    gives_the_local_batches(&bucket, || Arc::new(remote::store(&public, PATIENCE)));
    let missing = google(&endpoint, PATIENCE).size(&bucket.url("loose/no.mp4")).unwrap_err();
    assert_eq!(missing, StoreError::Sample("does not exist".into()));
}

#[test]
fn google_tokens_that_expire_end_the_run_and_no_sample_is_called_bad() {
    let Some(server) = remote::server("VJEPA_GS_ENDPOINT") else { return };
    let bucket = bucket(&server, "expired");
    let (endpoint, counts) = proxy::start(server, Fault::Unauthorized, 0);
    let store = Arc::new(google(&endpoint, PATIENCE));
    let mut loader = loader(&config(&[&bucket.url("shards/")]), store).unwrap();
    loader.next_batch().unwrap();
    counts.always.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let error = (0..100).find_map(|_| loader.next_batch().err()).unwrap();
    assert!(matches!(error, DataError::Storage(_)) && loader.stats().bad == 0, "{error}");
    let text = error.to_string();
    assert!(text.contains("renew or correct the credentials") && text.contains("--resume"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10), "refusals are not asked for again");
}

#[test]
fn google_buckets_and_credentials_that_are_not_there_are_named() {
    let Some(server) = remote::server("VJEPA_GS_ENDPOINT") else { return };
    // fake-gcs-server answers 500 where Google answers this.
    let (endpoint, counts) = proxy::start(server, Fault::NoBucket, 0);
    counts.always.store(true, Ordering::SeqCst);
    let absent = absent(&google(&endpoint, PATIENCE), "gs://no-such-bucket/list.csv");
    assert!(absent.contains("is in `gs://no-such-bucket/`, which does not exist: check the name"), "{absent}");
    if std::env::var_os("GCE_METADATA_HOST").is_none() {
        return eprintln!("not tested: without GCE_METADATA_HOST this machine's own credentials are taken");
    }
    let began = Instant::now();
    let bare = remote::store(&[("google_base_url", endpoint.as_str()), ("google_allow_http", "true")], IMPATIENCE);
    let text = refused(&bare, "gs://bucket/key");
    assert!(text.contains("set GOOGLE_APPLICATION_CREDENTIALS"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10));
    let text = refused(&remote::store(&[("google_service_account", "/no/such.json")], IMPATIENCE), "gs://bucket/key");
    assert!(text.contains("/no/such.json") && text.contains("given by GOOGLE_APPLICATION_CREDENTIALS"), "{text}");
}

/// Azurite's address with the account, and a token of the environment.
fn azurite(token: &str) -> Option<(String, String, String)> {
    let server = remote::server("VJEPA_AZ_ENDPOINT")?;
    let endpoint = format!("http://{server}/{ACCOUNT}");
    Some((server, endpoint, std::env::var(token).expect("tests/cloud/run.sh makes tokens")))
}

/// A container of Azurite.
fn container(server: &str, name: &str, token: &str) -> Bucket {
    let version = "x-ms-version: 2021-12-02\r\n";
    send(server, &format!("PUT /{ACCOUNT}/{name}?restype=container&{token}"), version, b"");
    Bucket::new(&format!("az://{name}"), |key, bytes| {
        let headers = format!("{version}x-ms-blob-type: BlockBlob\r\n");
        send(server, &format!("PUT /{ACCOUNT}/{name}/{key}?{token}"), &headers, bytes);
    })
}

fn azure(endpoint: &str, credential: (&str, &str), patience: Duration) -> CloudStore {
    let options = [("azure_endpoint", endpoint), ("azure_allow_http", "true"), ("azure_storage_account_name", ACCOUNT)];
    remote::store(&[options.as_slice(), &[credential]].concat(), patience)
}

#[test]
fn azure_gives_the_batches_of_the_loose_files() {
    let Some((server, endpoint, token)) = azurite("VJEPA_AZ_TOKEN") else { return };
    let container = container(&server, "plain", &token);
    for credential in [("azure_storage_sas_key", token.as_str()), ("azure_storage_account_key", KEY)] {
        gives_the_local_batches(&container, || Arc::new(azure(&endpoint, credential, PATIENCE)));
    }
    let store = azure(&endpoint, ("azure_storage_account_key", KEY), PATIENCE);
    let missing = store.size(&container.url("loose/no.mp4")).unwrap_err();
    assert_eq!(missing, StoreError::Sample("does not exist".into()));
}

#[test]
fn azure_containers_and_credentials_that_are_not_there_are_named() {
    let Some((server, endpoint, expired)) = azurite("VJEPA_AZ_EXPIRED_TOKEN") else { return };
    let container = container(&server, "expired", &std::env::var("VJEPA_AZ_TOKEN").unwrap());
    let began = Instant::now();
    let address = container.url("loose/list.csv").display().to_string();
    let text = refused(&azure(&endpoint, ("azure_storage_sas_key", &expired), PATIENCE), &address);
    assert!(text.contains("renew or correct the credentials") && text.contains("--resume"), "{text}");
    assert!(!text.contains("sig="), "a token is a secret: {text}");
    let other = ("azure_storage_account_key", "bm90IHRoZSBrZXk=");
    let text = refused(&azure(&endpoint, other, PATIENCE), &address);
    assert!(text.contains("renew or correct the credentials"), "{text}");
    let text = absent(&azure(&endpoint, ("azure_storage_account_key", KEY), PATIENCE), "az://no-such/list.csv");
    assert!(text.contains("is in `az://no-such/`, which does not exist: check the name"), "{text}");
    let nobody = ("azure_msi_endpoint", "http://127.0.0.1:9/metadata/identity/oauth2/token");
    let text = refused(&azure(&endpoint, nobody, IMPATIENCE), &address);
    assert!(text.contains("set AZURE_STORAGE_ACCOUNT_NAME with"), "{text}");
    let text = refused(&remote::store(&[], IMPATIENCE), &address);
    assert!(text.contains("given by AZURE_STORAGE_ACCOUNT_NAME with"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20), "refusals are not asked for again");
}
