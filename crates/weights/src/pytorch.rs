//! PyTorch files, as every `torch.save` since 0.1.10 writes them: a zip archive of a pickle and one entry per storage, or
//! (before 1.6) pickles followed by all storages.
//!
//! Nothing in the pickle is executed. Tensors stay in the file until they are asked for; each is read by its strides, so
//! views, slices and other memory formats come out as PyTorch shows them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::WeightsError;
use super::heap::{Heap, Id, Value};
use super::index::Index;
use super::objects::{self, Leaf, Storage, Tensor};
use super::optimiser::{self, Counter};
use super::pickle::{self, PickleError};
use super::span::{Span, extent, is_row_major};
use super::training::TrainingState;
use super::zip::{self, Directory, ZipError};
use super::{Entry, names};

/// Longest pickle of an archive.
const LONGEST_PICKLE: u64 = 1 << 28;
/// First number of a file before 1.6, and the protocol after it.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;
/// A tensor takes at most as many bytes as its file and this (views may repeat elements), all tensors together at most
/// [`MOST_COPIES`] times that.
const SMALLEST_LIMIT: u64 = 1 << 20;
const MOST_COPIES: u64 = 16;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Zip(#[from] ZipError),
    #[error(transparent)]
    Pickle(#[from] PickleError),
    #[error("{0}")]
    Other(String),
}

impl Fault {
    fn of(self, path: &Path) -> WeightsError {
        match self {
            Self::Pickle(PickleError::Read(source)) | Self::Zip(ZipError::Read(source)) => {
                WeightsError::Read { path: path.to_owned(), source }
            }
            fault => WeightsError::Malformed { path: path.to_owned(), why: fault.to_string() },
        }
    }
}

/// Where storages are.
enum Storages {
    Archive {
        directory: Directory,
        root: String,
    },
    /// First byte of each.
    Stream(BTreeMap<String, u64>),
}

/// True for the first bytes of a zip archive, or of a pickle of protocol 2 or later.
pub(super) fn looks_like(head: &[u8]) -> bool {
    head.starts_with(zip::MAGIC) || matches!(head, [0x80, 2..=5, ..])
}

/// Reads the index of a file: the tensors of models in it; the names of others are kept for messages.
///
/// # Errors
/// [`WeightsError`].
pub(super) fn index(path: &Path) -> Result<Index, WeightsError> {
    let mut file = File::open(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    index_from(&mut file, path)
}

/// As [`index`], from a file that is open; `path` is for messages.
///
/// # Errors
/// [`WeightsError`].
pub(super) fn index_from<F: Read + Seek>(file: &mut F, path: &Path) -> Result<Index, WeightsError> {
    let found = open(file).and_then(|opened| {
        let leaves = objects::leaves(&opened.heap, opened.root).map_err(Fault::Other)?;
        Reader::new(file, opened)?.collect(leaves)
    });
    found.map_err(|fault| fault.of(path))
}

/// The training state of an official checkpoint beside its models, and the optimiser's moments as entries `adam.m.*` and
/// `adam.v.*`; none where there is no optimiser. `models` are the file's own entries.
///
/// # Errors
/// [`WeightsError`].
pub(super) fn training(path: &Path, models: &BTreeMap<String, Entry>) -> Result<Option<Training>, WeightsError> {
    let mut file = File::open(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    training_from(&mut file, path, models)
}

type Training = (TrainingState, BTreeMap<String, Entry>);

/// As [`training`], from a file that is open; `path` is for messages.
///
/// # Errors
/// [`WeightsError`].
pub(super) fn training_from<F: Read + Seek>(
    file: &mut F,
    path: &Path,
    models: &BTreeMap<String, Entry>,
) -> Result<Option<Training>, WeightsError> {
    let opened = open(file).map_err(|fault| fault.of(path))?;
    let unusable = |why: String| WeightsError::Training { path: path.to_owned(), why };
    let Some(found) = optimiser::find(&opened.heap, opened.root, models).map_err(unusable)? else { return Ok(None) };
    let mut reader = Reader::new(file, opened).map_err(|fault| fault.of(path))?;
    let mut moments = BTreeMap::new();
    for (name, tensor) in found.moments {
        let shape = tensor.shape.clone();
        if tensor.stored.element.is_none() {
            return Err(unusable(format!("`{}` is {}", names::shortened(&name), tensor.stored.name)));
        }
        let entry = reader.entry(&name, tensor).map_err(|fault| fault.of(path))?;
        let parameter = name.get(optimiser::PREFIX..).and_then(|name| models.get(name));
        if parameter.is_none_or(|parameter| parameter.shape != shape) {
            let (shown, found) = (names::shortened(&name), names::sizes(&shape));
            return Err(unusable(format!("`{shown}` has the shape {found}, its parameter another")));
        }
        moments.insert(name, entry);
    }
    let mut state = found.state;
    for counter in found.counters {
        let updates = reader.counter(counter).map_err(|fault| fault.of(path))?;
        let updates =
            updates.ok_or_else(|| unusable("a step counter of its optimiser is not an integer".to_owned()))?;
        if let Some(other) = state.updates.filter(|other| *other != updates) {
            return Err(unusable(format!("of its parameters some were updated {other} times, others {updates} times")));
        }
        state.updates = Some(updates);
    }
    Ok(Some((state, moments)))
}

/// A file's pickle, and where its storages are.
struct Opened {
    heap: Heap,
    root: Id,
    storages: Storages,
    big_endian: bool,
}

fn open<F: Read + Seek>(file: &mut F) -> Result<Opened, Fault> {
    let length = file.seek(SeekFrom::End(0)).map_err(PickleError::Read)?;
    file.rewind().map_err(PickleError::Read)?;
    let mut head = [0; 4];
    let archive = file.read_exact(&mut head).is_ok() && head == zip::MAGIC;
    file.rewind().map_err(PickleError::Read)?;
    if archive { open_archive(file, length) } else { open_stream(file, length) }
}

fn open_archive<F: Read + Seek>(file: &mut F, length: u64) -> Result<Opened, Fault> {
    let directory = Directory::read(file, length)?;
    let root = directory.names().filter_map(|name| name.strip_suffix("data.pkl")).min_by_key(|root| root.len());
    let Some(root) = root.filter(|root| root.is_empty() || root.ends_with('/')).map(str::to_owned) else {
        let exported = directory.names().any(|name| name.ends_with("archive_format"));
        let why = match exported {
            true => "it is a program of torch.export; save the model's state_dict() with torch.save",
            false => "it is a zip archive that torch.save did not write",
        };
        return Err(Fault::Other(why.to_owned()));
    };
    if directory.get(&format!("{root}constants.pkl")).is_some() {
        let why = "it is a TorchScript archive (torch.jit.save); save the model's state_dict() with torch.save";
        return Err(Fault::Other(why.to_owned()));
    }
    let record = |name: &str| directory.get(&format!("{root}{name}"));
    let big_endian = match record("byteorder") {
        Some(record) => directory.content(file, record, 64)?.starts_with(b"big"),
        None => false,
    };
    let pickle = record("data.pkl").ok_or(ZipError::Damaged("its pickle is missing"))?;
    let pickle = directory.content(file, pickle, LONGEST_PICKLE)?;
    let (heap, id) = pickle::read(&mut pickle.as_slice())?;
    Ok(Opened { heap, root: id, storages: Storages::Archive { directory, root }, big_endian })
}

/// Magic number, protocol, facts about the system, what was saved, names of the storages; then each storage: its number of
/// elements in 8 bytes, and the elements.
fn open_stream<F: Read + Seek>(file: &mut F, length: u64) -> Result<Opened, Fault> {
    let mut input = BufReader::new(file);
    let number = |input: &mut BufReader<&mut F>| -> Result<Option<i128>, Fault> {
        let (heap, id) = pickle::read(input)?;
        Ok(match heap.value(id) {
            Value::Int(number) => Some(*number),
            _ => None,
        })
    };
    let other = |why: &str| Fault::Other(why.to_owned());
    match number(&mut input) {
        Ok(Some(MAGIC)) => {}
        Ok(_) => return Err(other("it is a pickle that torch.save did not write")),
        Err(Fault::Pickle(PickleError::Opcode(_))) => {
            return Err(other("its first bytes are neither those of a PyTorch file nor of safetensors"));
        }
        Err(fault) => return Err(fault),
    }
    if number(&mut input)? != Some(PROTOCOL) {
        return Err(other("it has a format that PyTorch never had"));
    }
    let (system, facts) = pickle::read(&mut input)?;
    let little = system.get(facts, "little_endian").map(|id| matches!(system.value(id), Value::Bool(true)));
    let (heap, root) = pickle::read(&mut input)?;
    let (keys, list) = pickle::read(&mut input)?;
    let declared: BTreeMap<String, Storage> = heap
        .values()
        .filter_map(|value| match value {
            Value::Persistent(id) => objects::storage(&heap, *id),
            _ => None,
        })
        .map(|storage| (storage.key.clone(), storage))
        .collect();
    let mut place = input.stream_position().map_err(PickleError::Read)?;
    let mut places = BTreeMap::new();
    for key in keys.elements(list).unwrap_or_default() {
        let key = match keys.value(*key) {
            Value::Text(text) => text.to_string(),
            Value::Int(number) => number.to_string(),
            _ => return Err(other("its list of storages is damaged")),
        };
        let storage = declared.get(&key).ok_or_else(|| other("its list of storages is damaged"))?;
        let bytes = storage.elements.checked_mul(storage.stored.size).and_then(|bytes| bytes.checked_add(8));
        let end = bytes.and_then(|bytes| place.checked_add(bytes)).filter(|end| *end <= length);
        let end = end.ok_or_else(|| other("it is cut off: its last tensors are missing"))?;
        places.insert(key, place + 8);
        place = end;
    }
    Ok(Opened { heap, root, storages: Storages::Stream(places), big_endian: little == Some(false) })
}

struct Reader<'a, F> {
    file: &'a mut F,
    length: u64,
    storages: Storages,
    big_endian: bool,
    /// Bytes of all tensors so far.
    total: u64,
}

impl<'a, F: Read + Seek> Reader<'a, F> {
    fn new(file: &'a mut F, opened: Opened) -> Result<Self, Fault> {
        let length = file.seek(SeekFrom::End(0)).map_err(PickleError::Read)?;
        Ok(Self { file, length, storages: opened.storages, big_endian: opened.big_endian, total: 0 })
    }

    fn collect(mut self, leaves: BTreeMap<String, Leaf>) -> Result<Index, Fault> {
        let mut index = Index::default();
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        for (key, leaf) in leaves {
            if names::is_flattened(&key) {
                return Err(Fault::Other(names::FLATTENED.to_owned()));
            }
            let Some(name) = names::official(&key) else {
                index.foreign.insert(key);
                continue;
            };
            if let Some(other) = keys.insert(name.clone(), key.clone()) {
                return Err(Fault::Other(names::collision(&other, &key, &name)));
            }
            match leaf {
                Leaf::Foreign(what) if names::is_sharded(&what) => return Err(Fault::Other(names::SHARDED.to_owned())),
                Leaf::Foreign(what) => drop(index.others.insert(name, what)),
                Leaf::Tensor(Tensor { stored, .. }) if stored.element.is_none() => {
                    index.others.insert(name, stored.name.to_owned());
                }
                Leaf::Tensor(tensor) => {
                    let entry = self.entry(&name, tensor)?;
                    index.entries.insert(name, entry);
                }
            }
        }
        Ok(index)
    }

    fn entry(&mut self, name: &str, tensor: Tensor) -> Result<Entry, Fault> {
        let Tensor { storage, stored, offset, shape, strides } = tensor;
        let shown = names::shortened(name);
        let short = || Fault::Other(format!("it is too short to hold `{shown}` of shape {}", names::sizes(&shape)));
        let element = stored.element.ok_or_else(short)?;
        let size = stored.size;
        let bytes = shape.iter().try_fold(size, |bytes, size| bytes.checked_mul(*size as u64)).ok_or_else(short)?;
        let limit = self.length.saturating_add(SMALLEST_LIMIT);
        self.total = self.total.saturating_add(bytes);
        if bytes > limit || self.total > limit.saturating_mul(MOST_COPIES) {
            return Err(short());
        }
        let (start, stored_length, crc) = self.find(&storage).map_err(|fault| match fault {
            Fault::Other(why) => Fault::Other(format!("`{shown}` cannot be read: {why}")),
            fault => fault,
        })?;
        let first = storage.first.checked_add(offset).and_then(|first| first.checked_mul(size)).ok_or_else(short)?;
        let length = extent(&shape, &strides).and_then(|extent| extent.checked_mul(size)).ok_or_else(short)?;
        let declared = storage.elements.checked_mul(storage.stored.size).ok_or_else(short)?;
        let end = first.checked_add(length).filter(|end| length == 0 || *end <= declared.min(stored_length));
        if end.is_none() {
            return Err(short());
        }
        let strides = (!is_row_major(&shape, &strides)).then(|| strides.into_boxed_slice());
        // Only a whole storage has a checksum.
        let crc = crc.filter(|crc| *crc != 0 && first == 0 && length == stored_length);
        let span = match length {
            0 => Span::plain(0, 0),
            _ => Span { file: 0, offset: start + first, length, strides, big_endian: self.big_endian, crc },
        };
        Ok(Entry::whole(shape, element, span))
    }

    /// A counter's value, where it is a whole number.
    fn counter(&mut self, counter: Counter) -> Result<Option<u64>, Fault> {
        let value = match counter {
            Counter::Number(number) => number,
            Counter::Tensor(tensor)
                if tensor.shape.iter().product::<usize>() == 1 && tensor.stored.element.is_some() =>
            {
                let entry = self.entry("step", tensor)?;
                let mut value = f64::NAN;
                for span in &entry.spans {
                    let bytes = span.read_from(self.file, &entry.shape, entry.element).map_err(PickleError::Read)?;
                    value = entry.element.decode(&bytes).first().copied().map_or(f64::NAN, f64::from);
                }
                value
            }
            Counter::Tensor(_) => f64::NAN,
        };
        // Counters are kept in 32-bit floats, which count up to here.
        let whole = (0.0..=(1u64 << 24) as f64).contains(&value) && value.fract() == 0.0;
        Ok(whole.then_some(value as u64))
    }

    /// First byte, length and checksum of a storage.
    fn find(&mut self, storage: &Storage) -> Result<(u64, u64, Option<u32>), Fault> {
        let missing = || Fault::Other("its storage is missing".to_owned());
        match &self.storages {
            Storages::Stream(places) => {
                let place = places.get(&storage.key).ok_or_else(missing)?;
                Ok((*place, storage.elements.saturating_mul(storage.stored.size), None))
            }
            Storages::Archive { directory, root } => {
                let record = directory.get(&format!("{root}data/{}", storage.key)).ok_or_else(missing)?;
                if record.compressed {
                    let why = "the archive was compressed after saving; unpack it and save it with torch.save again";
                    return Err(Fault::Other(why.to_owned()));
                }
                Ok((directory.start(self.file, record)?, record.length, Some(record.crc)))
            }
        }
    }
}
