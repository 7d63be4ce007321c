//! Writing events: each record is with the system before the call returns, so that a killed run's file can be read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::frame::framed;
use super::proto::{
    Content, Dim, Event, Image, Metadata, Plugin, STARTED, STRING, SessionLog, Shape, Summary, Tensor, Value, What,
};
use crate::ReportError;

/// What TensorBoard recognises event files by.
const PREFIX: &str = "events.out.tfevents.";
/// Of the first record: readers then go by the start of sessions instead of guessing where a run was resumed.
const VERSION: &str = "brain.Event:2";

/// An event file of a run.
///
/// A resumed run writes a file of its own; what earlier files say about the steps it does again is forgotten by readers.
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    whole: u64,
}

impl EventWriter {
    /// A new file in `folder`, for a run that is about to do step `from`.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn create(folder: &Path, from: u64) -> Result<Self, ReportError> {
        std::fs::create_dir_all(folder).map_err(|source| ReportError::write(folder, source))?;
        // Readers take files by name, and those of one run in one second, or after the clock was set back, must stay in order.
        let latest = std::fs::read_dir(folder)
            .map_err(|source| ReportError::write(folder, source))?
            .filter_map(|entry| begun(&entry.ok()?.file_name().to_string_lossy()))
            .max();
        let second = latest.map_or(0, |latest| latest + 1).max(now() as u64);
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let path = folder.join(format!("{PREFIX}{second:010}.{host}.{}.vjepa", std::process::id()));
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.map_err(|source| ReportError::write(&path, source))?;
        let mut writer = Self { path, file, whole: 0 };
        writer.add(0, What::FileVersion(VERSION.to_owned()))?;
        writer.add(from, What::SessionLog(SessionLog { status: STARTED }))?;
        Ok(writer)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number at a step. TensorBoard groups names by what stands before their first `/`.
    ///
    /// # Errors
    /// [`ReportError::Write`]; the file then ends with the record before.
    pub fn scalar(&mut self, step: u64, name: &str, value: f64) -> Result<(), ReportError> {
        self.scalars(step, &[(name, value)])
    }

    /// Several numbers at a step, in one record.
    ///
    /// # Errors
    /// As [`EventWriter::scalar`].
    pub fn scalars(&mut self, step: u64, values: &[(impl AsRef<str>, f64)]) -> Result<(), ReportError> {
        let values = values.iter().map(|(name, value)| of(name.as_ref(), None, Content::Scalar(*value as f32)));
        self.summary(step, values.collect())
    }

    /// A picture at a step: RGB of `width` by `height` pixels, as a PNG.
    ///
    /// # Errors
    /// As [`EventWriter::scalar`].
    pub fn image_png(&mut self, step: u64, name: &str, size: (usize, usize), png: Vec<u8>) -> Result<(), ReportError> {
        let side = |pixels: usize| i32::try_from(pixels).unwrap_or(i32::MAX);
        let image = Image { width: side(size.0), height: side(size.1), colorspace: 3, encoded: png };
        self.summary(step, vec![of(name, None, Content::Image(image))])
    }

    /// A text at a step; TensorBoard shows it as Markdown.
    ///
    /// # Errors
    /// As [`EventWriter::scalar`].
    pub fn text(&mut self, step: u64, name: &str, text: &str) -> Result<(), ReportError> {
        let shape = Some(Shape { dim: vec![Dim { size: 1 }] });
        let tensor = Tensor { dtype: STRING, shape, strings: vec![text.as_bytes().to_vec()] };
        self.summary(step, vec![of(name, Some("text"), Content::Tensor(tensor))])
    }

    fn summary(&mut self, step: u64, value: Vec<Value>) -> Result<(), ReportError> {
        self.add(step, What::Summary(Summary { value }))
    }

    fn add(&mut self, step: u64, what: What) -> Result<(), ReportError> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let record = framed(&Event { wall_time: now(), step, what: Some(what) }.encode_to_vec());
        if let Err(source) = self.file.write_all(&record) {
            // Readers stop at half a record: on a full disk that would hide everything written once there is room again.
            let _ = self.file.set_len(self.whole);
            return Err(ReportError::write(&self.path, source));
        }
        self.whole += record.len() as u64;
        Ok(())
    }
}

fn of(tag: &str, plugin: Option<&str>, content: Content) -> Value {
    let metadata = plugin.map(|name| Metadata { plugin: Some(Plugin { name: name.to_owned() }) });
    Value { tag: tag.to_owned(), metadata, content: Some(content) }
}

/// The second that a file's name says it was begun in.
fn begun(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::frame::masked_crc;
    use super::*;

    /// The whole records of a file; what is left over is returned, too.
    fn read(bytes: &[u8]) -> (Vec<Event>, &[u8]) {
        let (mut events, mut rest) = (Vec::new(), bytes);
        while rest.len() >= 12 {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            if rest.len() < 16 + length {
                break;
            }
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            events.push(Event::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        (events, rest)
    }

    #[test]
    fn records_are_in_the_file_as_soon_as_they_are_added() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 7).unwrap();
        writer.scalar(7, "loss", 0.25).unwrap();
        writer.text(7, "config", "a: 1").unwrap();
        writer.image_png(8, "masks", (2, 1), vec![1, 2, 3]).unwrap();
        let bytes = std::fs::read(writer.path()).unwrap();
        let (events, rest) = read(&bytes);
        assert!(rest.is_empty());
        assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 7, 7, 7, 8]);
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
        assert_eq!(events[1].what, Some(What::SessionLog(SessionLog { status: 1 })));
        let Some(What::Summary(summary)) = &events[2].what else { panic!("{:?}", events[2]) };
        assert_eq!((summary.value[0].tag.as_str(), &summary.value[0].content), ("loss", &Some(Content::Scalar(0.25))));
        // Cut anywhere, as by a kill, the records before are whole.
        let (whole, _) = read(&bytes[..bytes.len() - 1]);
        assert_eq!(whole.len(), 4);
    }

    #[test]
    fn files_of_one_second_stay_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let far = folder.path().join("events.out.tfevents.9999999990.host.1.v2");
        std::fs::write(&far, "").unwrap();
        let names: Vec<PathBuf> =
            (0..3).map(|_| EventWriter::create(folder.path(), 0).unwrap().path().to_owned()).collect();
        assert!(far < names[0] && names[0] < names[1] && names[1] < names[2], "{names:?}");
    }
}
