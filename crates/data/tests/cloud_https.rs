//! `https://` gives what local files give, from a web server that lists nothing. `tests/cloud/run.sh` starts one.
#![cfg(feature = "cloud")]

#[path = "support/remote.rs"]
mod remote;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use remote::{Bucket, loader, remote_batches};
use support::config;
use vjepa_data::storage::{CloudStore, Store, StoreError};

fn store() -> CloudStore {
    remote::store(&[], Duration::from_secs(5))
}

/// The server's address and the folder it serves.
fn server() -> Option<(String, PathBuf)> {
    remote::server("VJEPA_HTTPS_ENDPOINT")?;
    let folder = std::env::var_os("VJEPA_HTTPS_FOLDER").expect("tests/cloud/run.sh names the folder");
    Some((std::env::var("VJEPA_HTTPS_ENDPOINT").unwrap(), folder.into()))
}

#[test]
fn lists_and_numbered_shards_give_the_batches_of_the_loose_files() {
    let Some((server, folder)) = server() else { return };
    let site = Bucket::new(&format!("{server}/site"), |key, bytes| {
        let file = folder.join("site").join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    });
    let wanted = site.local();
    let mut read = 0;
    for key in site.spellings() {
        let source = config(&[&site.url(&key)]);
        // A web server does not list its folders.
        if key.ends_with('/') || key.contains('*') {
            let error = loader(&source, Arc::new(store())).err().unwrap().to_string();
            assert!(error.contains("cannot be listed"), "{error}");
            continue;
        }
        assert_eq!(remote_batches(&source, Arc::new(store())), wanted, "{key}");
        read += 1;
    }
    assert_eq!(read, 2, "a list and numbered shards");
    let missing = store().size(&site.url("loose/no.mp4")).unwrap_err();
    assert_eq!(missing, StoreError::Sample("does not exist".into()));
}

#[test]
fn a_certificate_that_nobody_trusts_is_named() {
    if server().is_none() {
        return;
    }
    let other = std::env::var("VJEPA_UNTRUSTED_ENDPOINT").expect("tests/cloud/run.sh starts a second server");
    let error = store().read(Path::new(&format!("{other}/site/loose/list.csv")), 0..10).unwrap_err();
    assert!(matches!(error, StoreError::Storage(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("certificate") && text.contains("SSL_CERT_FILE") && text.len() < 600, "{text}");
}
