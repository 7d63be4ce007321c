//! Writes PyTorch checkpoints as `torch.save` does: a zip archive of a pickle (protocol 2) and one file a storage, or the
//! stream of before PyTorch 1.6.

use std::collections::BTreeMap;

/// A value in a checkpoint.
pub enum Value {
    Int(i32),
    Dict(Vec<(String, Value)>),
    Tensor {
        shape: Vec<usize>,
        data: Vec<f32>,
    },
    /// A view of a storage.
    View {
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        storage: Vec<f32>,
    },
    /// Opcodes that leave one value on the stack.
    Raw(Vec<u8>),
    /// An instance with a `__dict__`, as `torch.save(model)` stores modules.
    Instance(&'static str, Vec<(String, Value)>),
}

impl Value {
    /// The axes of a tensor in another order in memory: `order` lists them from the outermost.
    pub fn permuted(shape: &[usize], data: &[f32], order: &[usize]) -> Self {
        let mut strides = vec![0; shape.len()];
        let mut step = 1;
        for axis in order.iter().rev() {
            strides[*axis] = step;
            step *= shape[*axis];
        }
        let mut storage = vec![0.0; data.len()];
        for (number, value) in data.iter().enumerate() {
            let (mut rest, mut place) = (number, 0);
            for (size, stride) in shape.iter().zip(&strides).rev() {
                place += rest % size * stride;
                rest /= size;
            }
            storage[place] = *value;
        }
        Self::View { shape: shape.to_vec(), strides, offset: 0, storage }
    }

