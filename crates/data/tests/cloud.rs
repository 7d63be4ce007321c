//! Object stores: the same batches as from loose files, whatever the network does. `tests/cloud/run.sh` starts the server.
#![cfg(feature = "cloud")]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proxy::Fault;
use support::{batches, config, loose, names, pack_copies};
use vjepa_data::media::Opener;
use vjepa_data::storage::{Cached, CloudStore, Limits, Store, StoreError};
use vjepa_data::{DataError, Loader, LoaderConfig, VideoDataset};
use vjepa_recipe::config::{AugmentConfig, DataConfig};

/// The server that tests run against, `host:port`; none prints why nothing is tested.
fn server() -> Option<String> {
    match std::env::var("VJEPA_S3_ENDPOINT") {
        Ok(endpoint) => Some(endpoint.trim_end_matches('/').trim_start_matches("http://").to_owned()),
        Err(_) => {
            eprintln!("not tested: VJEPA_S3_ENDPOINT names no server; tests/cloud/run.sh starts one");
            None
        }
    }
}

fn put(server: &str, path: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(server).unwrap();
    let length = body.len();
    let head = format!("PUT /{path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    // Any credentials do.
    let sign = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";
    write!(stream, "{head}{sign}\r\n").unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
}

/// A bucket with the loose files in `loose/` and shards of them in `shards/`, and the folder that it was made of.
struct Bucket {
    name: &'static str,
    folder: tempfile::TempDir,
}

impl Bucket {
    fn new(server: &str, name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("loose")).unwrap();
        let list = loose(&folder.path().join("loose"));
        pack_copies(&list, &folder.path().join("shards"), 20_000);
        put(server, name, b"");
        let bucket = Self { name, folder };
        for path in names(&list).into_iter().chain([list.clone()]).chain(names(&bucket.folder.path().join("shards/x")))
        {
            let key = path.strip_prefix(bucket.folder.path()).unwrap().display().to_string();
            put(server, &format!("{name}/{key}"), &std::fs::read(&path).unwrap());
        }
        bucket
    }

    fn url(&self, key: &str) -> PathBuf {
        format!("s3://{}/{key}", self.name).into()
    }

    fn local(&self) -> Vec<(Vec<f32>, Vec<Option<i64>>)> {
        batches(&config(&[&self.folder.path().join("loose/list.csv")]), 5)
    }
}

fn store(endpoint: &str) -> CloudStore {
    let options = [
        ("aws_endpoint", endpoint),
        ("aws_allow_http", "true"),
        ("aws_access_key_id", "test"),
        ("aws_secret_access_key", "test"),
        ("aws_region", "us-east-1"),
    ];
    let limits = Limits { requests: 3, part: 4000, timeout: Duration::from_secs(1), patience: Duration::from_secs(20) };
    CloudStore::new(limits, options.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec())
}

fn loader(data: &DataConfig, store: Arc<dyn Store>) -> Result<Loader, DataError> {
    let opener = Arc::new(Opener::default().with_official_sizes(None).with_store(store));
    let source = VideoDataset::open_with(data, &AugmentConfig::default(), opener)?;
    Loader::new(Arc::new(source), LoaderConfig { workers: 2, ..LoaderConfig::new(3, 7) })
}

fn remote(data: &DataConfig, store: Arc<dyn Store>) -> Vec<(Vec<f32>, Vec<Option<i64>>)> {
    let mut loader = loader(data, store).unwrap();
    let one = |_| {
        let batch = loader.next_batch().unwrap();
        (batch.clips.into_floats(batch.shape), batch.infos.iter().map(|info| info.label).collect())
    };
    (0..5).map(one).collect()
}

