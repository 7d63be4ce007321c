//! Whether a file is an ONNX Runtime that can be used, and if not, why.

use super::{Library, LibraryError, OLDEST};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The library at `path`, which may be a bare name that the system's loader finds.
///
/// # Errors
/// [`LibraryError`]: [`Missing`](LibraryError::Missing) when there is no such file.
pub(super) fn probe(path: PathBuf, by: &'static str) -> Result<Library, LibraryError> {
    // The loader looks for a relative path elsewhere; one that exists is meant from here.
    let place = match std::path::absolute(&path).ok().filter(|absolute| absolute.exists()) {
        Some(absolute) => absolute,
        None if path.components().count() == 1 => path.clone(),
        None => return Err(LibraryError::Missing { path, by }),
    };
    match target(&place) {
        Target::Other(target) => return Err(LibraryError::OtherTarget { path, by, target }),
        Target::NotALibrary => return Err(LibraryError::NotALibrary { path, by }),
        Target::Possible => {}
    }
    // SAFETY: what loading a library runs are its own initialisers; ONNX Runtime's are sound in any thread, and a library
    // under its name is taken for one, as by every program that is linked to it.
    let library = match unsafe { libloading::Library::new(&place) } {
        Ok(library) => library,
        Err(error) => return Err(refused(path, by, &error)),
    };
    // SAFETY: the symbol is looked for and not used.
    if unsafe { library.get::<*const ()>(b"OrtGetApiBase\0") }.is_err() {
        return Err(LibraryError::NotALibrary { path, by });
    }
    match crate::quiet::caught(|| ort::util::probe(&place)) {
        Ok(Some(minor)) if minor >= OLDEST => Ok(Library { path, minor, found_by: by }),
        Ok(Some(minor)) => Err(LibraryError::TooOld { path, by, version: format!("1.{minor}") }),
        Ok(None) | Err(_) => Err(LibraryError::OtherVersion { path, by }),
    }
}

/// Why the loader does not take it.
fn refused(path: PathBuf, by: &'static str, error: &libloading::Error) -> LibraryError {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let reason = crate::quiet::shortened(&source.unwrap_or_else(|| error.to_string()));
    // A bare name that the system does not know, and not a library that this one needs.
    let absent = path.components().count() == 1
        && !path.exists()
        && reason.starts_with(&*path.to_string_lossy())
        && reason.contains("cannot open shared object file");
    match absent || cfg!(not(target_os = "linux")) && path.components().count() == 1 {
        true => LibraryError::Missing { path, by },
        false => LibraryError::Unloadable { path, by, reason },
    }
}

/// An ONNX Runtime that a Python package has only inside its module, as wheels up to 1.16 do.
pub(super) fn old_wheel(package: &Path, by: &'static str) -> Option<LibraryError> {
    let about = std::fs::read_to_string(package.join("capi/build_and_package_info.py")).ok()?;
    let line = about.lines().find_map(|line| line.strip_prefix("__version__")?.trim_start().strip_prefix('='))?;
    let version: String = line.chars().filter(|c| c.is_ascii_digit() || *c == '.').take(20).collect();
    let minor: u32 = version.strip_prefix("1.")?.split('.').next()?.parse().ok()?;
    (minor < OLDEST).then(|| LibraryError::TooOld { path: package.to_owned(), by, version })
}

/// What a file is for.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// This processor and system, or it cannot be told.
    Possible,
    /// Another one.
    Other(String),
    /// No program reads it as a library.
    NotALibrary,
}

/// `e_machine` of ELF files, by the architecture's name.
const MACHINES: [(u16, &str); 9] = [
    (3, "x86"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (8, "mips"),
    (258, "loongarch64"),
];

/// Looks at the first bytes: what loaders say of a file for another machine is often that it does not exist.
fn target(path: &Path) -> Target {
    let mut head = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read(&mut head));
    match read {
        Ok(read) => of_head(head.get(..read).unwrap_or_default()),
        // A name for the loader, or a file that it may read.
        Err(_) => Target::Possible,
    }
}

fn of_head(head: &[u8]) -> Target {
    let elf = cfg!(any(target_os = "linux", target_os = "android"));
    match head {
        [0x7f, b'E', b'L', b'F', _, order, _, ..] if elf && head.len() >= 20 => {
            let bytes = [head[18], head[19]];
            let machine = if *order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
            match MACHINES.iter().find(|(known, _)| *known == machine) {
                Some((_, name)) if *name == std::env::consts::ARCH => Target::Possible,
                Some((_, name)) => Target::Other((*name).to_owned()),
                None => Target::Other(format!("a processor that ELF numbers {machine}")),
            }
        }
        [0x7f, b'E', b'L', b'F', ..] if !elf => Target::Other("Linux".to_owned()),
        [b'M', b'Z', ..] if !cfg!(windows) => Target::Other("Windows".to_owned()),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] if !cfg!(target_vendor = "apple") => {
            Target::Other("macOS".to_owned())
        }
        _ if elf => Target::NotALibrary,
        _ => Target::Possible,
    }
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn heads_say_what_a_file_is_for() {
        let elf = |machine: u16, order: u8| {
            let mut head = vec![0x7f, b'E', b'L', b'F', 2, order, 1];
            head.resize(18, 0);
            head.extend(if order == 2 { machine.to_be_bytes() } else { machine.to_le_bytes() });
            head
        };
        let other = |name: &str| Target::Other(name.to_owned());
        for (head, wanted) in [
            (elf(62, 1), Target::Possible),
            (elf(183, 1), other("aarch64")),
            (elf(3, 1), other("x86")),
            (elf(22, 2), other("s390x")),
            (elf(9999, 1), other("a processor that ELF numbers 9999")),
            (b"MZ\x90\0".to_vec(), other("Windows")),
            (vec![0xcf, 0xfa, 0xed, 0xfe], other("macOS")),
            (b"version https://git-lfs.github.com/spec/v1".to_vec(), Target::NotALibrary),
            (elf(62, 1)[..10].to_vec(), Target::NotALibrary),
            (Vec::new(), Target::NotALibrary),
        ] {
            assert_eq!(of_head(&head), wanted, "{head:?}");
        }
    }
}
