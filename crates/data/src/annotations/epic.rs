//! EPIC-KITCHENS-100: actions in long videos, each a verb and a noun.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::columns::{Row, table};
use super::error::{AnnotationError, read};
use super::files::{FileIndex, Missing};
use super::python_set::{hash_of_number, hash_of_pair, in_set_order};
use crate::survey::Reason;

/// An action in a video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSegment {
    /// The video.
    pub path: PathBuf,
    /// Its first frame, from 0.
    pub start: u64,
    /// Its last.
    pub stop: u64,
    /// Class of the verb.
    pub verb: i64,
    /// Class of the noun.
    pub noun: i64,
}

impl ActionSegment {
    /// The action: verb and noun together.
    pub fn action(&self) -> (i64, i64) {
        (self.verb, self.noun)
    }
}

/// The actions of an annotation file.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// Those whose video is there, in the order of the file.
    pub segments: Vec<ActionSegment>,
    /// What of it is missing, most frequent first.
    pub missing: Vec<Reason>,
}

impl Actions {
    /// The classes that occur: verbs, nouns and actions, each ascending.
    pub fn classes(&self) -> (Vec<i64>, Vec<i64>, Vec<(i64, i64)>) {
        fn distinct<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
            all.collect::<BTreeSet<T>>().into_iter().collect()
        }
        let all = || self.segments.iter();
        (
            distinct(all().map(|one| one.verb)),
            distinct(all().map(|one| one.noun)),
            distinct(all().map(ActionSegment::action)),
        )
    }
}

/// The classes of a list of actions, as official probes number them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfficialClasses {
    /// Verbs.
    pub verbs: Vec<i64>,
    /// Nouns.
    pub nouns: Vec<i64>,
    /// Actions, pairs of both.
    pub actions: Vec<(i64, i64)>,
}

/// The classes of the official list to train on, whether its videos are there or not: the official code numbers them in the
/// order in which Python lists the set of actions, and that of their verbs and of their nouns.
///
/// # Errors
/// As [`epic`].
pub fn official_classes(annotations: &Path) -> Result<OfficialClasses, AnnotationError> {
    let lines = lines(annotations, &read(annotations)?)?;
    let actions = in_set_order(lines.iter().map(|line| (line.verb, line.noun)), |action| hash_of_pair(*action));
    let numbers =
        |part: fn(&(i64, i64)) -> i64| in_set_order(actions.iter().map(part), |number| hash_of_number(*number));
    Ok(OfficialClasses { verbs: numbers(|action| action.0), nouns: numbers(|action| action.1), actions })
}

/// The columns that are read, whatever others there are.
const COLUMNS: [&str; 6] = ["participant_id", "video_id", "start_frame", "stop_frame", "verb_class", "noun_class"];

/// Reads `EPIC_100_train.csv` or `EPIC_100_validation.csv`: one action a line, by the columns `participant_id`, `video_id`,
/// `start_frame`, `stop_frame`, `verb_class` and `noun_class`, of which an action is the pair. Videos are looked for in `videos`
/// as `<video_id>`, of several in the folder of their participant.
///
/// # Errors
/// [`AnnotationError`] for files that cannot be read, missing columns, values that are no numbers, actions that end before they
/// begin.
pub fn epic(annotations: &Path, videos: &FileIndex) -> Result<Actions, AnnotationError> {
    let mut missing = Missing::of(videos);
    let mut actions = Actions::default();
    for Line { participant, video, start, stop, verb, noun } in lines(annotations, &read(annotations)?)? {
        if let Some(path) = missing.find(&[&video], Some(&participant)) {
            actions.segments.push(ActionSegment { path, start, stop, verb, noun });
        }
    }
    actions.missing = missing.reasons();
    Ok(actions)
}

/// A line of an annotation file.
struct Line {
    participant: String,
    video: String,
    start: u64,
    stop: u64,
    verb: i64,
    noun: i64,
}

