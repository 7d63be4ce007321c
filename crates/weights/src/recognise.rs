//! Files and folders given by mistake: recognised by their first bytes and named with the remedy.
//!
//! Everything that opens a file of a user's choosing asks [`foreign`] first (or when its own reader has failed).

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes that are looked at: the first block of a tar archive has its mark near the end.
const HEAD: u64 = 512;

/// Something that is not what a command reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What it is, in words: `a Git LFS pointer`.
    pub what: String,
    /// How to get what is wanted.
    pub remedy: String,
}

impl Foreign {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Option<Self> {
        Some(Self { what: what.into(), remedy: remedy.into() })
    }

    /// One sentence about the file.
    pub fn sentence(&self, path: &Path) -> String {
        format!("{} is {}; {}", path.display(), self.what, self.remedy)
    }
}

/// Recognises a file that stands for another without being it (a Git LFS pointer, a web page, a
/// compressed or packed file) or a folder that other programs write; none for everything else, also for what cannot be read.
pub fn foreign(path: &Path) -> Option<Foreign> {
    if path.is_dir() {
        return folder(path);
    }
    // A device or a pipe may never end, and cannot be read twice.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head)).ok()?;
    let extension = path.extension().unwrap_or_default();
    if extension == "distcp" {
        return distributed("a part of a distributed checkpoint");
    }
    text(&head).or_else(|| packed(&head))
}

/// Refuses a file that is something else, for readers that have their own errors; folders are theirs to judge.
///
/// # Errors
/// One sentence with the remedy.
pub fn refuse_foreign(path: &Path) -> Result<(), String> {
    match foreign(path).filter(|_| !path.is_dir()) {
        Some(found) => Err(found.sentence(path)),
        None => Ok(()),
    }
}

fn folder(path: &Path) -> Option<Foreign> {
    let there = |name: &str| path.join(name).is_file();
    if there(".metadata") {
        return distributed("a distributed checkpoint (torch.distributed.checkpoint)");
    }
    if there("zero_to_fp32.py") {
        return Foreign::new("a DeepSpeed checkpoint", "merge it with its own `zero_to_fp32.py` and give the result");
    }
    let names =
        ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
    match names.into_iter().find(|name| there(name)) {
        Some(name) => Foreign::new("a folder", format!("give the weights in it, {name}")),
        None => Foreign::new("a folder", "give a file"),
    }
}

fn distributed(what: &str) -> Option<Foreign> {
    let remedy = "convert it with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`";
    Foreign::new(what, format!("{remedy} and give FILE"))
}

/// Texts in place of a file.
fn text(head: &[u8]) -> Option<Foreign> {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("version https://git-lfs.github.com/spec/") {
        let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse::<u64>().ok());
        let what = match size {
            Some(size) => format!("a Git LFS pointer to a file of {size} bytes, not the file itself"),
            None => "a Git LFS pointer, not the file itself".to_owned(),
        };
        return Foreign::new(what, "fetch the file with `git lfs pull`");
    }
    if text.starts_with("/annex/objects/") || text.contains("/.git/annex/objects/") && head.len() < HEAD as usize {
        return Foreign::new("a git-annex pointer, not the file itself", "fetch the file with `git annex get`");
    }
    let start: String = text.chars().take(15).collect::<String>().to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        let remedy = "download the file itself: the link leads to a page, perhaps one that asks to sign in";
        return Foreign::new("an HTML page", remedy);
    }
    if start.starts_with("<?xml") && text.contains("<Error>") {
        return Foreign::new("a server's error message in XML", "download the file again");
    }
    None
}

/// Files inside of which the wanted one may be.
fn packed(head: &[u8]) -> Option<Foreign> {
    let compressed: [(&[u8], &str, &str); 4] = [
        (b"\x1f\x8b", "gzip", "gunzip"),
        (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
        (b"\xfd7zXZ\0", "xz", "unxz"),
        (b"BZh", "bzip2", "bunzip2"),
    ];
    if let Some((_, format, command)) = compressed.into_iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Foreign::new(format!("compressed with {format}"), format!("decompress it first ({command})"));
    }
    if head.get(257..262) == Some(b"ustar".as_slice()) {
        return Foreign::new("a tar archive", "unpack it (`tar -xf`) and give the file in it");
    }
    for (magic, what) in [(b"7z\xbc\xaf".as_slice(), "a 7-Zip archive"), (b"Rar!", "a RAR archive")] {
        if head.starts_with(magic) {
            return Foreign::new(what, "unpack it and give the file in it");
        }
    }
    if head.starts_with(b"\x89HDF\r\n") {
        return Foreign::new("an HDF5 file", "give a PyTorch file or safetensors");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let told = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            foreign(&path).map(|found| found.sentence(&path)).unwrap_or_default()
        };
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1308415264\n";
        let told_pointer = told("a.pt", pointer);
        assert!(told_pointer.contains("1308415264 bytes") && told_pointer.contains("git lfs pull"), "{told_pointer}");
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, what) in [
            (b"\xef\xbb\xbf <!DOCTYPE html><html>".as_slice(), "HTML page"),
            (b"<html lang=en>", "HTML page"),
            (b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied", "error message"),
            (b"/annex/objects/MD5E-s1--00\n", "git annex get"),
            (b"\x1f\x8b\x08\0", "gunzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (&tar, "tar archive"),
        ] {
            assert!(told("b", bytes).contains(what), "{what}");
        }
        assert!(told("part.distcp", b"\x80\x02").contains("dcp_to_torch"));
        for bytes in [b"".as_slice(), b"PK\x03\x04", b"\x80\x02}q", b"{\"a\": 1}", b"path label\n"] {
            assert_eq!(told("c", bytes), "");
        }
        let empty = foreign(folder.path()).unwrap();
        assert_eq!((empty.what.as_str(), empty.remedy.as_str()), ("a folder", "give a file"));
        std::fs::write(folder.path().join("model.safetensors.index.json"), "{}").unwrap();
        assert!(foreign(folder.path()).unwrap().remedy.contains("model.safetensors.index.json"));
        std::fs::write(folder.path().join(".metadata"), "").unwrap();
        assert!(foreign(folder.path()).unwrap().what.contains("distributed"));
        assert_eq!(foreign(Path::new("/no/such/file")), None);
    }
}
