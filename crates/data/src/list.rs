//! Lists of videos: the official CSV, or the videos of a folder.

mod folder;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::dialect::{self, Named, Parsed, Row, extension, odd_path, short};
use super::reading::Reading;
use super::shards::split_path;
use super::source::DataError;
use super::storage::is_url;
use super::survey::{Reason, reasons};
use folder::read_folder;
use vjepa_recipe::text::{self, Text};

pub use super::dialect::{ENDINGS, EXTENSIONS};

/// A video and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoEntry {
    /// The file.
    pub path: PathBuf,
    /// Its label; none for a folder, or a list without labels.
    pub label: Option<i64>,
}

/// Files that were passed over, by what they are: how many, and the first of them.
pub type LeftOut = BTreeMap<String, (usize, PathBuf)>;

/// A data set as it was read: its videos, and what there is to say of how they were found.
#[derive(Debug, Clone, Default)]
pub struct VideoList {
    /// The list or folder.
    pub path: PathBuf,
    /// The videos, in the order of the list, or sorted.
    pub entries: Vec<VideoEntry>,
    /// The line of each, from 1; empty for a folder.
    pub lines: Vec<usize>,
    /// Files of a folder that are not read as videos.
    pub left_out: LeftOut,
    /// Departures from official lists, each worded to follow the list's name.
    pub notes: Vec<String>,
    /// Why none of the videos can be found, worded to follow the list's name; none where one was found.
    missing: Option<String>,
    /// Two lines that give a video different labels, worded to follow the list's name.
    contradiction: Option<String>,
}

impl VideoList {
    /// A data set of these videos.
    pub fn of(path: &Path, entries: Vec<VideoEntry>) -> Self {
        Self { path: path.into(), entries, ..Self::default() }
    }

    /// What a user is told of it before it is used, worded to follow its name: [`VideoList::notes`], and the files left out.
    pub fn remarks(&self) -> Vec<String> {
        let left_out = reasons(self.left_out.clone());
        let kinds: Vec<String> = left_out.iter().map(|Reason { what, count, .. }| format!("{count} {what}")).collect();
        let total: usize = left_out.iter().map(|reason| reason.count).sum();
        let left_out = left_out.first().map(|first| {
            let files = if total == 1 { "file is" } else { "files are" };
            format!("{total} {files} left out: {} (the first: {})", kinds.join(", "), first.first.display())
        });
        self.notes.iter().cloned().chain(left_out).collect()
    }

    /// The line of a video, `"line 7"`; the video's path for a folder.
    pub fn location(&self, index: usize) -> String {
        match (self.lines.get(index), self.entries.get(index)) {
            (Some(line), _) => format!("line {line}"),
            (None, Some(entry)) => entry.path.display().to_string(),
            (None, None) => "no line".into(),
        }
    }

    /// Refuses a list of which no path leads to a file.
    ///
    /// # Errors
    /// [`DataError::List`] that says how its first line was read, and what its paths look like.
    pub fn check_found(&self) -> Result<(), DataError> {
        match &self.missing {
            None => Ok(()),
            Some(why) => Err(fail(&self.path, why)),
        }
    }

    /// Refuses a list that gives a video two labels.
    ///
    /// # Errors
    /// [`DataError::List`] that names the lines.
    pub fn check_labels(&self) -> Result<(), DataError> {
        match &self.contradiction {
            None => Ok(()),
            Some(why) => Err(fail(&self.path, why)),
        }
    }
}

pub(crate) fn fail(path: &Path, why: impl std::fmt::Display) -> DataError {
    DataError::List(format!("data set {}: {why}", path.display()))
}

/// The videos of a data set, as [`read_list`] finds them.
///
/// # Errors
/// As [`read_list`].
pub fn read_videos(dataset: &Path) -> Result<Vec<VideoEntry>, DataError> {
    Ok(read_list(dataset)?.entries)
}

