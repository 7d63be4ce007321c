//! Finds ONNX Runtime's shared library.
//!
//! Searched, the first that fits: the path given (`--ort-lib`), `ORT_DYLIB_PATH`, folders given or named by
//! `VJEPA_ORT_DIR`, beside the executable and in `../lib`, the Python environment (`$VIRTUAL_ENV`, `$CONDA_PREFIX`: the
//! wheel `onnxruntime` carries the library), `build/onnxruntime` of the source tree the executable was built in, and the
//! system's loader.

mod probe;

use crate::options::Runtime;
use std::fmt;
use std::path::{Path, PathBuf};

/// The oldest minor version of ONNX Runtime 1 that works.
pub const OLDEST: u32 = 24;

/// Files looked at in one folder tree, so that a search from a large one ends.
const MOST_ENTRIES: usize = 20_000;

/// Places to look in, in addition to the usual ones.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The library itself; nothing else is tried then.
    pub explicit: Option<PathBuf>,
    /// Folders whose trees are searched.
    pub folders: Vec<PathBuf>,
}

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Where it is; a bare file name means the system's loader finds it.
    pub path: PathBuf,
    /// Minor version: 32 for 1.32.
    pub minor: u32,
    /// Which of the places it was found in.
    pub found_by: &'static str,
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ONNX Runtime 1.{} ({}, by {})", self.minor, self.path.display(), self.found_by)
    }
}

/// ONNX Runtime is not there or not usable.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Nothing was found.
    #[error(
        "ONNX Runtime was not found; install it with `pip install onnxruntime` in an active virtual environment, or point \
         `--ort-lib` or ORT_DYLIB_PATH to libonnxruntime"
    )]
    NotFound,
    /// A path that was named does not exist.
    #[error("{} ({by}) does not exist; `pip install onnxruntime` brings the library", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// Who named it.
        by: &'static str,
    },
    /// Another file.
    #[error("{} ({by}) is not a library of ONNX Runtime; `pip install onnxruntime` brings one", path.display())]
    NotALibrary {
        /// The path.
        path: PathBuf,
        /// Who named it, or where it was found.
        by: &'static str,
    },
    /// A library for another processor or system.
    #[error(
        "{} ({by}) is built for {target}, but this program for {}; install ONNX Runtime with the `pip` of a Python for {}",
        path.display(),
        std::env::consts::ARCH,
        std::env::consts::ARCH
    )]
    OtherTarget {
        /// The library.
        path: PathBuf,
        /// Who named it, or where it was found.
        by: &'static str,
        /// What it is for.
        target: String,
    },
    /// The system's loader refuses it.
    #[error(
        "{} ({by}) cannot be loaded: {reason}; install what it needs, or an ONNX Runtime for this system with \
         `pip install onnxruntime`",
        path.display()
    )]
    Unloadable {
        /// The library.
        path: PathBuf,
        /// Who named it, or where it was found.
        by: &'static str,
        /// What the loader says.
        reason: String,
    },
    /// It is too old.
    #[error(
        "{} ({by}) is ONNX Runtime {version}, but 1.{OLDEST} or newer is needed; `pip install -U onnxruntime`",
        path.display()
    )]
    TooOld {
        /// The library, or the Python package that carries it.
        path: PathBuf,
        /// Who named it, or where it was found.
        by: &'static str,
        /// Its version.
        version: String,
    },
    /// It is not one of ONNX Runtime 1.
    #[error(
        "{} ({by}) does not say which version of ONNX Runtime 1 it is; 1.{OLDEST} or newer is needed, which \
         `pip install -U onnxruntime` brings",
        path.display()
    )]
    OtherVersion {
        /// The library.
        path: PathBuf,
        /// Who named it, or where it was found.
        by: &'static str,
    },
    /// It was found but does not load.
    #[error("cannot use {}: {reason}; `pip install -U onnxruntime` brings a library that works", path.display())]
    Refused {
        /// The library.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A process can load one library only.
    #[error("cannot load {}: this process already uses {}", wanted.display(), loaded.display())]
    AlreadyLoaded {
        /// The one asked for.
        wanted: PathBuf,
        /// The one in use.
        loaded: PathBuf,
    },
}

impl LibraryError {
    /// Whether someone named the library that cannot be used; otherwise it was come across in the search.
    pub fn is_of_a_named_library(&self) -> bool {
        match self {
            Self::NotFound => false,
            Self::Missing { by, .. }
            | Self::NotALibrary { by, .. }
            | Self::OtherTarget { by, .. }
            | Self::Unloadable { by, .. }
            | Self::TooOld { by, .. }
            | Self::OtherVersion { by, .. } => matches!(*by, OPTION | VARIABLE),
            Self::Refused { .. } | Self::AlreadyLoaded { .. } => true,
        }
    }
}

impl Runtime {
    /// The ONNX Runtime that a session would use; the error says how to get one.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn discover(search: &Search) -> Result<Library, LibraryError> {
        find(search)
    }
}

