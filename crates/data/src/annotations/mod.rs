//! The annotation files that data sets come with, turned into the plain "path label" list that everything reads.
//!
//! | data set | reader | files |
//! |---|---|---|
//! | Kinetics 400, 600, 700 | [`kinetics`] | `label,youtube_id,time_start,time_end,split` as CSV, or the JSON by id |
//! | Something-Something v2 | [`ssv2`] | `labels.json` and `train.json` or `validation.json` |
//! | UCF101 | [`ucf101`] | `classInd.txt` and `trainlist0N.txt` or `testlist0N.txt` |
//! | HMDB51 | [`hmdb51`] | the folder of `<class>_test_splitN.txt` |
//! | Diving48 | [`diving48`] | `Diving48_V2_train.json` and `Diving48_vocab.json` |
//! | EPIC-KITCHENS-100 | [`epic`] | `EPIC_100_train.csv` or `EPIC_100_validation.csv` |
//! | AVA | [`ava`] | boxes, excluded timestamps, label map, person boxes |
//! | ImageNet, Places205, iNaturalist | [`image_folder`] | one folder per class |
//! | class names instead of numbers | [`named_list`] | a list of "path class" |
//! | no annotations | [`folder`], [`fn@glob`], [`class_folders`] | where the videos lie |
//!
//! Each gives a [`Listing`]: entries, class names by index, and a count of what is missing and why. Text is read in any
//! encoding and with any line ends that [`vjepa_recipe::text`] knows. Whatever cannot be meant is an [`AnnotationError`] that
//! names the file, the line and what to do.

pub mod ava;
mod columns;
mod diving48;
mod epic;
mod error;
mod files;
mod folders;
mod hmdb51;
mod image_folder;
mod json;
mod kinetics;
mod listing;
mod named;
mod python_set;
mod ssv2;
mod subset;
mod ucf101;

pub use diving48::diving48;
pub use epic::{ActionSegment, Actions, OfficialClasses, epic, official_classes};
pub use error::AnnotationError;
pub use files::FileIndex;
pub use folders::{class_folders, folder, glob};
pub use hmdb51::{HmdbPart, hmdb51};
pub use image_folder::{PICTURES, image_folder};
pub use kinetics::kinetics;
pub use listing::{Classes, Listing, check_labels};
pub use named::named_list;
pub use ssv2::ssv2;
pub use subset::{Share, Subset, share_of, subset};
pub use ucf101::ucf101;

#[cfg(test)]
mod tests;
