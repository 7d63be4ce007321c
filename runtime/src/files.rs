//! What is asked of files that came with a model: names that stay in its folder, files that are nobody else's, sums.

use std::fs::Metadata;
use std::path::{Component, Path};

/// Whether `name` is a file of a folder: one component, and none that leads elsewhere.
pub fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// Fails for what is no file of its folder alone: links could lead out of it, or be written to from outside. `about` is of
/// the file itself ([`Path::symlink_metadata`]).
///
/// # Errors
/// What it is instead, and what to do.
pub fn is_own(about: &Metadata) -> Result<(), &'static str> {
    if about.file_type().is_symlink() {
        return Err("is a link; put the file itself there");
    }
    if !about.is_file() {
        return Err("is no regular file");
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(about) != 1 {
        return Err("is a hard link to a file elsewhere; put a copy there");
    }
    Ok(())
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

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert!(is_name("model.onnx") && is_name("a b"));
        for name in ["", ".", "..", "../a", "/a", "a/b", "./a", "a/"] {
            assert!(!is_name(name), "{name}");
        }
        assert_eq!(hex(&[0, 171]), "00ab");
    }
}