/// Reads one data set: a `.csv` or `.txt` list, a folder, shards, or a single file; also at addresses, with the feature `cloud`.
///
/// A list has one line per video, "path label" with a space, comma or tab between (the last one counts, so paths may
/// hold spaces), or `path::label` throughout, or a first line that names its columns. Blank lines are skipped, and so are a first line
/// "path label" and comments, which begin with `#`. `~/` is the home
/// folder. Relative paths are relative to the list's folder; where none of them exists there and one does in the current
/// directory, they are relative to that, which is noted. A folder is searched with all its sub-folders for files ending in
/// [`EXTENSIONS`], in sorted order; what else it holds is counted.
///
/// # Errors
/// [`DataError::List`] naming the file, the line and what is wrong; so are an empty list or folder, and a file that stands for
/// another, such as a Git LFS pointer.
pub fn read_list(dataset: &Path) -> Result<VideoList, DataError> {
    Reading::default().read(dataset)
}

/// A list or a folder of videos of this machine.
pub(crate) fn read_local(dataset: &Path, endings: &[&str]) -> Result<VideoList, DataError> {
    let meta = std::fs::metadata(dataset).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DataError::Absent(dataset.into()),
        _ => fail(dataset, format!("cannot be opened: {error}")),
    })?;
    if meta.is_dir() {
        return read_folder(dataset, endings);
    }
    vjepa_weights::refuse_foreign(dataset).map_err(DataError::List)?;
    if !matches!(extension(dataset).as_deref(), Some("csv" | "txt")) {
        return Err(fail(
            dataset,
            "must be a list (.csv or .txt) of \"path label\" lines, a folder, a tar shard or a video file",
        ));
    }
    let read = text::read(dataset).map_err(|error| fail(dataset, error))?;
    let folder = dataset.parent().unwrap_or(Path::new(""));
    let mut list = resolve(&read, folder).map_err(|why| fail(dataset, why))?;
    list.path = dataset.into();
    match list.entries.is_empty() {
        true => Err(fail(dataset, "holds no videos: it has no line")),
        false => Ok(list),
    }
}

/// Paths that are looked for to find where the paths of a list begin.
const LOOKED_FOR: usize = 4096;

/// Reads the lines of a list and decides what relative paths are relative to. The first note names all that is written otherwise
/// than as "path label" in UTF-8.
pub(crate) fn resolve(read: &Text, folder: &Path) -> Result<VideoList, String> {
    let parsed = dialect::parse(&read.text, &finder(folder))?;
    let with: Vec<&str> = read.departures.iter().copied().chain(parsed.departures.iter().map(String::as_str)).collect();
    let note = match (read.encoding, with.is_empty()) {
        (None, true) => None,
        (Some(encoding), true) => Some(format!("it is read as {encoding} text")),
        (None, false) => Some(format!("it is read with {}", with.join("; "))),
        (Some(encoding), false) => Some(format!("it is read as {encoding} text with {}", with.join("; "))),
    };
    let mut list = placed(parsed, folder);
    list.notes.splice(0..0, note);
    Ok(list)
}

/// Reads a list of class names, whose numbers become the labels; the second value is the names by number. A list of which no path
/// leads to a file is refused.
pub(crate) fn read_named(
    text: &str,
    list: &Path,
    known: Option<&[String]>,
) -> Result<(VideoList, Vec<String>), String> {
    let folder = list.parent().unwrap_or(Path::new(""));
    let Named { parsed, classes } = dialect::named(text, known, &finder(folder))?;
    match placed(parsed, folder) {
        VideoList { missing: Some(why), .. } => Err(why),
        found => Ok((found, classes)),
    }
}

/// Says whether a path of a list in this folder leads to a file, from there or from the current directory.
fn finder(folder: &Path) -> impl Fn(&str) -> bool {
    let home = home();
    move |path| [folder, Path::new("")].iter().any(|base| there(&within(base, path, home.as_deref())))
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// A path of a list whose relative paths begin at `base`.
fn within(base: &Path, path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ if is_url(Path::new(path)) => path.into(),
        _ => base.join(path),
    }
}

