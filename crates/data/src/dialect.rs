//! The lines of a list: the official "path label", what else can be read without guessing, and what was misread otherwise.
//!
//! Other trainers write their lists with other columns and separators. A list that could mean two things is refused in a
//! sentence that says what its columns look like; a label is never taken from a column that may be something else.

mod classes;
mod form;
mod table;

pub(crate) use classes::{Named, named};

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use form::{Form, closed, swapped, without_label};
use table::{Cells, Table};
use vjepa_recipe::text;

/// File name endings of videos: first those that are always read, then those that the feature `ffmpeg` adds, and that the
/// `ffmpeg` program transcodes.
pub const ENDINGS: &[&str] = &[
    "mp4", "webm", "mov", "m4v", "mkv", // always
    "avi", "mpg", "mpeg", "mpe", "wmv", "asf", "flv", "f4v", "ts", "mts", "m2ts", "ogv", "ogg", "3gp", "3g2", "vob",
    "divx", "ivf",
];
/// File name endings of the videos that are read; with the feature `ffmpeg` those of AVI, MPEG-TS and others, too.
pub const EXTENSIONS: &[&str] = if cfg!(feature = "ffmpeg") { ENDINGS } else { ENDINGS.split_at(5).0 };
/// Endings of videos in containers that are read with no feature.
const NEVER: &[&str] = &["rm", "rmvb", "y4m", "gif", "h264", "hevc"];

/// Whether files of this ending, in small letters, are read.
pub(super) fn is_read(ext: &str) -> bool {
    EXTENSIONS.contains(&ext)
}

/// What to do with a video whose container is not read; none for an ending that is read, or that belongs to no video.
pub(super) fn unread(ext: &str) -> Option<&'static str> {
    match ext {
        _ if is_read(ext) => None,
        _ if ENDINGS.contains(&ext) => {
            Some("convert to .mp4 or use `vjepa data pack`, or build with `--features ffmpeg`")
        }
        _ if NEVER.contains(&ext) => Some("convert to .mp4"),
        _ => None,
    }
}

/// A line of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its number, from 1.
    pub line: usize,
    /// The path as it is written, without quotes.
    pub path: String,
    /// The label, where there is one.
    pub label: Option<i64>,
}

/// The lines of a list, and what is to be said of how they were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
    /// What was read otherwise than as "path label" with a space: separators, quotes.
    pub departures: Vec<String>,
}

/// A line that is not blank.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
}

pub(super) fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase)
}

fn is_video(text: &str) -> bool {
    extension(Path::new(text)).is_some_and(|ext| is_read(&ext) || unread(&ext).is_some())
}

const SEPARATORS: [char; 3] = [' ', ',', '\t'];

/// Whether a line is a comment.
fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Reads the lines of a list. `exists` says whether a path as written leads to a file; it is asked about odd lines only.
///
/// # Errors
/// A sentence that begins with the number of the line, and says what was found there and what to write instead.
pub(super) fn parse(text: &str, exists: &dyn Fn(&str) -> bool) -> Result<Parsed, String> {
    let (mut parsed, comments) = match table::read(text)? {
        Some(Table { rows, note, comments, quotes }) => {
            let rows = rows.into_iter().map(|Cells { line, path, label }| {
                let label = label.map(|text| number(line, &text)).transpose()?;
                Ok(Row { line, path, label })
            });
            let departures = quotes.then(|| "quotes".to_owned()).into_iter().collect();
            (Parsed { rows: rows.collect::<Result<_, String>>()?, notes: vec![note], departures }, comments)
        }
        None => {
            let (lines, comments) = lines_of(text, exists);
            let colons = double_colons(&lines, exists)?;
            let parsed = colons.map_or_else(|| plain(&lines, exists), Ok)?;
            parsed.rows.iter().try_for_each(|row| closed(row, exists))?;
            (parsed, comments)
        }
    };
    match comments {
        0 => {}
        1 => parsed.notes.push("1 line with `#` is read as a comment".to_owned()),
        count => parsed.notes.push(format!("{count} lines with `#` are read as comments")),
    }
    Ok(parsed)
}