/// Where wheels are.
const PYTHON: &str = "the Python environment";
/// The places of a library that someone names.
const OPTION: &str = "--ort-lib";
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The first library of the search that can be used; else why the first that was found cannot.
pub(crate) fn find(search: &Search) -> Result<Library, LibraryError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    for (path, by) in [(search.explicit.clone(), OPTION), (variable(VARIABLE), VARIABLE)] {
        if let Some(path) = path {
            return named(path, by);
        }
    }
    let mut unusable = None;
    let mut try_all = |candidates: Vec<PathBuf>, found_by: &'static str| {
        for path in candidates {
            match probe::probe(path, found_by) {
                Ok(library) => return Some(library),
                // The system has none.
                Err(LibraryError::Missing { .. }) => {}
                Err(error) => unusable = unusable.take().or(Some(error)),
            }
        }
        None
    };
    let executable = std::env::current_exe().ok();
    let folder = executable.as_deref().and_then(Path::parent);
    let beside: Vec<PathBuf> = folder
        .into_iter()
        .flat_map(|folder| [folder.to_owned(), folder.join("../lib")])
        .flat_map(|f| libraries(&f, 0))
        .collect();
    let packages = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).flat_map(|root| {
        let lib = root.join("lib");
        let folders = std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.chain([root.join("Lib")]).map(|folder| folder.join("site-packages/onnxruntime"))
    });
    let packages: Vec<PathBuf> = packages.collect();
    let python = packages.iter().flat_map(|package| libraries(&package.join("capi"), 0));
    let system = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let places: [(&'static str, Vec<PathBuf>); 6] = [
        ("a folder given", search.folders.iter().flat_map(|folder| libraries(folder, 8)).collect()),
        ("VJEPA_ORT_DIR", variable("VJEPA_ORT_DIR").iter().flat_map(|folder| libraries(folder, 8)).collect()),
        ("the executable's folder", beside),
        (PYTHON, python.collect()),
        ("the build tree", source_tree(folder).iter().flat_map(|folder| libraries(folder, 8)).collect()),
        ("the system", vec![PathBuf::from(system)]),
    ];
    for (found_by, candidates) in places {
        if let Some(library) = try_all(candidates, found_by) {
            return Ok(library);
        }
    }
    // Old wheels have ONNX Runtime inside their Python module, so that there is no library to find.
    let old_wheel = || packages.iter().find_map(|package| probe::old_wheel(package, PYTHON));
    Err(unusable.or_else(old_wheel).unwrap_or(LibraryError::NotFound))
}

/// The library that a name means: a folder is as good as the file in it, whose name carries a version.
pub(crate) fn meant(path: PathBuf) -> PathBuf {
    if path.is_dir() { libraries(&path, 8).into_iter().next().unwrap_or(path) } else { path }
}

/// A library that someone named: it or nothing.
fn named(path: PathBuf, found_by: &'static str) -> Result<Library, LibraryError> {
    probe::probe(meant(path), found_by)
}

/// `build/onnxruntime` beside the `target` folder the executable is in.
fn source_tree(folder: Option<&Path>) -> Option<PathBuf> {
    let target = folder?.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "target"))?;
    Some(target.parent()?.join("build/onnxruntime"))
}

/// The libraries in a folder and `depth` levels below it, newest name first.
fn libraries(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), depth)];
    let mut seen = 0;
    while let Some((folder, depth)) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST_ENTRIES {
                break;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth > 0 {
                open.push((entry.path(), depth - 1));
            } else if !kind.is_dir() && is_library(&entry.file_name().to_string_lossy()) {
                found.push(entry.path());
            }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(version(path)));
    found
}

/// `libonnxruntime.so.1.32.0`, `libonnxruntime.1.32.0.dylib`, `onnxruntime.dll`, but not the providers' libraries.
fn is_library(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(std::env::consts::DLL_PREFIX).and_then(|n| n.strip_prefix("onnxruntime")) else {
        return false;
    };
    rest.starts_with('.') && rest.contains(std::env::consts::DLL_SUFFIX)
}

/// The numbers in a file name, to compare versions.
fn version(path: &Path) -> Vec<u32> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn names_of_libraries() {
        assert!(is_library("libonnxruntime.so") && is_library("libonnxruntime.so.1.32.0"));
        assert!(!is_library("libonnxruntime_providers_shared.so") && !is_library("libonnx.so"));
        assert!(version(Path::new("/x/libonnxruntime.so.1.32.0")) > version(Path::new("libonnxruntime.so.1.9.1")));
    }

    #[test]
    fn a_named_path_is_taken_or_refused() {
        let search = Search { explicit: Some("/no/such/library".into()), ..Search::default() };
        let error = find(&search).unwrap_err();
        assert!(matches!(error, LibraryError::Missing { .. }) && error.is_of_a_named_library(), "{error}");
    }
}
