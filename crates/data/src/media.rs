//! Opens samples by their paths, wherever they lie: a video file, a folder of frames, a picture, a member of a shard, an object
//! of a store.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use vjepa_video::{ClipDecoder, ClipInfo, VideoError};

use crate::decode::{Decoded, SMALLEST_FILE, decode, reason};
use crate::frames::{FRAME_RATE, Pictures, is_picture};
use crate::held::Held;
use crate::shards::{HEADER, MOST_INDEX_BYTES, Member, ShardIndex, check_header, index_path, split_path};
use crate::source::DataError;
use crate::storage::{LocalFiles, Store, StoreError, is_url};

/// Why a sample cannot be opened. Messages of videos begin with the sample's name, others follow it; [`OpenError::reason`] is
/// without.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The decoder's reason.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// The decoder's reason for a video that is no file of its own.
    #[error("{message}")]
    Within {
        /// `source`'s message, with the sample's name for that of the file that the decoder was given.
        message: String,
        /// The reason.
        source: Box<VideoError>,
    },
    /// A file that is there and cannot be opened.
    #[error("cannot be opened: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Bytes that are no picture, too large, or of another size than videos have.
    #[error("{0}")]
    Sample(String),
    /// What the store says, of this sample or of itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room to hold its bytes.
    #[error("cannot be held in memory: {0}")]
    Memory(#[source] std::io::Error),
}

impl OpenError {
    /// The reason without the sample's name.
    pub fn reason(&self, path: &Path) -> String {
        reason(path, self)
    }

    /// True where other samples would fare no better: it is not this one's fault.
    pub fn is_storage(&self) -> bool {
        matches!(self, Self::Store(StoreError::Storage(_)) | Self::Memory(_))
    }

    /// For whoever asked for the sample at `path`: its own fault, or that of where it lies.
    pub(crate) fn of(self, path: &Path) -> DataError {
        match self.is_storage() {
            true => DataError::Storage(format!("{}: {self}", path.display())),
            false => DataError::Bad { path: path.to_owned(), reason: self.reason(path) },
        }
    }

    /// What the decoder says, where it is the decoder.
    pub fn video(&self) -> Option<&VideoError> {
        match self {
            Self::Video(error) => Some(error),
            Self::Within { source, .. } => Some(source),
            Self::Unreadable(_) | Self::Sample(_) | Self::Store(_) | Self::Memory(_) => None,
        }
    }
}

/// Opens samples.
#[derive(Debug)]
pub struct Opener {
    remote: Option<Arc<dyn Store>>,
    frame_rate: f64,
    /// Sizes of files in bytes that are opened.
    sizes: RangeInclusive<u64>,
    /// Those read so far.
    indices: Mutex<HashMap<PathBuf, Arc<ShardIndex>>>,
}

impl Default for Opener {
    /// Files of this machine alone, of any size; frame folders at [`FRAME_RATE`].
    fn default() -> Self {
        Self { remote: None, frame_rate: FRAME_RATE, sizes: 0..=u64::MAX, indices: Mutex::default() }
    }
}

static SHARED: LazyLock<Opener> = LazyLock::new(|| {
    #[cfg(feature = "cloud")]
    {
        Opener::default().with_store(Arc::new(crate::storage::CloudStore::default()))
    }
    #[cfg(not(feature = "cloud"))]
    {
        Opener::default()
    }
});

impl Opener {
    /// The opener of everything that is not told otherwise: evaluations, features, lists.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// Reads addresses such as `s3://bucket/key` from this store.
    pub fn with_store(self, remote: Arc<dyn Store>) -> Self {
        Self { remote: Some(remote), ..self }
    }

    /// Takes frame folders to have this many frames per second.
    pub fn with_frame_rate(self, frame_rate: f64) -> Self {
        Self { frame_rate, ..self }
    }

    /// Refuses videos under 1 KiB and files of more than `largest` bytes, as the official loader does.
    pub fn with_official_sizes(self, largest: Option<u64>) -> Self {
        Self { sizes: SMALLEST_FILE..=largest.unwrap_or(u64::MAX), ..self }
    }