/// The lines that are not blank, and how many comments were taken out. `#` begins one at the beginning of a line, or behind a
/// label, unless a file has that name.
fn lines_of<'a>(text: &'a str, exists: &dyn Fn(&str) -> bool) -> (Vec<Line<'a>>, usize) {
    let numbered = text.lines().enumerate().map(|(index, text)| Line { number: index + 1, text: text.trim() });
    let mut lines: Vec<Line<'_>> = numbered.filter(|line| !line.text.is_empty()).collect();
    let is_path = |text: &str| official(Line { number: 0, text }).is_some_and(|row| exists(&row.path));
    let all = lines.len();
    lines.retain(|line| !is_comment(line.text) || is_path(line.text));
    let mut comments = all - lines.len();
    for line in &mut lines {
        let before = line.text.split_once(" #").map(|(before, _)| before.trim_end());
        let labelled = |text: &str| official(Line { number: 0, text }).filter(|row| row.label.is_some());
        let Some(before) = before.filter(|text| labelled(text).is_some_and(|row| is_video(&row.path))) else {
            continue;
        };
        if !is_path(line.text) {
            line.text = before;
            comments += 1;
        }
    }
    (lines, comments)
}

/// A label that is a whole number.
fn number(line: usize, text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| {
        let must = format!("line {line} must have a whole number as label");
        match text.parse::<f64>() {
            Ok(_) => format!("{must}; write `{}` without a fraction", short(text)),
            Err(_) if text.is_empty() => format!("{must}, but its label is empty: complete it or take the line out"),
            Err(_) => format!("{must}; `{}` is a name: {NUMBERING}", short(text)),
        }
    })
}

/// What to do with class names.
const NUMBERING: &str = "`vjepa data list named LIST --out NEW.csv` numbers the classes of such a list, and a list for training may \
                         leave labels out";

/// Lines of "path label".
fn plain(lines: &[Line<'_>], exists: &dyn Fn(&str) -> bool) -> Result<Parsed, String> {
    let (mut parsed, mut form) = (Parsed::default(), Form::default());
    let read: Vec<Option<Row>> = lines.iter().map(|line| official(*line)).collect();
    for (index, (row, line)) in read.into_iter().zip(lines).enumerate() {
        match row {
            Some(row) => {
                columns(&row, *line, lines, exists)?;
                form.see(*line, &row);
                parsed.rows.push(row);
            }
            None if index == 0 && is_header(*line, lines) => {
                // "path label" is the header everybody writes; another first line is said to have been taken for one.
                if !last_column(line.text).eq_ignore_ascii_case("label") {
                    parsed.notes.push(format!("its first line, `{}`, is taken for a header", short(line.text)));
                }
            }
            None => return Err(misread(*line, lines)),
        }
    }
    parsed.departures = form.departures();
    Ok(parsed)
}

/// "path label", or a path alone; none for a line that is neither.
fn official(line: Line<'_>) -> Option<Row> {
    let row = |path: &str, label| Some(Row { line: line.number, path: unquoted(path).to_owned(), label });
    let Some((path, label)) = line.text.rsplit_once(SEPARATORS) else {
        let bare = separated_oddly(line.text).is_none() || is_video(line.text);
        return if bare { row(line.text, None) } else { None };
    };
    let path = path.trim_end_matches(|c: char| SEPARATORS.contains(&c)).trim();
    match unquoted(label.trim()).parse::<i64>() {
        Ok(label) if !path.is_empty() => row(path, Some(label)),
        _ if is_video(unquoted(line.text)) => row(line.text, None),
        _ => None,
    }
}

fn unquoted(text: &str) -> &str {
    let between = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    between('"').or_else(|| between('\'')).unwrap_or(text)
}

fn last_column(text: &str) -> &str {
    unquoted(text.rsplit(SEPARATORS).next().unwrap_or(text).trim())
}

/// A first line without a whole number above lines that all have one, and that names no video.
fn is_header(line: Line<'_>, lines: &[Line<'_>]) -> bool {
    let labelled = |line: &Line<'_>| official(*line).is_some_and(|row| row.label.is_some());
    let only = lines.len() == 1 && last_column(line.text).eq_ignore_ascii_case("label");
    let names_video = video_column(line.text).is_some() || is_video(unquoted(without_label(line.text)));
    only || (lines.len() > 1 && lines.iter().skip(1).all(labelled) && !names_video)
        || last_column(line.text).eq_ignore_ascii_case("label")
}

