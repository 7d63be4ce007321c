//! Reads tables of features.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use super::{Format, Line, PATHS_KEY, Place, RowsError, npy, parquet};
use crate::TensorFile;

/// Columns that say which window a row is of.
const PLACES: [&str; 3] = ["video", "window", "time"];

/// One column of a table, with the windows that its rows are of.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsFile {
    /// The videos.
    pub paths: Vec<PathBuf>,
    /// The window of each row.
    pub places: Vec<Place>,
    /// Name of the column.
    pub column: String,
    /// Shape of a row.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<f32>,
    /// What else the file says of itself: the record of its preprocessing, the encoder.
    pub metadata: std::collections::BTreeMap<String, String>,
}

impl RowsFile {
    /// Reads a column of a file that [`super::Rows`] wrote: the one of that name, or the only one.
    ///
    /// # Errors
    /// [`RowsError`] with the remedy: a file of another kind, several columns and none chosen, rows that do not match.
    pub fn read(path: &Path, column: Option<&str>) -> Result<Self, RowsError> {
        match Format::of(path)? {
            Format::Safetensors => Self::safetensors(path, column),
            Format::Npy => Self::npy(path, column),
            Format::Parquet => Self::parquet(path, column),
        }
    }

    fn safetensors(path: &Path, column: Option<&str>) -> Result<Self, RowsError> {
        let bad = |why: String| RowsError::content(path, why);
        let file = TensorFile::read(path).map_err(|error| bad(error.to_string()))?;
        let mut metadata = crate::safetensors::metadata_of(path).map_err(|error| bad(error.to_string()))?;
        let foreign = || bad("is not a table of features: make one with `vjepa features`".into());
        let paths = metadata.remove(PATHS_KEY).ok_or_else(foreign)?;
        let paths: Vec<PathBuf> = serde_json::from_str(&paths).map_err(|_| foreign())?;
        let columns: Vec<&str> = file.names().filter(|name| !PLACES.contains(name)).collect();
        let name = chosen(column, &columns).map_err(bad)?;
        let tensor = |error: crate::TensorFileError| RowsError::content(path, error.to_string());
        let (videos, windows) = (file.i64("video").map_err(tensor)?, file.i64("window").map_err(tensor)?);
        let times = file.f64("time").map_err(tensor)?;
        let values = file.f32(name).map_err(tensor)?;
        let [rows, shape @ ..] = file.shape(name).map_err(tensor)? else { return Err(foreign()) };
        let place = |((video, window), time): ((&i64, &i64), &f64)| {
            let video = usize::try_from(*video).ok().filter(|video| *video < paths.len())?;
            Some(Place { video, window: usize::try_from(*window).ok()?, time: *time })
        };
        let places: Option<Vec<Place>> = videos.iter().zip(&windows).zip(&times).map(place).collect();
        let places = places.filter(|places| places.len() == *rows).ok_or_else(foreign)?;
        Ok(Self { places, column: name.to_owned(), shape: shape.to_vec(), values, metadata, paths })
    }

    fn npy(path: &Path, column: Option<&str>) -> Result<Self, RowsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| RowsError::Io { path: path.into(), source });
        let foreign =
            || RowsError::content(path, "is not an array of `vjepa features`: make it again, or give .safetensors");
        if column.is_some() {
            return Err(RowsError::content(
                path,
                "an .npy file holds one array, which has no name: leave --column out",
            ));
        }
        let (bytes, list) = (read(path)?, npy::list_path(path));
        let (shape, begin) = npy::parse(&bytes).ok_or_else(foreign)?;
        let lines = String::from_utf8(read(&list)?).ok().and_then(|text| npy::lines(&text));
        let lines = lines.ok_or_else(|| RowsError::content(&list, "is not the list of an array's rows"))?;
        let words = bytes.get(begin..).unwrap_or_default().as_chunks::<4>().0;
        let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let [rows, shape @ ..] = shape.as_slice() else { return Err(foreign()) };
        if *rows != lines.len() || shape.iter().try_fold(*rows, |n, size| n.checked_mul(*size)) != Some(values.len()) {
            return Err(foreign());
        }
        let (paths, places) = places(lines).ok_or_else(foreign)?;
        let (column, metadata) = ("features".to_owned(), Default::default());
        Ok(Self { paths, places, column, shape: shape.to_vec(), values, metadata })
    }

    fn parquet(path: &Path, column: Option<&str>) -> Result<Self, RowsError> {
        let bad = |why: String| RowsError::content(path, why);
        let file = std::fs::File::open(path).map_err(|source| RowsError::Io { path: path.into(), source })?;
        Self::parquet_from(file, column).map_err(bad)
    }

    /// The errors follow the file's name.
    pub(crate) fn parquet_from(file: impl Read + Seek, column: Option<&str>) -> Result<Self, String> {
        let mut file = parquet::Reader::open(file)?;
        let name = chosen(column, &file.features())?.to_owned();
        let lines = file.lines()?;
        let (shape, values) = file.column(&name)?;
        let (paths, places) =
            places(lines).filter(|(_, places)| places.len() == file.rows()).ok_or("counts windows below 0")?;
        Ok(Self { paths, places, column: name, shape, values, metadata: file.metadata })
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// The video of a row.
    pub fn path(&self, row: usize) -> &Path {
        self.places.get(row).and_then(|place| self.paths.get(place.video)).map_or(Path::new(""), PathBuf::as_path)
    }
}