fn lines(annotations: &Path, text: &str) -> Result<Vec<Line>, AnnotationError> {
    let table = table(annotations, text, COLUMNS, |_| format!("the first line must name {}", COLUMNS.join(", ")))?;
    let mut lines = Vec::with_capacity(table.rows.len());
    for Row { line, values, .. } in table.rows {
        let fail = |why: String| AnnotationError::line(annotations, line, why);
        let [participant, video, start, stop, verb, noun] = values.each_ref().map(String::as_str);
        let number = |text: &str, name: &str| {
            text.parse::<i64>().ok().filter(|number| *number >= 0).ok_or_else(|| {
                fail(format!("`{name}` is `{text}`, which is not a whole number of 0 or more: correct the line"))
            })
        };
        let (start, stop) = (number(start, COLUMNS[2])?, number(stop, COLUMNS[3])?);
        let (verb, noun) = (number(verb, COLUMNS[4])?, number(noun, COLUMNS[5])?);
        if stop < start {
            return Err(fail(format!(
                "the action ends at frame {stop}, before it begins at {start}: correct the line"
            )));
        }
        if video.is_empty() {
            return Err(fail("`video_id` is empty: complete the line or remove it".to_owned()));
        }
        let (participant, video) = (participant.to_owned(), video.to_owned());
        lines.push(Line { participant, video, start: start as u64, stop: stop as u64, verb, noun });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(text: &str) -> Result<Actions, String> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["P01/P01_01.mp4", "P02/P02_03.mp4"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let list = folder.path().join("train.csv");
        std::fs::write(&list, text).unwrap();
        epic(&list, &FileIndex::of(folder.path()).unwrap()).map_err(|error| error.to_string())
    }

    const HEADER: &str = "narration_id,participant_id,video_id,start_frame,stop_frame,verb,verb_class,noun_class\n";

    #[test]
    fn actions_are_pairs_of_verb_and_noun() {
        let text = format!(
            "{HEADER}a,P01,P01_01,10,90,cut,3,5\nb,P02,P02_03,0,40,cut,3,7\nc,P01,P01_01,95,99,take,0,5\nd,P09,P09_01,1,2,x,1,1\n"
        );
        let actions = read_of(&text).unwrap();
        assert_eq!(actions.segments.len(), 3);
        assert!(actions.segments[1].path.ends_with("P02/P02_03.mp4"));
        assert_eq!(actions.classes(), (vec![0, 3], vec![5, 7], vec![(0, 5), (3, 5), (3, 7)]));
        assert_eq!(actions.missing.len(), 1);
    }

    #[test]
    fn official_classes_are_all_of_the_list_in_pythons_order() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("train.csv");
        let line = |(verb, noun): (i64, i64)| format!("a,P09,P09_01,1,2,x,{verb},{noun}\n");
        let rows: String = [(3, 5), (0, 7), (3, 5), (96, 299), (0, 5)].map(line).concat();
        std::fs::write(&list, format!("{HEADER}{rows}")).unwrap();
        let classes = official_classes(&list).unwrap();
        assert_eq!(classes.actions, [(0, 7), (96, 299), (3, 5), (0, 5)]);
        assert_eq!((classes.verbs, classes.nouns), (vec![0, 3, 96], vec![299, 5, 7]));
    }

    #[test]
    fn mistakes_name_the_line() {
        for (line, words) in [
            ("a,P01,P01_01,90,10,cut,3,5", "line 2: the action ends at frame 10, before it begins at 90"),
            ("a,P01,P01_01,1,10,cut,x,5", "`verb_class` is `x`"),
            ("a,P01,,1,10,cut,3,5", "`video_id` is empty"),
        ] {
            let said = read_of(&format!("{HEADER}{line}\n")).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        assert!(read_of("video_id,start\nx,1\n").unwrap_err().contains("no column `participant_id`"));
    }
}