    fn store(&self, path: &Path) -> Result<&dyn Store, StoreError> {
        if !is_url(path) {
            return Ok(&LocalFiles);
        }
        match &self.remote {
            Some(store) => Ok(store.as_ref()),
            None => Err(StoreError::Storage(
                "is an address, and this program reads files of this machine alone: build it with `--features cloud`, or \
                 download the data"
                    .into(),
            )),
        }
    }

    /// All bytes of an object.
    ///
    /// # Errors
    /// As [`Store::read_all`].
    pub fn read_all(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        self.store(path)?.read_all(path)
    }

    /// Its size in bytes; that of a member for a path into a shard.
    ///
    /// # Errors
    /// As [`Store::size`].
    pub fn size(&self, path: &Path) -> Result<u64, StoreError> {
        match split_path(path) {
            None => self.store(path)?.size(path),
            Some((shard, name)) => Ok(self.member(shard, name)?.length),
        }
    }

    /// The objects below a folder.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        self.store(folder)?.list(folder)
    }

    /// The index of a shard, which is read once.
    ///
    /// # Errors
    /// [`StoreError`]: none beside it, damaged, or of another size than the archive.
    pub fn index(&self, shard: &Path) -> Result<Arc<ShardIndex>, StoreError> {
        let lock = || self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = lock().get(shard) {
            return Ok(Arc::clone(index));
        }
        let (store, path) = (self.store(shard)?, index_path(shard));
        let size = match store.size(&path) {
            Ok(size) => size,
            Err(StoreError::Sample(why)) => {
                return Err(StoreError::Sample(format!(
                    "its index {} {why}: make it with `vjepa data index`",
                    path.display()
                )));
            }
            Err(other) => return Err(other),
        };
        if size > MOST_INDEX_BYTES {
            return Err(StoreError::Sample(format!("its index has {size} bytes; at most {MOST_INDEX_BYTES} are read")));
        }
        let index = ShardIndex::parse(&store.read(&path, 0..size)?)
            .map_err(|why| StoreError::Sample(format!("its index {} {why}", path.display())))?;
        let bytes = store.size(shard)?;
        if bytes != index.bytes {
            return Err(StoreError::Sample(format!(
                "has {bytes} bytes and its index was made of {}: make it again with `vjepa data index`",
                index.bytes
            )));
        }
        let index = Arc::new(index);
        lock().insert(shard.to_path_buf(), Arc::clone(&index));
        Ok(index)
    }

    fn member(&self, shard: &Path, name: &str) -> Result<Member, StoreError> {
        let member = self.index(shard)?.find(name).cloned();
        member.ok_or_else(|| StoreError::Sample(format!("is not in the shard {}", shard.display())))
    }

    /// The bytes of a sample that is no file of its own on this machine.
    pub(crate) fn bytes(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((shard, name)) = split_path(path) else {
            if !is_url(path) {
                return Ok(None);
            }
            let store = self.store(path)?;
            let size = store.size(path)?;
            self.check_size(path, size)?;
            return store.read(path, 0..size).map(Some);
        };
        let member = self.member(shard, name)?;
        self.check_size(path, member.length)?;
        let mut bytes = self.store(shard)?.read(shard, member.range())?;
        check_header(&bytes, &member).map_err(StoreError::Sample)?;
        bytes.drain(..(HEADER as usize).min(bytes.len()));
        Ok(Some(bytes))
    }

    /// The bytes of a sample: a file, a member of a shard, an object.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sample(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        match self.bytes(path)? {
            Some(bytes) => Ok(bytes),
            None => LocalFiles.read_all(path),
        }
    }

    fn check_size(&self, path: &Path, size: u64) -> Result<(), StoreError> {
        // A small picture is a picture; a video of that size is a stub.
        if size < *self.sizes.start() && !is_picture(path) {
            return Err(StoreError::Sample(format!(
                "has {size} bytes; files under 1 KiB are skipped, as by the official loader"
            )));
        }
        if size > *self.sizes.end() {
            let most = self.sizes.end();
            return Err(StoreError::Sample(format!("has {size} bytes, more than data.filter_long_videos ({most})")));
        }
        Ok(())
    }

    /// Opens a sample.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, path: &Path) -> Result<Media, OpenError> {
        match self.bytes(path)? {
            Some(bytes) => open_bytes(path, bytes.into()),
            None => self.open_file(path),
        }
    }

    /// As [`Opener::open`]; gives its bytes, too, where it is no file or folder of this machine: they are had once.
    pub(crate) fn open_keeping(&self, path: &Path) -> Result<(Media, Option<Vec<u8>>), OpenError> {
        match self.bytes(path)? {
            Some(bytes) => Ok((open_bytes(path, Cow::Borrowed(&bytes))?, Some(bytes))),
            None => Ok((self.open_file(path)?, None)),
        }
    }

    fn open_file(&self, path: &Path) -> Result<Media, OpenError> {
        let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => VideoError::Missing { path: path.into() }.into(),
            _ => OpenError::Unreadable(error),
        })?;
        if meta.is_dir() {
            return pictures(path, Pictures::folder(path, self.frame_rate));
        }
        self.check_size(path, meta.len())?;
        if is_picture(path) {
            return pictures(path, Pictures::file(path));
        }
        Ok(Media { decoder: vjepa_video::open(path)?, held: None, name: path.into() })
    }
}

