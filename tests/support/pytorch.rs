//! Writes PyTorch checkpoints as `torch.save` does: a zip archive of a pickle (protocol 2) and one file a storage.

use std::collections::BTreeMap;

/// A value in a checkpoint.
pub enum Value {
    Int(i32),
    Dict(Vec<(String, Value)>),
    Tensor { shape: Vec<usize>, data: Vec<f32> },
}

/// The whole file.
pub fn checkpoint(root: &[(String, Value)]) -> Vec<u8> {
    let mut pickle = Pickle { bytes: vec![0x80, 2], storages: Vec::new() };
    pickle.dict(root);
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
            match value {
                Value::Int(value) => self.int(*value),
                Value::Dict(entries) => self.dict(entries),
                Value::Tensor { shape, data } => self.tensor(shape, data),
            }
        }
        self.bytes.push(b'u');
    }

    fn tensor(&mut self, shape: &[usize], data: &[f32]) {
        self.class("torch._utils", "_rebuild_tensor_v2");
        self.bytes.extend(b"((");
        self.text("storage");
        self.class("torch", "FloatStorage");
        self.text(&self.storages.len().to_string());
        self.text("cpu");
        self.int(data.len() as i32);
        self.bytes.extend(b"tQ");
        self.int(0);
        self.ints(shape.iter().copied());
        self.ints((0..shape.len()).map(|axis| shape[axis + 1..].iter().product()));
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
