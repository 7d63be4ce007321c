//! The one way through folders: lists, annotations, frame folders and pictures all find the same files.
//!
//! What begins with a dot is hidden and left out, folders too: `.git`, `.Trashes`, the `._name` that macOS leaves beside each
//! file on other systems' disks. Links to folders are followed, but no folder is entered twice.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Deeper folders are a loop of links.
const MAX_DEPTH: usize = 64;

/// What one folder holds, sorted.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Files, and links that lead nowhere.
    pub files: Vec<PathBuf>,
    /// Files and folders that are left out, since their names begin with a dot.
    pub hidden: Vec<PathBuf>,
}

/// True for names that begin with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Shows every folder with what it holds, a folder before those in it.
///
/// # Errors
/// The first folder that cannot be read, with the reason.
pub(crate) fn walk(folder: &Path, visit: &mut impl FnMut(&Path, Held)) -> Result<(), String> {
    enter(folder, &mut HashSet::new(), 0, visit)
}

fn enter(
    folder: &Path,
    entered: &mut HashSet<PathBuf>,
    depth: usize,
    visit: &mut impl FnMut(&Path, Held),
) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    if depth > MAX_DEPTH || !entered.insert(folder.canonicalize().map_err(fail)?) {
        return Ok(());
    }
    let (mut held, mut folders) = (Held::default(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if is_hidden(&path) {
            held.hidden.push(path);
        } else if path.is_dir() {
            folders.push(path);
        } else {
            held.files.push(path);
        }
    }
    held.files.sort();
    held.hidden.sort();
    folders.sort();
    visit(folder, held);
    folders.iter().try_for_each(|folder| enter(folder, entered, depth + 1, visit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_are_left_out_and_loops_end() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b/2.mp4", "1.mp4", ".git/3.mp4", "b/._2.mp4"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.path(), root.path().join("b/loop")).unwrap();
        let (mut files, mut hidden) = (Vec::new(), Vec::new());
        walk(root.path(), &mut |_, held| {
            files.extend(held.files);
            hidden.extend(held.hidden);
        })
        .unwrap();
        let within = |names: [&str; 2]| names.map(|name| root.path().join(name)).to_vec();
        assert_eq!((files, hidden), (within(["1.mp4", "b/2.mp4"]), within([".git", "b/._2.mp4"])));
    }
}
