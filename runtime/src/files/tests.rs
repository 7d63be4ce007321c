use super::*;

#[test]
fn names_stay_in_their_folder() {
    assert!(is_name("model.onnx") && is_name("a b"));
    for name in ["", ".", "..", "../a", "/a", "a/b", "./a", "a/"] {
        assert!(!is_name(name), "{name}");
    }
    assert_eq!(hex(&[0, 171]), "00ab");
}

#[test]
fn an_output_is_none_of_the_inputs() {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str| root.path().join(name);
    std::fs::write(file("in"), "").unwrap();
    std::fs::create_dir(file("folder")).unwrap();
    let (input, spelled) = (file("in"), file("folder").join("../in"));
    for (written, inputs) in [(&input, [&file("other"), &input]), (&spelled, [&input, &input])] {
        let told = spare("--out", Path::new("given"), &[file("new"), written.clone()], inputs.map(PathBuf::as_path));
        let told = told.unwrap_err().to_string();
        let wanted = format!("--out given would overwrite {}, which is an input; give another --out", input.display());
        assert_eq!(told, wanted);
    }
    // Neither is there; a folder is another file than what lies in it.
    assert_eq!(spare("--out", &input, &[file("new")], [input.as_path(), &file("gone"), root.path()]), Ok(()));
    assert!(spare("--out", &input, &[file("folder/../new")], [file("new").as_path()]).is_err());
}

#[cfg(unix)]
mod links {
    use super::*;
    use std::fs::{create_dir_all, hard_link, write};
    use std::os::unix::fs::symlink;

    /// What `Tree::file` says of `name`, for the file `main` of `root`.
    fn found(root: &Path, main: &str, name: &str) -> Result<u64, String> {
        Tree::of(&root.join(main)).unwrap().file(name).map(|(_, about)| about.len())
    }

    /// A file of that path with its folders.
    fn put(root: &Path, path: &str, text: &str) {
        create_dir_all(root.join(path).parent().unwrap()).unwrap();
        write(root.join(path), text).unwrap();
    }

    fn link(root: &Path, target: &str, path: &str) {
        create_dir_all(root.join(path).parent().unwrap()).unwrap();
        symlink(target, root.join(path)).unwrap();
    }

    #[test]
    fn hard_links_are_files_like_any_other() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/m", "");
        put(root.path(), "a/m.data", "12345");
        create_dir_all(root.path().join("b")).unwrap();
        for name in ["m", "m.data"] {
            hard_link(root.path().join("a").join(name), root.path().join("b").join(name)).unwrap();
        }
        for copy in ["a/m", "b/m"] {
            assert_eq!(found(root.path(), copy, "m.data"), Ok(5));
        }
    }

    #[test]
    fn links_within_the_folder_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        // A Kubernetes volume.
        put(root, "v/..2026/m", "");
        put(root, "v/..2026/m.data", "123");
        link(root, "..2026", "v/..data");
        link(root, "..data/m", "v/m");
        link(root, "..data/m.data", "v/m.data");
        assert_eq!(found(root, "v/m", "m.data"), Ok(3));
        assert_eq!(found(root, "v/m", "./..data/m.data"), Ok(3));
        // The folder itself is reached through a link.
        link(root, "v", "current");
        assert_eq!(found(root, "current/m", "m.data"), Ok(3));
    }

    #[test]
    fn a_cache_of_blobs_is_one_tree() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(root, "models--a--b/blobs/0123", "");
        put(root, "models--a--b/blobs/4567", "1234567");
        link(root, "../../../blobs/0123", "models--a--b/snapshots/f00/onnx/m");
        link(root, "../../../blobs/4567", "models--a--b/snapshots/f00/onnx/m.data");
        assert_eq!(found(root, "models--a--b/snapshots/f00/onnx/m", "m.data"), Ok(7));
        // A snapshot whose model is a copy does not reach into a cache.
        put(root, "models--a--b/snapshots/bad/m", "");
        link(root, "../../blobs/4567", "models--a--b/snapshots/bad/m.data");
        assert!(found(root, "models--a--b/snapshots/bad/m", "m.data").unwrap_err().contains("leads out of"));
        // Nor does it reach another model's blobs.
        put(root, "models--c--d/blobs/89ab", "1");
        link(root, "../../../../models--c--d/blobs/89ab", "models--a--b/snapshots/f00/onnx/other");
        assert!(found(root, "models--a--b/snapshots/f00/onnx/m", "other").is_err());
    }

    #[test]
    fn a_store_of_digests_is_one_tree() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let digest = |first: char| format!("cache/files/md5/{first}0/{}", "1234567890".repeat(3));
        put(root, &digest('a'), "");
        put(root, &digest('b'), "12");
        put(root, "cache/files/secrets/password", "hunter2");
        put(root, "cache/files/md5/c0/password", "hunter2");
        link(root, &format!("../{}", digest('a')), "models/m");
        link(root, &format!("../{}", digest('b')), "models/m.data");
        link(root, "../cache/files/secrets/password", "models/secret");
        link(root, "../cache/files/md5/c0/password", "models/unnamed");
        assert_eq!(found(root, "models/m", "m.data"), Ok(2));
        for name in ["secret", "unnamed"] {
            assert!(found(root, "models/m", name).unwrap_err().contains("leads out of"), "{name}");
        }
    }

    #[test]
    fn what_leads_out_or_is_not_a_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(root, "elsewhere/secret", "s");
        put(root, "model/m", "");
        create_dir_all(root.join("model/folder")).unwrap();
        link(root, "../elsewhere/secret", "model/out");
        link(root, "../elsewhere", "model/door");
        link(root, "out", "model/twice");
        link(root, "/dev/zero", "model/device");
        link(root, "nowhere", "model/dangling");
        link(root, "circle", "model/circle");
        let socket = std::os::unix::net::UnixListener::bind(root.join("model/socket")).unwrap();
        for (name, said) in [
            ("out", "leads out of"),
            ("door/secret", "leads out of"),
            ("twice", "leads out of"),
            ("device", "leads out of"),
            ("dangling", "not there"),
            ("circle", "cannot be read"),
            ("socket", "not a regular file"),
            ("folder", "not a regular file"),
            ("../elsewhere/secret", "not inside"),
            ("folder/../../elsewhere/secret", "not inside"),
            ("/etc/passwd", "not inside"),
            ("missing", "cannot be read"),
        ] {
            let error = found(root, "model/m", name).unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
        }
        drop(socket);
    }
}