fn open_bytes(path: &Path, bytes: Cow<'_, [u8]>) -> Result<Media, OpenError> {
    if is_picture(path) {
        return pictures(path, Pictures::bytes(path, bytes.into_owned()));
    }
    let held = Held::new(&bytes).map_err(OpenError::Memory)?;
    drop(bytes);
    match vjepa_video::open(held.path()) {
        Ok(decoder) => Ok(Media { decoder, held: Some(held), name: path.into() }),
        Err(error) => {
            Err(OpenError::Within { message: held.renamed(&error.to_string(), path), source: Box::new(error) })
        }
    }
}

fn pictures(path: &Path, made: Result<Pictures, String>) -> Result<Media, OpenError> {
    let decoder = Box::new(made.map_err(OpenError::Sample)?);
    Ok(Media { decoder, held: None, name: path.into() })
}

/// Frames that are decoded at a time where all are, which bounds memory.
const CHUNK: usize = 8;

/// An opened sample.
pub struct Media {
    decoder: Box<dyn ClipDecoder + Send>,
    /// What the decoder reads from, where that is no file of the sample's own.
    held: Option<Held>,
    name: PathBuf,
}

impl Media {
    /// What is known about it.
    pub fn info(&self) -> &ClipInfo {
        self.decoder.info()
    }

    /// The frames of these numbers, ascending; numbers may repeat.
    ///
    /// # Errors
    /// Why they cannot be had, without the sample's name.
    pub fn frames(&mut self, indices: &[usize]) -> Result<Vec<vjepa_video::Frame>, String> {
        let frames = self.decoder.frames(indices);
        frames.map_err(|error| self.without_name(&error.to_string()))
    }

    /// [`Media::frames`], of one size.
    pub(crate) fn decode(&mut self, indices: &[usize]) -> Result<Decoded, String> {
        decode(self.decoder.as_mut(), indices).map_err(|message| self.without_name(&message))
    }

    /// Decodes everything: what is wrong first, and the frame it is met at; none for a whole video.
    pub(crate) fn first_fault(&mut self) -> Option<(Option<usize>, String)> {
        let ClipInfo { frames, duration, lost_end, .. } = *self.info();
        let all: Vec<usize> = (0..frames).collect();
        for chunk in all.chunks(CHUNK) {
            if self.frames(chunk).is_ok() {
                continue;
            }
            // One by one, for the first that fails.
            let first = chunk.iter().find_map(|&index| self.frames(&[index]).err().map(|why| (Some(index), why)));
            if first.is_some() {
                return first;
            }
        }
        let left = || format!("{frames} frames ({duration:.1} s) are left, and those behind them are missing");
        lost_end.then(|| (None, format!("the file is cut off: {}; download it again", left())))
    }

    fn without_name(&self, message: &str) -> String {
        match &self.held {
            Some(held) => held.renamed(message, &self.name),
            None => reason(&self.name, message),
        }
    }
}