/// Rows as videos: decides what relative paths are relative to.
fn placed(Parsed { rows, mut notes, .. }: Parsed, folder: &Path) -> VideoList {
    let (home, here) = (home(), Path::new(""));
    let within = |base: &Path, path: &str| within(base, path, home.as_deref());
    let tildes = rows.iter().filter(|row| row.path.starts_with("~/")).count();
    if let (Some(home), 1..) = (&home, tildes) {
        let paths = if tildes == 1 { "1 path".into() } else { format!("{tildes} paths") };
        notes.push(format!("`~` at the beginning of {paths} is read as {}", home.display()));
    }
    let step = rows.len().div_ceil(LOOKED_FOR).max(1);
    let found = |base: &Path| rows.iter().step_by(step).any(|row| there(&within(base, &row.path)));
    let (base, missing) = match rows.first() {
        None => (folder, None),
        Some(_) if found(folder) => (folder, None),
        Some(first) if found(here) => {
            notes.push(format!(
                "its paths are read as relative to the current directory, where {} exists, since none exists relative to \
                 its own folder",
                short(&first.path)
            ));
            (here, None)
        }
        Some(first) => (folder, Some(none_found(first, &within(folder, &first.path), rows.len(), step))),
    };
    let contradiction = repeated(&rows, &mut notes);
    let entry = |row: &Row| VideoEntry { path: within(base, &row.path), label: row.label };
    VideoList {
        path: PathBuf::new(),
        entries: rows.iter().map(entry).collect(),
        lines: rows.iter().map(|row| row.line).collect(),
        left_out: LeftOut::new(),
        notes,
        missing,
        contradiction,
    }
}

/// Notes how many videos are listed again, and returns what is to be said of two labels for one.
fn repeated(rows: &[Row], notes: &mut Vec<String>) -> Option<String> {
    let mut first: HashMap<&str, &Row> = HashMap::with_capacity(rows.len());
    let (mut again, mut example, mut contradiction) = (0, None, None);
    for row in rows {
        let Some(earlier) = first.get(row.path.as_str()) else {
            first.insert(&row.path, row);
            continue;
        };
        again += 1;
        let path = short(&row.path);
        example.get_or_insert_with(|| format!("`{path}` in lines {} and {}", earlier.line, row.line));
        if earlier.label != row.label && contradiction.is_none() {
            let word = |row: &Row| row.label.map_or("no label".to_owned(), |label| format!("the label {label}"));
            contradiction = Some(format!(
                "line {} gives `{path}` {}, but line {} {}: keep one of them",
                earlier.line,
                word(earlier),
                row.line,
                word(row)
            ));
        }
    }
    if let Some(example) = example {
        let lines =
            if again == 1 { "1 line repeats a video".to_owned() } else { format!("{again} lines repeat a video") };
        let labels = if contradiction.is_some() { "; some with another label" } else { "" };
        notes.push(format!("{lines}, first {example}{labels}"));
    }
    contradiction
}

/// True for files and folders that exist, members of shards that do, and addresses, which are not asked for one by one.
fn there(path: &Path) -> bool {
    path.exists()
        || (is_url(path) && cfg!(feature = "cloud"))
        || split_path(path).is_some_and(|(shard, _)| shard.is_file())
}