/// The column of that name, or the only one.
fn chosen<'a>(column: Option<&'a str>, columns: &[&'a str]) -> Result<&'a str, String> {
    match (column, columns) {
        (Some(name), names) if names.contains(&name) => Ok(name),
        (None, [only]) => Ok(only),
        (_, names) => Err(format!("holds {}: choose one with --column", names.join(", "))),
    }
}

/// The videos of rows that name them, one after another, and the rows' places; none for windows below 0.
fn places(lines: Vec<Line>) -> Option<(Vec<PathBuf>, Vec<Place>)> {
    let (mut paths, mut places): (Vec<PathBuf>, Vec<Place>) = (Vec::new(), Vec::new());
    for (name, window, time) in lines {
        if paths.last().is_none_or(|last| *last != Path::new(&name)) {
            paths.push(name.into());
        }
        places.push(Place { video: paths.len() - 1, window: usize::try_from(window).ok()?, time });
    }
    Some((paths, places))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use super::super::{Column, Rows};
    use super::*;

    fn value(video: usize, window: usize, at: usize) -> f32 {
        (video * 100 + window * 10 + at) as f32
    }

    fn fill(rows: &mut Rows, until: usize) {
        let from = rows.next();
        for video in 0..until {
            for window in 0..=video % 2 {
                if (video, window) < from {
                    continue;
                }
                let tokens: Vec<f32> = (0..6).map(|at| value(video, window, at)).collect();
                let mean = vec![value(video, window, 7); 2];
                let place = Place { video, window, time: window as f64 / 2.0 };
                let values: Vec<Cow<'_, [f32]>> = vec![tokens.into(), mean.into()];
                rows.add(place, values.get(..rows_columns(rows)).unwrap()).unwrap();
            }
            rows.keep().unwrap();
        }
    }

    fn rows_columns(rows: &Rows) -> usize {
        // The NumPy format has the first alone.
        if format!("{rows:?}").contains("mean") { 2 } else { 1 }
    }

    #[test]
    fn interrupted_tables_end_as_uninterrupted_ones_in_every_format() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..5).map(|video| format!("v{video}.mp4").into()).collect();
        let metadata = BTreeMap::from([("vjepa.encoder".to_owned(), "encoder".to_owned())]);
        for ending in ["safetensors", "npy", "parquet"] {
            let mut columns = vec![Column { name: "tokens".into(), shape: vec![2, 3] }];
            if ending != "npy" {
                columns.push(Column { name: "mean".into(), shape: vec![2] });
            }
            let (whole, torn) =
                (folder.path().join(format!("whole.{ending}")), folder.path().join(format!("torn.{ending}")));
            let mut rows = Rows::open(&whole, columns.clone(), "record").unwrap();
            fill(&mut rows, 5);
            assert_eq!(rows.finish(&paths, &metadata).unwrap().rows, 7);
            let mut first = Rows::open(&torn, columns.clone(), "record").unwrap();
            fill(&mut first, 3);
            drop(first);
            assert!(Rows::open(&torn, columns.clone(), "another").unwrap_err().to_string().contains("other videos"));
            let mut second = Rows::open(&torn, columns.clone(), "record").unwrap();
            assert_eq!((second.len(), second.next()), (4, (2, 1)));
            fill(&mut second, 5);
            second.finish(&paths, &metadata).unwrap();
            assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&torn).unwrap(), "{ending}");
            assert!(!folder.path().join(format!("torn.{ending}.parts")).exists());
            let name = if ending == "npy" { None } else { Some("tokens") };
            let read = RowsFile::read(&whole, name).unwrap();
            assert_eq!((read.shape.as_slice(), read.places.len(), read.paths.len()), (&[2, 3][..], 7, 5));
            assert_eq!((read.path(2), read.places[2].window, read.places[2].time), (Path::new("v1.mp4"), 1, 0.5));
            assert_eq!(read.values[2 * 6 + 4], value(1, 1, 4));
        }
        for (ending, names) in [("safetensors", "mean, tokens"), ("parquet", "tokens, mean")] {
            let file = folder.path().join(format!("whole.{ending}"));
            let several = RowsFile::read(&file, None).unwrap_err().to_string();
            assert!(several.contains(&format!("holds {names}: choose one")), "{several}");
            let mean = RowsFile::read(&file, Some("mean")).unwrap();
            assert_eq!((mean.shape.as_slice(), mean.values[2 * 2]), (&[2][..], value(1, 1, 7)));
            assert_eq!(mean.metadata, metadata);
        }
    }

    #[test]
    fn what_is_no_table_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let columns = vec![Column { name: "a".into(), shape: vec![1] }, Column { name: "b".into(), shape: vec![1] }];
        let open = |name: &str| Rows::open(&folder.path().join(name), columns.clone(), "").unwrap_err().to_string();
        assert!(open("x.npy").contains("one array") && open("x.txt").contains("its name must end in"));
        let npy = folder.path().join("y.npy");
        std::fs::write(&npy, "x").unwrap();
        assert!(RowsFile::read(&npy, None).unwrap_err().to_string().contains("is not an array"));
    }
}
