//! Checks of files: outputs spare inputs; those of a model stay in its folder, links in its tree, and checksums match.

use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

/// Whether `name` is a file of a folder: one component, and none that leads elsewhere.
pub fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// Whether two paths lead to the same file, links followed; a file that is yet to be written is where its folder is.
pub fn same(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        path.canonicalize().ok().or_else(|| Some(folder.canonicalize().ok()?.join(path.file_name()?)))
    };
    place(a).is_some_and(|a| place(b) == Some(a))
}

/// An output that would overwrite an input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {} would overwrite {}, which is an input; give another {flag}", given.display(), input.display())]
pub struct Overwrites {
    /// The argument that names the output: `--out`.
    pub flag: &'static str,
    /// What was given for it.
    pub given: PathBuf,
    /// The input.
    pub input: PathBuf,
}

/// Refuses to overwrite what is read, before anything is: none of the files that are `written` for `flag`, which was given as
/// `given`, is one of the files `read`, however their paths are spelled.
///
/// # Errors
/// [`Overwrites`] names the argument and the input.
pub fn spare<'a>(
    flag: &'static str,
    given: &Path,
    written: &[impl AsRef<Path>],
    read: impl IntoIterator<Item = &'a Path>,
) -> Result<(), Overwrites> {
    match read.into_iter().find(|read| written.iter().any(|written| same(written.as_ref(), read))) {
        Some(input) => Err(Overwrites { flag, given: given.to_owned(), input: input.to_owned() }),
        None => Ok(()),
    }
}

/// Where the files that belong to a model (or to a bundle's manifest) may lie.
///
/// Installers link instead of copying, so links are followed, but not out of the tree. That is
/// - the folder of the file that was named, and everything below it: hard links (`cp -al`, DVC, conda, OSTree) and
///   symbolic links within it (the `..data` of a Kubernetes volume);
/// - where the named file is itself a symbolic link, the folder its target lies in: the layout of the Hugging Face cache
///   (`snapshots/REVISION/model.onnx -> ../../blobs/SHA256`), of Bazel and of GNU Stow;
/// - where that target is in a store of files named by their digest, spread over folders by its first two digits (DVC's
///   `files/md5/d4/1d8cd98f00b204e9800998ecf8427e`), that store's files.
///
/// A symbolic link to anything else is refused: whoever packed the model could otherwise have any file of the machine read
/// as weights. A hard link cannot be made by unpacking an archive elsewhere than where one can write, and is a file like
/// any other.
#[derive(Clone, Debug)]
pub struct Tree {
    folder: PathBuf,
    roots: Vec<PathBuf>,
    store: Option<PathBuf>,
}

impl Tree {
    /// The tree of `file`, which is there.
    ///
    /// # Errors
    /// When the file, or a link on the way to it, cannot be read.
    pub fn of(file: &Path) -> std::io::Result<Self> {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let target = file.canonicalize()?;
        let mut roots = vec![folder.canonicalize()?];
        roots.extend(target.parent().map(Path::to_owned));
        Ok(Self { folder: folder.to_owned(), roots, store: store(&target) })
    }

    /// The regular file that `name` means, a relative path from the tree's folder on; links resolved.
    ///
    /// # Errors
    /// What it is instead, and what to do: "is a link that leads out of the model's folder; put the file itself there".
    pub fn file(&self, name: &str) -> Result<(PathBuf, Metadata), String> {
        let outside = |part: Component<'_>| !matches!(part, Component::Normal(_) | Component::CurDir);
        if Path::new(name).components().any(outside) {
            return Err("is not inside the model's folder".to_owned());
        }
        let path = self.folder.join(name);
        let unreadable = |error: std::io::Error| format!("cannot be read ({error})");
        let linked = path.symlink_metadata().map_err(unreadable)?.file_type().is_symlink();
        let target = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if linked => "is a link to a file that is not there".to_owned(),
            _ => unreadable(error),
        })?;
        if !self.holds(&target) {
            return Err("is a link that leads out of the model's folder; put the file itself there".to_owned());
        }
        let about = target.symlink_metadata().map_err(unreadable)?;
        // Devices and pipes have no end, and opening a pipe waits.
        if !about.is_file() {
            return Err("is not a regular file".to_owned());
        }
        Ok((target, about))
    }

    /// Whether a file that [`Tree::file`] found lies in the folder or in that of the linked file, not elsewhere in a store.
    pub fn is_near(&self, target: &Path) -> bool {
        self.roots.iter().any(|root| target.starts_with(root))
    }

    fn holds(&self, target: &Path) -> bool {
        self.is_near(target) || self.store.as_ref().is_some_and(|own| store(target).as_ref() == Some(own))
    }
}

/// The root of the store in which this file is named by its digest, `ROOT/d4/1d8cd98f00b204e9800998ecf8427e`.
fn store(target: &Path) -> Option<PathBuf> {
    let digits = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(name.len())
    };
    let spread = target.parent()?;
    // MD5, SHA-1, SHA-256 and SHA-512, with or without the two digits of the folder.
    let known = |length: usize| matches!(length, 30 | 32 | 38 | 40 | 62 | 64 | 126 | 128);
    (digits(spread)? == 2 && digits(target).is_some_and(known)).then(|| spread.parent().map(Path::to_owned))?
}

/// Puts all that can be read into a hash.
///
/// # Errors
/// As reading.
#[cfg(any(feature = "ort", feature = "burn"))]
pub fn hash_all(hash: &mut sha2::Sha256, reader: &mut impl std::io::Read) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            count => sha2::Digest::update(hash, &buffer[..count]),
        }
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// As opening and reading it.
#[cfg(any(feature = "ort", feature = "burn"))]
pub fn sha256(path: &Path) -> std::io::Result<String> {
    let mut hash = <sha2::Sha256 as sha2::Digest>::new();
    hash_all(&mut hash, &mut std::fs::File::open(path)?)?;
    Ok(hex(&sha2::Digest::finalize(hash)))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