/// The message for a list of which no path exists.
fn none_found(first: &Row, path: &Path, count: usize, step: usize) -> String {
    let how = match first.label {
        Some(label) => format!("was read as the path `{}` and the label {label}", short(&first.path)),
        None => format!("was read as the path `{}` without a label", short(&first.path)),
    };
    let with_ending = |ext: &str| PathBuf::from(format!("{}.{ext}", path.display()));
    let ending = EXTENSIONS.iter().map(|ext| with_ending(ext)).find(|path| path.exists());
    let hint = match (odd_path(&first.path), ending) {
        (Some(odd), _) => odd,
        (None, Some(file)) => format!("{} exists: write the paths with their file name endings", file.display()),
        (None, None) if Path::new(&first.path).is_relative() && !first.path.starts_with('~') => format!(
            "relative paths are relative to the list's own folder ({} was looked for), or else to the current directory",
            path.display()
        ),
        (None, None) => "check that the disk is there and that the paths are written for this machine".into(),
    };
    let none = match (count, step) {
        (1, _) => "its only video does not exist".to_owned(),
        (_, 1) => format!("none of its {count} videos exists"),
        _ => format!("none of the {} videos looked for among its {count} exists", count.div_ceil(step)),
    };
    format!("{none}; line {} {how}; {hint}", first.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, folder: &Path) -> Result<Vec<VideoEntry>, String> {
        resolve(&text::decode(text.as_bytes()).unwrap(), folder).map(|list| list.entries)
    }

    fn paths(text: &str) -> Vec<(String, Option<i64>)> {
        let entries = parse(text, Path::new("/data")).unwrap();
        entries.into_iter().map(|e| (e.path.display().to_string(), e.label)).collect()
    }

    #[test]
    fn separators_spaces_quotes_and_headers() {
        let own = |path: &str, label| (path.to_owned(), label);
        assert_eq!(paths("a.mp4 3\n\n/b/c.webm 12\r\n"), [own("/data/a.mp4", Some(3)), own("/b/c.webm", Some(12))]);
        assert_eq!(paths("my clip.mp4 0"), [own("/data/my clip.mp4", Some(0))]);
        assert_eq!(paths("path,label\n\"a,b.mp4\",-1"), [own("/data/a,b.mp4", Some(-1))]);
        assert_eq!(paths("\u{feff}a.mp4\t7"), [own("/data/a.mp4", Some(7))]);
        assert_eq!(paths("a.mp4\nmy clip.mp4"), [own("/data/a.mp4", None), own("/data/my clip.mp4", None)]);
        assert_eq!(paths("'a.mp4', \"3\"\nb.avi 1"), [own("/data/a.mp4", Some(3)), own("/data/b.avi", Some(1))]);
        assert_eq!(paths("my clip.avi"), [own("/data/my clip.avi", None)]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert!(parse("a.mp4 1\nb.mp4 cat", Path::new("")).unwrap_err().starts_with("line 2 must be"));
    }

    #[test]
    fn folders_are_searched_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        std::fs::create_dir(folder.path().join(".b")).unwrap();
        for name in ["b/z.MP4", "a.webm", "notes.txt", "b/c.mkv", "b/y.avi", "x.AVI", "._a.webm", ".b/a.webm"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let list = read_list(folder.path()).unwrap();
        let own = |path: &Path| path.strip_prefix(folder.path()).unwrap().to_path_buf();
        let names: Vec<_> = list.entries.iter().map(|e| own(&e.path)).collect();
        let left: Vec<_> = list.left_out.values().map(|(count, first)| (*count, own(first))).collect();
        if cfg!(feature = "ffmpeg") {
            assert_eq!(names, ["a.webm", "b/c.mkv", "b/y.avi", "b/z.MP4", "x.AVI"].map(PathBuf::from));
            assert_eq!(left, [(1, "notes.txt".into()), (1, "._a.webm".into()), (1, ".b".into())]);
        } else {
            assert_eq!(names, ["a.webm", "b/c.mkv", "b/z.MP4"].map(PathBuf::from));
            assert_eq!(
                left,
                [(2, "b/y.avi".into()), (1, "notes.txt".into()), (1, "._a.webm".into()), (1, ".b".into())]
            );
            let why = list.left_out.keys().next().unwrap();
            assert!(
                why.contains("convert to .mp4 or use `vjepa data pack`, or build with `--features ffmpeg`"),
                "{why}"
            );
        }
    }

    #[test]
    fn what_is_no_data_set_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let say = |path: &Path| read_videos(path).unwrap_err().to_string();
        assert!(say(&folder.path().join("missing.csv")).contains("there is no such file"));
        assert!(say(folder.path()).contains("holds no videos"));
        let odd = folder.path().join("data.npy");
        std::fs::write(&odd, "x").unwrap();
        assert!(say(&odd).contains("must be a list"));
        let binary = folder.path().join("data.csv");
        std::fs::write(&binary, [0xFF, 0xFE, 0x00]).unwrap();
        assert!(say(&binary).contains("UTF-8"));
    }
}
