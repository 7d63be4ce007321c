//! Rows in parts of bounded size, and how they become one file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vjepa_runtime::write_atomically;

use super::{Column, Format, PATHS_KEY, Place, RowsError, SHAPE_KEY, npy, parquet};
use crate::TensorFile;
use crate::safetensors::{Written, write};

/// Bytes of values from which a part is written.
const PART: usize = 64 << 20;
/// Most bytes of a safetensors header.
const MOST_PATHS: usize = 90_000_000;
/// Metadata keys of a part.
const RECORD: &str = "vjepa.record";
const NEXT: &str = "vjepa.next";

/// A table that is being written.
#[derive(Debug)]
pub struct Rows {
    out: PathBuf,
    folder: PathBuf,
    record: String,
    columns: Vec<Column>,
    format: Format,
    /// Parts on disk, and rows in them.
    parts: usize,
    rows: usize,
    next: (usize, usize),
    places: Vec<Place>,
    /// Values of each column.
    values: Vec<Vec<f32>>,
}

/// A table that has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Rows in all.
    pub rows: usize,
    /// The files: the table, and for NumPy's format the list of its rows.
    pub files: Vec<PathBuf>,
}

impl Rows {
    /// Begins a table, or goes on with the parts of one that was stopped. `record` says what the rows are made of: parts with
    /// another are refused.
    ///
    /// # Errors
    /// [`RowsError`]: a name with an unknown ending, several columns for a format of one, parts of another table.
    pub fn open(out: &Path, columns: Vec<Column>, record: &str) -> Result<Self, RowsError> {
        let format = Format::of(out)?;
        if format == Format::Npy && columns.len() > 1 {
            return Err(RowsError::content(
                out,
                "an .npy file holds one array, and several layers are asked for: write .safetensors or .parquet",
            ));
        }
        if columns.is_empty() || columns.iter().any(Column::is_empty) {
            return Err(RowsError::content(out, "there is no feature to write"));
        }
        let folder = with_ending(out, "parts");
        let values = columns.iter().map(|_| Vec::new()).collect();
        let (record, places) = (record.to_owned(), Vec::new());
        let mut rows =
            Self { out: out.into(), folder, record, columns, format, parts: 0, rows: 0, next: (0, 0), places, values };
        while rows.part(rows.parts).exists() {
            let (count, next) = rows.look(rows.parts)?;
            rows.parts += 1;
            rows.rows += count;
            rows.next = next;
        }
        Ok(rows)
    }

    /// Video and window with which to go on.
    pub fn next(&self) -> (usize, usize) {
        self.next
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows + self.places.len()
    }