#[test]
fn lists_folders_and_shards_give_the_batches_of_the_loose_files() {
    let Some(server) = server() else { return };
    let bucket = Bucket::new(&server, "plain");
    let wanted = bucket.local();
    let (endpoint, counts) = proxy::start(server, Fault::Unavailable, 0);
    let shards = std::fs::read_dir(bucket.folder.path().join("shards")).unwrap().flatten();
    let last = shards.filter(|entry| entry.path().extension().is_some_and(|e| e == "tar")).count() - 1;
    for key in ["loose/list.csv", "shards/", "shards/train-*.tar", &format!("shards/train-{{000000..{last:06}}}.tar")] {
        assert_eq!(remote(&config(&[&bucket.url(key)]), Arc::new(store(&endpoint))), wanted, "{key}");
    }
    assert!(counts.most_open.load(Ordering::SeqCst) <= 3, "{counts:?}");
    // Without a list there are no labels, but the same clips in the order of their names.
    let clips = |all: Vec<(Vec<f32>, Vec<Option<i64>>)>| all.into_iter().map(|(clips, _)| clips).collect::<Vec<_>>();
    assert_eq!(clips(remote(&config(&[&bucket.url("loose/")]), Arc::new(store(&endpoint)))), clips(wanted));
}

#[test]
fn faults_of_the_network_change_nothing() {
    let Some(server) = server() else { return };
    let bucket = Bucket::new(&server, "faults");
    let wanted = bucket.local();
    for (fault, every) in [(Fault::Timeout, 40), (Fault::Unavailable, 3), (Fault::Short, 3), (Fault::Clipped, 3)] {
        let (endpoint, counts) = proxy::start(server.clone(), fault, every);
        assert_eq!(remote(&config(&[&bucket.url("shards/")]), Arc::new(store(&endpoint))), wanted, "{fault:?}");
        assert!(counts.faults.load(Ordering::SeqCst) > 0, "{fault:?}: {counts:?}");
    }
}

#[test]
fn refused_credentials_end_the_run_and_no_sample_is_called_bad() {
    let Some(server) = server() else { return };
    let bucket = Bucket::new(&server, "expired");
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
fn a_store_that_is_gone_is_named_and_a_missing_object_is_a_bad_sample() {
    let Some(server) = server() else { return };
    let bucket = Bucket::new(&server, "gone");
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
    let limits =
        Limits { patience: Duration::from_millis(300), timeout: Duration::from_millis(200), ..Limits::default() };
    let nobody = CloudStore::new(
        limits,
        vec![
            ("aws_endpoint".into(), "http://127.0.0.1:9".into()),
            ("aws_allow_http".into(), "true".into()),
            ("aws_access_key_id".into(), "test".into()),
            ("aws_secret_access_key".into(), "test".into()),
        ],
    );
    let began = Instant::now();
    let error = nobody.read(Path::new("s3://bucket/key"), 0..10).unwrap_err();
    assert!(matches!(&error, StoreError::Storage(why) if why.contains("check the network")), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_second_pass_comes_from_the_cache() {
    let Some(server) = server() else { return };
    let bucket = Bucket::new(&server, "cached");
    let wanted = bucket.local();
    let (endpoint, counts) = proxy::start(server, Fault::Unavailable, 0);
    let folder = tempfile::tempdir().unwrap();
    let data = config(&[&bucket.url("shards/train-*.tar")]);
    let cached = || Arc::new(Cached::new(store(&endpoint), folder.path(), 1 << 30).unwrap());
    assert_eq!(remote(&data, cached()), wanted);
    let first = counts.requests.swap(0, Ordering::SeqCst);
    assert_eq!(remote(&data, cached()), wanted);
    let second = counts.requests.load(Ordering::SeqCst);
    // Sizes and the listing are asked for again; the bytes are not.
    assert!(second * 3 < first, "{first} requests, then {second}");
    let small = Arc::new(Cached::new(store(&endpoint), folder.path(), 20_000).unwrap());
    assert_eq!(remote(&data, Arc::clone(&small) as Arc<dyn Store>), wanted);
    assert!(small.bytes() <= 20_000);
}