/// The list of V-JEPA 2, `path::label`, where every line has that form; an error where only some have.
fn double_colons(lines: &[Line<'_>], exists: &dyn Fn(&str) -> bool) -> Result<Option<Parsed>, String> {
    let split = |line: &Line<'_>| {
        let (path, label) = line.text.rsplit_once("::")?;
        let (path, label) = (path.trim(), label.trim().parse::<i64>().ok()?);
        (!path.is_empty()).then(|| Row { line: line.number, path: unquoted(path).to_owned(), label: Some(label) })
    };
    let rows: Vec<Option<Row>> = lines.iter().map(split).collect();
    let Some(first) = rows.iter().position(Option::is_some) else { return Ok(None) };
    match (rows.iter().position(Option::is_none), lines.get(first)) {
        (None, Some(line)) if !exists(line.text) => {
            let notes = vec!["its lines are read as `path::label`, as V-JEPA 2 writes them".to_owned()];
            Ok(Some(Parsed { rows: rows.into_iter().flatten().collect(), notes, departures: Vec::new() }))
        }
        (Some(other), Some(line)) if !exists(line.text) => {
            let other = lines.get(other).map_or(0, |line| line.number);
            Err(format!(
                "line {} is written `path::label`, as for V-JEPA 2, but line {other} is not: separate path and label in the \
                 same way in every line",
                line.number
            ))
        }
        _ => Ok(None),
    }
}

/// The path up to the first known file name ending that a separator follows, and what comes after.
fn video_column(text: &str) -> Option<(&str, &str)> {
    text.char_indices().filter(|(_, c)| SEPARATORS.contains(c)).find_map(|(at, _)| {
        let (path, rest) = text.split_at(at);
        let rest = rest.trim_matches(|c: char| SEPARATORS.contains(&c));
        (is_video(unquoted(path.trim())) && !rest.is_empty()).then_some((path, rest))
    })
}

/// An error for a line that was read as "path label" although columns lie between the two.
fn columns(row: &Row, line: Line<'_>, lines: &[Line<'_>], exists: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let Some(label) = row.label else { return Ok(()) };
    if let Some((index, path)) = indexed(&row.path).filter(|_| !exists(&row.path)) {
        return Err(format!(
            "line {} has 3 columns (`{index}`, `{}`, `{label}`), and no first line names them: begin the list with such a line, e.g. \
             `index,path,label`, or keep the path and the label",
            line.number,
            short(path)
        ));
    }
    if is_video(&row.path) {
        return Ok(());
    }
    let Some((path, between)) = video_column(&row.path) else { return Ok(()) };
    if exists(&row.path) {
        return Ok(());
    }
    let count = 2 + between.split(SEPARATORS).filter(|part| !part.is_empty()).count();
    let all_unlabelled = lines.iter().all(|line| last_column(line.text).parse::<i64>().is_ok_and(|label| label < 0));
    let (whose, remedy) = match (count, all_unlabelled) {
        (3, true) => (
            ", as VideoMAE v2 writes them for pre-training (path, start, frames)",
            "leave only the paths: training needs no labels",
        ),
        (3, false) if between.parse::<u64>().is_ok() && line.text.contains(',') => (
            ", as mmaction2 writes them (path, frames, label)",
            "keep path and label, with `awk -F, '{print $1, $NF}'` if the label comes last",
        ),
        (3, false) if between.parse::<u64>().is_ok() => (
            ", as mmaction2 writes them (path, frames, label)",
            "keep path and label, with `awk '{print $1, $NF}'` if the label comes last",
        ),
        _ => ("", "keep the path and the label"),
    };
    Err(format!(
        "line {} has {count} columns (`{}`, `{}`, `{label}`){whose}, and must be \"path label\": {remedy}",
        line.number,
        short(path),
        short(between)
    ))
}

/// A whole number before a path, as an index or another label.
fn indexed(path: &str) -> Option<(i64, &str)> {
    let (first, rest) = path.split_once([',', '\t'])?;
    let index = unquoted(first.trim()).parse().ok()?;
    let rest = rest.trim().trim_matches('"');
    is_video(rest).then_some((index, rest))
}

