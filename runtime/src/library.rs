//! Where ONNX Runtime's shared library is.
//!
//! Searched, the first that fits: the path given (`--ort-lib`), `ORT_DYLIB_PATH`, folders given or named by
//! `VJEPA_ORT_DIR`, beside the executable and in `../lib`, the Python environment (`$VIRTUAL_ENV`, `$CONDA_PREFIX`: the
//! wheel `onnxruntime` carries the library), `build/onnxruntime` of the source tree the executable was built in, and the
//! system's loader.

use crate::options::Runtime;
use std::fmt;
use std::path::{Path, PathBuf};

/// The oldest minor version of ONNX Runtime 1 that works.
pub const OLDEST: u32 = 24;

/// Files looked at in one folder tree, so that a search from a large one ends.
const MOST_ENTRIES: usize = 20_000;

/// Where to look besides the usual places.
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
    /// A path that was named is no such library.
    #[error("{} ({by}) is no library of ONNX Runtime; `pip install onnxruntime` brings one", path.display())]
    NotALibrary {
        /// The path.
        path: PathBuf,
        /// Who named it.
        by: &'static str,
    },
    /// It is too old.
    #[error("{} is ONNX Runtime 1.{minor}, but 1.{OLDEST} is needed; `pip install -U onnxruntime`", path.display())]
    TooOld {
        /// The library.
        path: PathBuf,
        /// Its minor version.
        minor: u32,
    },
    /// It was found but does not load.
    #[error("cannot use {}: {reason}", path.display())]
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

impl Runtime {
    /// The ONNX Runtime that a session would use; the error says how to get one.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn discover(search: &Search) -> Result<Library, LibraryError> {
        find(search)
    }
}

/// The first library of the search that is new enough; else why the best of them is not.
pub(crate) fn find(search: &Search) -> Result<Library, LibraryError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    for (path, by) in [(search.explicit.clone(), "--ort-lib"), (variable("ORT_DYLIB_PATH"), "ORT_DYLIB_PATH")] {
        if let Some(path) = path {
            return named(path, by);
        }
    }
    let mut too_old = None;
    let mut try_all = |candidates: Vec<PathBuf>, found_by: &'static str| {
        for path in candidates {
            match probe(&path) {
                Some(minor) if minor >= OLDEST => return Some(Library { path, minor, found_by }),
                Some(minor) => too_old = too_old.take().or(Some(LibraryError::TooOld { path, minor })),
                None => {}
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
    let python = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).flat_map(|root| {
        let lib = root.join("lib");
        let folders = std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
        folders
            .chain([root.join("Lib")])
            .flat_map(|folder| libraries(&folder.join("site-packages/onnxruntime/capi"), 0))
    });
    let system = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let places: [(&'static str, Vec<PathBuf>); 6] = [
        ("a folder given", search.folders.iter().flat_map(|folder| libraries(folder, 8)).collect()),
        ("VJEPA_ORT_DIR", variable("VJEPA_ORT_DIR").iter().flat_map(|folder| libraries(folder, 8)).collect()),
        ("the executable's folder", beside),
        ("the Python environment", python.collect()),
        ("the build tree", source_tree(folder).iter().flat_map(|folder| libraries(folder, 8)).collect()),
        ("the system", vec![PathBuf::from(system)]),
    ];
    for (found_by, candidates) in places {
        if let Some(library) = try_all(candidates, found_by) {
            return Ok(library);
        }
    }
    Err(too_old.unwrap_or(LibraryError::NotFound))
}

/// The library that a name means: a folder is as good as the file in it, whose name carries a version.
pub(crate) fn meant(path: PathBuf) -> PathBuf {
    if path.is_dir() { libraries(&path, 8).into_iter().next().unwrap_or(path) } else { path }
}

/// A library that someone named: it or nothing.
fn named(path: PathBuf, found_by: &'static str) -> Result<Library, LibraryError> {
    let path = meant(path);
    match probe(&path) {
        Some(minor) if minor >= OLDEST => Ok(Library { path, minor, found_by }),
        Some(minor) => Err(LibraryError::TooOld { path, minor }),
        None => Err(LibraryError::NotALibrary { path, by: found_by }),
    }
}

/// Minor version of the library at `path`; `None` when it is none.
fn probe(path: &Path) -> Option<u32> {
    // The loader looks for a relative path elsewhere; one that exists is meant from here. A bare name is the system's.
    match std::path::absolute(path).ok().filter(|absolute| absolute.exists()) {
        Some(absolute) => ort::util::probe(absolute),
        None if path.components().count() == 1 => ort::util::probe(path),
        None => None,
    }
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
        assert!(matches!(error, LibraryError::NotALibrary { .. }), "{error}");
    }
}
