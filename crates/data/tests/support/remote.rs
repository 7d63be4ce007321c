//! Data sets on object stores, and their batches.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vjepa_data::media::Opener;
use vjepa_data::storage::{CloudStore, Limits, Store, StoreError};
use vjepa_data::{DataError, Loader, LoaderConfig, VideoDataset};
use vjepa_recipe::config::{AugmentConfig, DataConfig};

use crate::support::{batches, config, loose, names, pack_copies};

/// Clips and labels of a batch.
pub type Batch = (Vec<f32>, Vec<Option<i64>>);

/// The server that a variable names, `host:port`; none prints why nothing is tested, and fails where VJEPA_REQUIRE_CLOUD is 1.
pub fn server(variable: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(endpoint) => Some(endpoint.trim_end_matches('/').trim_start_matches("http://").to_owned()),
        Err(_) => {
            let why = format!("{variable} names no server; tests/cloud/run.sh starts one");
            let required = std::env::var("VJEPA_REQUIRE_CLOUD").is_ok_and(|value| value == "1");
            assert!(!required, "VJEPA_REQUIRE_CLOUD is 1, but {why}");
            eprintln!("not tested: {why}");
            None
        }
    }
}

/// Sends one request with a body, whose answer has to be good. `headers` end in `\r\n`, each.
pub fn send(server: &str, request: &str, headers: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(server).unwrap();
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    write!(stream, "{head}{headers}\r\n").unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{request}: {answer}");
}

/// A store that is given up on sooner than in earnest.
pub fn store(options: &[(&str, &str)], patience: Duration) -> CloudStore {
    let limits = Limits { requests: 3, part: 4000, timeout: Duration::from_secs(1), patience };
    CloudStore::new(limits, options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

/// A bucket with the loose files in `loose/` and shards of them in `shards/`, and the folder that it was made of.
pub struct Bucket {
    /// `s3://bucket`.
    root: String,
    pub folder: tempfile::TempDir,
}

impl Bucket {
    /// `put` stores bytes under a key.
    pub fn new(root: &str, put: impl Fn(&str, &[u8])) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("loose")).unwrap();
        let list = loose(&folder.path().join("loose"));
        pack_copies(&list, &folder.path().join("shards"), 20_000);
        let shards = names(&folder.path().join("shards/x"));
        for path in names(&list).into_iter().chain([list.clone()]).chain(shards) {
            let key = path.strip_prefix(folder.path()).unwrap().display().to_string();
            put(&key, &std::fs::read(&path).unwrap());
        }
        Self { root: root.to_owned(), folder }
    }

    pub fn url(&self, key: &str) -> PathBuf {
        format!("{}/{key}", self.root).into()
    }

    /// A list, the folder of shards, and patterns that name them: each means the same samples.
    pub fn spellings(&self) -> Vec<String> {
        let shards = std::fs::read_dir(self.folder.path().join("shards")).unwrap().flatten();
        let last = shards.filter(|entry| entry.path().extension().is_some_and(|e| e == "tar")).count() - 1;
        let range = format!("shards/train-{{000000..{last:06}}}.tar");
        vec!["loose/list.csv".into(), "shards/".into(), "shards/train-*.tar".into(), range]
    }

    /// The batches of the files that it was made of.
    pub fn local(&self) -> Vec<Batch> {
        batches(&config(&[&self.folder.path().join("loose/list.csv")]), 5)
    }
}

pub fn loader(data: &DataConfig, store: Arc<dyn Store>) -> Result<Loader, DataError> {
    let opener = Arc::new(Opener::default().with_official_sizes(None).with_store(store));
    let source = VideoDataset::open_with(data, &AugmentConfig::default(), opener)?;
    Loader::new(Arc::new(source), LoaderConfig { workers: 2, ..LoaderConfig::new(3, 7) })
}

pub fn remote_batches(data: &DataConfig, store: Arc<dyn Store>) -> Vec<Batch> {
    let mut loader = loader(data, store).unwrap();
    let one = |_| {
        let batch = loader.next_batch().unwrap();
        (batch.clips.into_floats(batch.shape), batch.infos.iter().map(|info| info.label).collect())
    };
    (0..5).map(one).collect()
}

/// Every spelling of a bucket gives the batches of the files that it was made of.
pub fn gives_the_local_batches(bucket: &Bucket, store: impl Fn() -> Arc<dyn Store>) {
    let wanted = bucket.local();
    for key in bucket.spellings() {
        assert_eq!(remote_batches(&config(&[&bucket.url(&key)]), store()), wanted, "{key}");
    }
    // Without a list there are no labels, but the same clips in the order of their names.
    let clips = |all: Vec<Batch>| all.into_iter().map(|(clips, _)| clips).collect::<Vec<_>>();
    assert_eq!(clips(remote_batches(&config(&[&bucket.url("loose/")]), store())), clips(wanted));
}

/// What reading a file of an absent bucket is refused with, and listing it.
pub fn absent(store: &CloudStore, address: &str) -> String {
    let error = store.read_all(Path::new(address)).unwrap_err();
    assert!(matches!(error, StoreError::Storage(_)), "{error}");
    assert_eq!(store.list(Path::new(address)).unwrap_err(), error);
    error.to_string()
}