/// A separator that this program does not know, before a whole number at the end of a line.
fn separated_oddly(text: &str) -> Option<char> {
    [';', '|', ':'].into_iter().find(|c| {
        text.rsplit_once(*c).is_some_and(|(path, label)| !path.is_empty() && label.trim().parse::<i64>().is_ok())
    })
}

/// What to call a line that is not "path label".
fn misread(line: Line<'_>, lines: &[Line<'_>]) -> String {
    let Line { number, text } = line;
    let must = format!("line {number} must be \"path label\" with a whole number as label");
    let (path, word) = match video_column(text) {
        Some((path, rest)) => (Some(path), unquoted(rest)),
        None => (None, last_column(text)),
    };
    if text.starts_with(['{', '[']) {
        return format!("{must}, but looks like JSON; write the list as lines of text");
    }
    if word.is_empty() {
        return format!("{must}, but its label is empty: complete it or take the line out");
    }
    if text.matches('"').count() % 2 == 1 {
        return form::unclosed(number, text);
    }
    if let Some(odd) = separated_oddly(text) {
        return format!("{must}; it is separated by `{odd}`, where a space, comma or tab must stand");
    }
    if word.trim_start_matches(['-', '+']).bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty() {
        return format!("{must}; `{}` is too large for one", short(word));
    }
    if word.parse::<f64>().is_ok() {
        return format!("{must}; write `{}` without a fraction", short(word));
    }
    let first = text.split(SEPARATORS).next().unwrap_or_default();
    if path.is_none() && is_video(word) && first.parse::<i64>().is_ok() {
        return format!("{must}; here the label stands before the path: write them in the other order");
    }
    if path.is_none() && !is_video(word) && !text.contains('/') {
        return format!("{must}; `{}` names no video", short(text));
    }
    class_names(&must, word, lines)
}

/// Names where labels belong: how many, and how to number them.
fn class_names(must: &str, word: &str, lines: &[Line<'_>]) -> String {
    let of = |line: &Line<'_>| match video_column(line.text) {
        Some((_, rest)) => unquoted(rest).to_owned(),
        None => last_column(line.text).to_owned(),
    };
    let names: BTreeSet<String> = lines.iter().filter(|line| official(**line).is_none()).map(of).collect();
    let shown: Vec<String> = names.iter().take(3).map(|name| format!("`{}`", short(name))).collect();
    let more = if names.len() > shown.len() { ", ..." } else { "" };
    let listed = match names.len() {
        1 => String::new(),
        count => format!(" ({count} names in all: {}{more})", shown.join(", ")),
    };
    format!("{must}; it ends in the class name `{}`{listed}: {NUMBERING}", short(word))
}

/// A text cut to a readable length.
pub(super) fn short(text: &str) -> String {
    text::short(text, 60)
}

/// A hint, to end a sentence, at why none of these paths exists; empty where there is none.
pub(super) fn odd_path(path: &str) -> Option<String> {
    if let Some((scheme, _)) = path.split_once("://") {
        return Some(format!(
            "`{}://` addresses are not fetched by this program: build it with `--features cloud`, or download the videos and \
             list their files",
            short(scheme)
        ));
    }
    if path.starts_with('$') || path.contains("/$") || path.contains("${") {
        return Some("variables (`$`) are not replaced in lists: write the paths out".into());
    }
    if path.starts_with('~') && !path.starts_with("~/") {
        return Some("`~name` is not replaced in lists: write the path of that home folder out".into());
    }
    if path.starts_with('%') {
        return Some("variables (`%`) are not replaced in lists: write the paths out".into());
    }
    if !cfg!(windows) && path.contains('\\') {
        return Some("`\\` does not separate folders here: write `/`".into());
    }
    if path.split_once(SEPARATORS).is_some_and(|(label, rest)| label.parse::<i64>().is_ok() && is_video(rest)) {
        return Some("a number stands before the path: write the path, then the label, and nothing else".into());
    }
    if let Some(first) = swapped(path) {
        return Some(format!("if the label comes first (`{}`), swap the columns: path label", short(first)));
    }
    if path.contains([',', '\t']) && !is_video(path) {
        return Some("that looks like several columns: leave the path and the label".into());
    }
    None
}