    /// What `numpy.float64(0.5)` is in a pickle.
    pub fn numpy_scalar() -> Self {
        let mut raw = b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\0\0\0f8\x89\x88tR".to_vec();
        raw.extend(b"(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
        raw.extend(b"c_codecs\nencode\n(X\x08\0\0\0\0\0\0\0\0\0\xe0?X\x06\0\0\0latin1tRtR");
        Self::Raw(raw)
    }
}

/// A state dict as a value.
pub fn state_dict(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<(String, Value)> {
    let value = |(shape, data): &(Vec<usize>, Vec<f32>)| Value::Tensor { shape: shape.clone(), data: data.clone() };
    tensors.iter().map(|(name, tensor)| (name.clone(), value(tensor))).collect()
}

/// The stream that PyTorch wrote before 1.6: pickles of a magic number, a protocol, the system, the value and the names of
/// its storages, then the storages.
pub fn stream(root: &[(String, Value)]) -> Vec<u8> {
    let mut pickle = Pickle { bytes: Vec::new(), storages: Vec::new() };
    pickle.bytes.extend(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}");
    pickle.text("little_endian");
    pickle.bytes.extend(b"\x88s.\x80\x02");
    pickle.dict(root);
    pickle.bytes.extend(b".\x80\x02](");
    (0..pickle.storages.len()).for_each(|key| pickle.text(&key.to_string()));
    pickle.bytes.extend(b"e.");
    let mut bytes = pickle.bytes;
    for storage in pickle.storages {
        bytes.extend((storage.len() as u64).to_le_bytes());
        bytes.extend(storage.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// The whole file.
pub fn checkpoint(root: &[(String, Value)]) -> Vec<u8> {
    archive(|pickle| pickle.dict(root))
}

/// As a machine with the other order of bytes writes it.
pub fn big_endian(root: &[(String, Value)]) -> Vec<u8> {
    let mut pickle = Pickle { bytes: vec![0x80, 2], storages: Vec::new() };
    pickle.dict(root);
    pickle.bytes.push(b'.');
    let mut files = vec![("model/data.pkl".to_owned(), pickle.bytes), ("model/byteorder".to_owned(), b"big".to_vec())];
    for (key, data) in pickle.storages.into_iter().enumerate() {
        files.push((format!("model/data/{key}"), data.iter().flat_map(|value| value.to_be_bytes()).collect()));
    }
    zip(&files)
}

/// A file of one value.
pub fn saved(value: &Value) -> Vec<u8> {
    archive(|pickle| pickle.value(value))
}

fn archive(write: impl FnOnce(&mut Pickle)) -> Vec<u8> {
    let mut pickle = Pickle { bytes: vec![0x80, 2], storages: Vec::new() };
    write(&mut pickle);
    pickle.bytes.push(b'.');
    let mut files = vec![("archive/data.pkl".to_owned(), pickle.bytes)];
    for (key, data) in pickle.storages.into_iter().enumerate() {
        files.push((format!("archive/data/{key}"), data.iter().flat_map(|value| value.to_le_bytes()).collect()));
    }
    files.push(("archive/version".to_owned(), b"3\n".to_vec()));
    zip(&files)
}

/// A checkpoint of `tensors` (`target_encoder.blocks...`) in the official nesting: a dictionary a model, `wrapper` before
/// each name in it, and some of what else is in official files.
pub fn official(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>, wrapper: &str) -> Vec<u8> {
    let mut models: BTreeMap<&str, Vec<(String, Value)>> = BTreeMap::new();
    for (name, (shape, data)) in tensors {
        let (model, rest) = name.split_once('.').expect("names begin with their model");
        let tensor = Value::Tensor { shape: shape.clone(), data: data.clone() };
        models.entry(model).or_default().push((format!("{wrapper}{rest}"), tensor));
    }
    let mut root: Vec<(String, Value)> =
        models.into_iter().map(|(model, entries)| (model.to_owned(), Value::Dict(entries))).collect();
    let moment = Value::Tensor { shape: vec![2], data: vec![0.5, -0.5] };
    let state = Value::Dict(vec![("exp_avg".to_owned(), moment)]);
    root.push(("opt".to_owned(), Value::Dict(vec![("state".to_owned(), state)])));
    root.push(("epoch".to_owned(), Value::Int(300)));
    checkpoint(&root)
}

struct Pickle {
    bytes: Vec<u8>,
    storages: Vec<Vec<f32>>,
}

impl Pickle {
    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn int(&mut self, value: i32) {
        self.bytes.push(b'J');
        self.bytes.extend(value.to_le_bytes());
    }

    fn class(&mut self, module: &str, name: &str) {
        self.bytes.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn ints(&mut self, values: impl Iterator<Item = usize>) {
        self.bytes.push(b'(');
        values.for_each(|value| self.int(value as i32));
        self.bytes.push(b't');
    }

    fn dict(&mut self, entries: &[(String, Value)]) {
        self.bytes.extend(b"}(");
        for (key, value) in entries {
            self.text(key);
            self.value(value);
        }
        self.bytes.push(b'u');
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Int(value) => self.int(*value),
            Value::Dict(entries) => self.dict(entries),
            Value::Tensor { shape, data } => {
                let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
                self.view(shape, &strides, 0, data);
            }
            Value::View { shape, strides, offset, storage } => self.view(shape, strides, *offset, storage),
            Value::Raw(opcodes) => self.bytes.extend(opcodes),
            Value::Instance(class, attributes) => {
                self.class("__main__", class);
                self.bytes.extend(b")\x81");
                self.dict(attributes);
                self.bytes.push(b'b');
            }
        }
    }

    fn view(&mut self, shape: &[usize], strides: &[usize], offset: usize, data: &[f32]) {
        self.class("torch._utils", "_rebuild_tensor_v2");
        self.bytes.extend(b"((");
        self.text("storage");
        self.class("torch", "FloatStorage");
        self.text(&self.storages.len().to_string());
        self.text("cpu");
        self.int(data.len() as i32);
        self.bytes.extend(b"tQ");
        self.int(offset as i32);
        self.ints(shape.iter().copied());
        self.ints(strides.iter().copied());
        // requires_grad and hooks.
        self.bytes.push(0x89);
        self.class("collections", "OrderedDict");
        self.bytes.extend(b")RtR");
        self.storages.push(data.to_vec());
    }
}

/// An archive of stored (not compressed) files.
fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        // Version, flags, method, time and date, checksum, sizes, lengths of name and extra field.
        let mut about = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        about.extend(crc32(data).to_le_bytes());
        about.extend((data.len() as u32).to_le_bytes());
        about.extend((data.len() as u32).to_le_bytes());
        about.extend((name.len() as u16).to_le_bytes());
        about.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&about);
        directory.extend([0; 10]);
        directory.extend((archive.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        archive.extend(b"PK\x03\x04");
        archive.extend(&about);
        archive.extend(name.as_bytes());
        archive.extend(data);
    }
    let start = archive.len() as u32;
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06\x00\x00\x00\x00");
    archive.extend([(files.len() as u16).to_le_bytes(); 2].concat());
    archive.extend((directory.len() as u32).to_le_bytes());
    archive.extend(start.to_le_bytes());
    archive.extend([0, 0]);
    archive
}

fn crc32(data: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (i, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(i as u32, |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 });
    }
    !data.iter().fold(!0u32, |crc, byte| table[((crc ^ u32::from(*byte)) & 255) as usize] ^ (crc >> 8))
}
