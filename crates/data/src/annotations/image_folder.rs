//! Pictures in one folder per class: ImageNet, Places205, iNaturalist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::AnnotationError;
use super::listing::Listing;
use crate::dialect::extension;
use crate::list::VideoEntry;
use crate::survey::reasons;
use crate::walk::walk;

/// File name endings of the pictures that are read, in any case.
pub const PICTURES: [&str; 3] = ["jpg", "jpeg", "png"];
/// Those that torchvision counts as pictures as well.
const UNREAD: [&str; 6] = ["ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// Lists the pictures of a split (`.../train` or `.../val`) as torchvision's `ImageFolder` does: a class is a folder, its
/// label its place among the sorted folder names, its pictures lie at any depth in it.
///
/// # Errors
/// [`AnnotationError::File`] for a folder without class folders (ImageNet's `val` as it is distributed), and for class folders
/// without pictures.
pub fn image_folder(split: &Path) -> Result<Listing, AnnotationError> {
    let mut classes = Vec::new();
    let mut loose = 0;
    for path in children(split)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        match path.is_dir() {
            true => classes.push((name, path)),
            false => loose += usize::from(is_picture(&path)),
        }
    }
    if classes.is_empty() {
        let why = match loose {
            0 => {
                "holds neither class folders nor pictures: give the folder `train` or `val` of the data set, or for videos a list \
                 (`vjepa data list`)".to_owned()
            }
            _ => format!(
                "holds {loose} pictures and no class folder (so ImageNet's `val` is distributed): move each picture into a \
                 folder named after its class, for ImageNet its wnid"
            ),
        };
        return Err(AnnotationError::file(split, why));
    }
    classes.sort();
    let mut left_out: BTreeMap<String, (usize, PathBuf)> = BTreeMap::new();
    if loose > 0 {
        left_out.insert("lie outside the class folders: move them into one".into(), (loose, split.into()));
    }
    let mut listing = Listing { path: split.into(), ..Listing::default() };
    for ((name, folder), label) in classes.into_iter().zip(0..) {
        let mut pictures = pictures(&folder, &mut left_out)?;
        if pictures.is_empty() {
            let why = "is a class folder without pictures (.jpg, .jpeg or .png): fill it, or remove it; class folders of videos need a \
                       list first: vjepa data list classes FOLDER --out LIST.csv";
            return Err(AnnotationError::file(&folder, why));
        }
        // Folder by folder, as os.walk goes.
        pictures.sort_by(|a, b| (a.parent(), a.file_name()).cmp(&(b.parent(), b.file_name())));
        listing.entries.extend(pictures.into_iter().map(|path| VideoEntry { path, label: Some(label) }));
        listing.classes.push(name);
    }
    listing.missing = reasons(left_out);
    Ok(listing)
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, AnnotationError> {
    let fail = |error: std::io::Error| AnnotationError::file(folder, format!("cannot be read: {error}"));
    let mut paths = std::fs::read_dir(folder)
        .map_err(fail)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    paths.sort();
    Ok(paths)
}

fn is_picture(path: &Path) -> bool {
    extension(path).is_some_and(|ext| PICTURES.contains(&ext.as_str()) || UNREAD.contains(&ext.as_str()))
}

/// The pictures of a class; what else its folder holds is counted.
fn pictures(folder: &Path, left_out: &mut BTreeMap<String, (usize, PathBuf)>) -> Result<Vec<PathBuf>, AnnotationError> {
    let mut found = Vec::new();
    walk(folder, &mut |_, held| {
        for path in held.files {
            let what = match extension(&path).unwrap_or_default().as_str() {
                ext if PICTURES.contains(&ext) => {
                    found.push(path);
                    continue;
                }
                ext if UNREAD.contains(&ext) => format!(".{ext}, which is not read: convert them to .png"),
                _ => "not pictures".into(),
            };
            left_out.entry(what).or_insert_with(|| (0, path)).0 += 1;
        }
    })
    .map_err(|why| AnnotationError::file(folder, format!("cannot be read: {why}")))?;
    Ok(found)
}
