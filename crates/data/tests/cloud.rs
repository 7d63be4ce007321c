//! Object stores: the same batches as from loose files, whatever the network does. `tests/cloud/run.sh` starts the server.
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
use remote::{Bucket, absent, gives_the_local_batches, loader, remote_batches, send};
use support::config;
use vjepa_data::DataError;
use vjepa_data::storage::{Cached, CloudStore, Store, StoreError};

fn server() -> Option<String> {
    remote::server("VJEPA_S3_ENDPOINT")
}

fn bucket(server: &str, name: &str) -> Bucket {
    // Any credentials do.
    let sign = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";
    send(server, &format!("PUT /{name}"), sign, b"");
    Bucket::new(&format!("s3://{name}"), |key, bytes| send(server, &format!("PUT /{name}/{key}"), sign, bytes))
}

fn store(endpoint: &str) -> CloudStore {
    let options = [
        ("aws_endpoint", endpoint),
        ("aws_allow_http", "true"),
        ("aws_access_key_id", "test"),
        ("aws_secret_access_key", "test"),
        ("aws_region", "us-east-1"),
    ];
    remote::store(&options, Duration::from_secs(20))
}

#[test]
fn lists_folders_and_shards_give_the_batches_of_the_loose_files() {
    let Some(server) = server() else { return };
    let bucket = bucket(&server, "plain");
    let (endpoint, counts) = proxy::start(server, Fault::Unavailable, 0);
    gives_the_local_batches(&bucket, || Arc::new(store(&endpoint)));
    assert!(counts.most_open.load(Ordering::SeqCst) <= 3, "{counts:?}");
}

#[test]
fn faults_of_the_network_change_nothing() {
    let Some(server) = server() else { return };
    let bucket = bucket(&server, "faults");
    let wanted = bucket.local();
    for (fault, every) in [(Fault::Timeout, 40), (Fault::Unavailable, 3), (Fault::Short, 3), (Fault::Clipped, 3)] {
        let (endpoint, counts) = proxy::start(server.clone(), fault, every);
        assert_eq!(remote_batches(&config(&[&bucket.url("shards/")]), Arc::new(store(&endpoint))), wanted, "{fault:?}");
        assert!(counts.faults.load(Ordering::SeqCst) > 0, "{fault:?}: {counts:?}");
    }
}

#[test]
fn refused_credentials_end_the_run_and_no_sample_is_called_bad() {
    let Some(server) = server() else { return };
    let bucket = bucket(&server, "expired");
    let (endpoint, counts) = proxy::start(server, Fault::Expired, 0);
    let mut loader = loader(&config(&[&bucket.url("shards/")]), Arc::new(store(&endpoint))).unwrap();
    loader.next_batch().unwrap();
    counts.always.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let error = (0..100).find_map(|_| loader.next_batch().err()).unwrap();
    assert!(matches!(error, DataError::Storage(_)) && !error.is_bad_sample());
    let text = error.to_string();
    assert!(text.contains("ExpiredToken") && text.contains("--resume") && text.contains(".tar/0"), "{text}");
    assert_eq!(loader.stats().bad, 0);
    assert!(began.elapsed() < Duration::from_secs(10), "refusals are not asked for again");
}

#[test]
fn a_missing_object_is_a_bad_sample_and_a_missing_bucket_the_end() {
    let Some(server) = server() else { return };
    let bucket = bucket(&server, "gone");
    let (endpoint, _) = proxy::start(server.clone(), Fault::Unavailable, 0);
    let list = bucket.folder.path().join("list.csv");
    let gone = format!("{}\n{}\n", bucket.url("loose/no.mp4").display(), bucket.url("loose/none.mp4").display());
    std::fs::write(&list, gone).unwrap();
    let mut loader = loader(&config(&[&list]), Arc::new(store(&endpoint))).unwrap();
    let error = loader.next_batch().unwrap_err();
    assert!(
        error.to_string().contains("none of the 2 videos could be read")
            && error.to_string().contains("does not exist"),
        "{error}"
    );
    let text = absent(&store(&endpoint), "s3://no-such-bucket/list.csv");
    assert!(text.contains("is in `s3://no-such-bucket/`, which does not exist: check the name"), "{text}");
}

#[test]
fn a_store_that_is_gone_is_named_and_so_are_credentials_that_were_not_given() {
    let nobody = |options: &[(&str, &str)]| {
        let plain = [options, &[("aws_allow_http", "true")]].concat();
        let store = remote::store(&plain, Duration::from_millis(300));
        store.read(Path::new("s3://bucket/key"), 0..10).unwrap_err()
    };
    let began = Instant::now();
    let keys = [("aws_access_key_id", "test"), ("aws_secret_access_key", "test")];
    let error = nobody(&[keys.as_slice(), &[("aws_endpoint", "http://127.0.0.1:9")]].concat());
    assert!(matches!(&error, StoreError::Storage(why) if why.contains("check the network")), "{error}");
    let error = nobody(&[("aws_metadata_endpoint", "http://127.0.0.1:9")]);
    assert!(matches!(&error, StoreError::Storage(why) if why.contains("set AWS_ACCESS_KEY_ID")), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_second_pass_comes_from_the_cache() {
    let Some(server) = server() else { return };
    let bucket = bucket(&server, "cached");
    let wanted = bucket.local();
    let (endpoint, counts) = proxy::start(server, Fault::Unavailable, 0);
    let folder = tempfile::tempdir().unwrap();
    let data = config(&[&bucket.url("shards/train-*.tar")]);
    let cached = || Arc::new(Cached::new(store(&endpoint), folder.path(), 1 << 30).unwrap());
    assert_eq!(remote_batches(&data, cached()), wanted);
    let first = counts.requests.swap(0, Ordering::SeqCst);
    assert_eq!(remote_batches(&data, cached()), wanted);
    let second = counts.requests.load(Ordering::SeqCst);
    // Sizes and the listing are asked for again; the bytes are not.
    assert!(second * 3 < first, "{first} requests, then {second}");
    let small = Arc::new(Cached::new(store(&endpoint), folder.path(), 20_000).unwrap());
    assert_eq!(remote_batches(&data, Arc::clone(&small) as Arc<dyn Store>), wanted);
    assert!(small.bytes() <= 20_000);
}