    /// True before the first row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a row: the values of each column.
    ///
    /// # Errors
    /// [`RowsError`] for values that do not fit, and a part that cannot be written.
    pub fn add(&mut self, place: Place, values: &[Cow<'_, [f32]>]) -> Result<(), RowsError> {
        let fits = |(column, values): (&Column, &Cow<'_, [f32]>)| column.len() == values.len();
        if values.len() != self.columns.len() || !self.columns.iter().zip(values).all(fits) {
            return Err(RowsError::content(&self.out, "a row does not fit the columns"));
        }
        self.places.push(place);
        self.values.iter_mut().zip(values).for_each(|(column, values)| column.extend_from_slice(values));
        self.next = (place.video, place.window + 1);
        Ok(())
    }

    /// True where a part is due: rows are then kept by [`Rows::keep`].
    pub fn is_full(&self) -> bool {
        self.values.iter().map(Vec::len).sum::<usize>() * size_of::<f32>() >= PART
    }

    /// Writes the rows since the last part.
    ///
    /// # Errors
    /// [`RowsError::Io`].
    pub fn keep(&mut self) -> Result<(), RowsError> {
        if self.places.is_empty() {
            return Ok(());
        }
        let path = self.part(self.parts);
        let next = serde_json::json!([self.next.0, self.next.1]).to_string();
        let metadata = BTreeMap::from([(RECORD.to_owned(), self.record.clone()), (NEXT.to_owned(), next)]);
        let count = self.places.len();
        let shapes: Vec<Vec<usize>> = self.columns.iter().map(|column| of_rows(count, &column.shape)).collect();
        let described = described(&self.columns, &shapes, std::slice::from_ref(&count));
        let written = write(&path, &described, &metadata, |number, out| match number.checked_sub(3) {
            Some(column) => floats(out, self.values.get(column).map(Vec::as_slice).unwrap_or_default()),
            None => self.places.iter().try_for_each(|place| {
                out.write_all(&match number {
                    0 => (place.video as i64).to_le_bytes(),
                    1 => (place.window as i64).to_le_bytes(),
                    _ => place.time.to_le_bytes(),
                })
            }),
        });
        written.map_err(|source| self.fail(&path, source))?;
        self.parts += 1;
        self.rows += count;
        self.places.clear();
        self.values.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    /// Joins the parts to the table and removes them. `paths` are the videos', by their numbers.
    ///
    /// # Errors
    /// [`RowsError`]: a table without rows, a part that has changed, a full disk.
    pub fn finish(mut self, paths: &[PathBuf], metadata: &BTreeMap<String, String>) -> Result<Finished, RowsError> {
        self.keep()?;
        if self.rows == 0 {
            return Err(RowsError::content(&self.out, "there is no row to write"));
        }
        let parts: Vec<TensorFile> = (0..self.parts).map(|number| self.read(number)).collect::<Result<_, _>>()?;
        let files = match self.format {
            Format::Safetensors => self.safetensors(&parts, paths, metadata)?,
            Format::Npy => self.npy(&parts, paths)?,
            Format::Parquet => self.parquet(&parts, paths, metadata)?,
        };
        drop(parts);
        std::fs::remove_dir_all(&self.folder).map_err(|source| self.fail(&self.folder, source))?;
        Ok(Finished { rows: self.rows, files })
    }

    fn safetensors(
        &self,
        parts: &[TensorFile],
        paths: &[PathBuf],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Vec<PathBuf>, RowsError> {
        let texts: Vec<Cow<'_, str>> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let texts = serde_json::json!(texts).to_string();
        if texts.len() > MOST_PATHS {
            return Err(RowsError::content(
                &self.out,
                "a safetensors header cannot hold the names of so many files: write .parquet, or .npy with its list",
            ));
        }
        let mut metadata = metadata.clone();
        metadata.insert(PATHS_KEY.to_owned(), texts);
        let shapes: Vec<Vec<usize>> = self.columns.iter().map(|column| of_rows(self.rows, &column.shape)).collect();
        let described = described(&self.columns, &shapes, std::slice::from_ref(&self.rows));
        let written = write(&self.out, &described, &metadata, |number, out| {
            let name = described.get(number).map(|tensor| tensor.name).unwrap_or_default();
            parts.iter().try_for_each(|part| out.write_all(part.bytes(name).map_err(io::Error::other)?))
        });
        written.map_err(|source| self.fail(&self.out, source))?;
        Ok(vec![self.out.clone()])
    }

    fn npy(&self, parts: &[TensorFile], paths: &[PathBuf]) -> Result<Vec<PathBuf>, RowsError> {
        let list = npy::list_path(&self.out);
        let lines = write_atomically(&list, |out| {
            out.write_all(b"path,window,time\n")?;
            for part in parts {
                let (videos, windows, times) = places(part)?;
                for ((video, window), time) in videos.iter().zip(windows).zip(times) {
                    npy::line(out, &named(paths, *video), window, time)?;
                }
            }
            Ok(())
        });
        lines.map_err(|source| self.fail(&list, source))?;
        let Some(column) = self.columns.first() else { return Err(RowsError::content(&self.out, "has no column")) };
        let written = write_atomically(&self.out, |out| {
            out.write_all(&npy::header(&of_rows(self.rows, &column.shape)))?;
            parts.iter().try_for_each(|part| out.write_all(part.bytes(&column.name).map_err(io::Error::other)?))
        });
        written.map_err(|source| self.fail(&self.out, source))?;
        Ok(vec![self.out.clone(), list])
    }

    fn parquet(
        &self,
        parts: &[TensorFile],
        paths: &[PathBuf],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Vec<PathBuf>, RowsError> {
        use parquet::Kind;
        let mut columns = vec![("path", Kind::Text), ("window", Kind::Int64), ("time", Kind::Double)];
        columns.extend(self.columns.iter().map(|column| (column.name.as_str(), Kind::Floats(column.len()))));
        let mut words: Vec<(String, String)> = metadata.clone().into_iter().collect();
        let shape = |column: &Column| (format!("{SHAPE_KEY}{}", column.name), format!("{:?}", column.shape));
        words.extend(self.columns.iter().map(shape));
        let written = write_atomically(&self.out, |out| {
            let mut file = parquet::File::begin(out, columns)?;
            for part in parts {
                let videos = part.i64("video").map_err(io::Error::other)?;
                let mut texts = Vec::new();
                for video in &videos {
                    let path = named(paths, *video);
                    texts.extend_from_slice(&u32::try_from(path.len()).map_err(io::Error::other)?.to_le_bytes());
                    texts.extend_from_slice(path.as_bytes());
                }
                let bytes = |name: &str| part.bytes(name).map_err(io::Error::other);
                let mut values = vec![texts.as_slice(), bytes("window")?, bytes("time")?];
                for column in &self.columns {
                    values.push(bytes(&column.name)?);
                }
                file.group(videos.len(), &values)?;
            }
            file.end(&words)
        });
        written.map_err(|source| self.fail(&self.out, source))?;
        Ok(vec![self.out.clone()])
    }

    fn part(&self, number: usize) -> PathBuf {
        self.folder.join(format!("part-{number:06}.safetensors"))
    }

    fn read(&self, number: usize) -> Result<TensorFile, RowsError> {
        let path = self.part(number);
        TensorFile::read(&path).map_err(|error| RowsError::content(&self.folder, error.to_string()))
    }

    /// Rows of a part, and what comes after it.
    fn look(&self, number: usize) -> Result<(usize, (usize, usize)), RowsError> {
        let other = || {
            RowsError::content(
                &self.folder,
                "holds features of other videos, weights or settings: remove it, or write to another name with --out",
            )
        };
        let part = self.read(number)?;
        let metadata = crate::safetensors::metadata_of(&self.part(number)).map_err(|_| other())?;
        if metadata.get(RECORD) != Some(&self.record) {
            return Err(other());
        }
        let next = metadata.get(NEXT).and_then(|next| serde_json::from_str(next).ok()).ok_or_else(other)?;
        let &[count] = part.shape("window").map_err(|_| other())? else { return Err(other()) };
        let fits = |column: &Column| {
            part.shape(&column.name).is_ok_and(|shape| shape == of_rows(count, &column.shape).as_slice())
        };
        if self.columns.iter().all(fits) { Ok((count, next)) } else { Err(other()) }
    }

    fn fail(&self, path: &Path, source: io::Error) -> RowsError {
        RowsError::Io { path: path.into(), source }
    }
}

/// `OUT.parts` for OUT.
fn with_ending(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn of_rows(count: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(count).chain(shape.iter().copied()).collect()
}

/// The tensors of a table: places, then columns.
fn described<'a>(columns: &'a [Column], shapes: &'a [Vec<usize>], count: &'a [usize]) -> Vec<Written<'a>> {
    let mut all = vec![
        Written { name: "video", shape: count, dtype: "I64", size: 8 },
        Written { name: "window", shape: count, dtype: "I64", size: 8 },
        Written { name: "time", shape: count, dtype: "F64", size: 8 },
    ];
    let float = |(column, shape): (&'a Column, &'a Vec<usize>)| Written {
        name: &column.name,
        shape,
        dtype: "F32",
        size: size_of::<f32>(),
    };
    all.extend(columns.iter().zip(shapes).map(float));
    all
}

fn floats(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    values.chunks(1 << 14).try_for_each(|chunk| {
        let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)
    })
}

type Places = (Vec<i64>, Vec<i64>, Vec<f64>);

fn places(part: &TensorFile) -> io::Result<Places> {
    let all = || Ok((part.i64("video")?, part.i64("window")?, part.f64("time")?));
    all().map_err(|error: crate::TensorFileError| io::Error::other(error))
}

fn named(paths: &[PathBuf], video: i64) -> Cow<'_, str> {
    let path = usize::try_from(video).ok().and_then(|video| paths.get(video));
    path.map_or(Cow::Borrowed(""), |path| path.to_string_lossy())
}
