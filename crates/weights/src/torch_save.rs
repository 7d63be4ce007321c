//! Writes PyTorch files as `torch.save` does: a zip archive of a pickle and one stored, aligned entry a tensor.
//!
//! The pickle (protocol 2) calls nothing but what `torch.load(weights_only=True)` allows.

use std::io::{self, Seek, Write};
use std::path::Path;

use vjepa_runtime::write_atomically;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::element::Element;
use super::plain::Plain;

/// What `torch.save` aligns storages to, in bytes.
const ALIGNMENT: u16 = 64;
/// Folder of all entries; PyTorch takes any.
const ROOT: &str = "archive";

/// A value of the file.
pub(super) enum Node {
    Plain(Plain),
    Dict(Vec<(Plain, Node)>),
    List(Vec<Node>),
    /// The tensor of this number.
    Tensor(usize),
}

impl Node {
    /// A dictionary with keys of text.
    pub fn dict<'a>(items: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Dict(items.into_iter().map(|(key, value)| (Plain::Text(key.to_owned()), value)).collect())
    }
}

/// A tensor that the values refer to.
pub(super) struct Described {
    pub shape: Vec<usize>,
    pub element: Element,
}

/// Writes `root` to `path`, atomically; `bytes` writes those of the tensor of a number, row-major and little-endian.
///
/// # Errors
/// What the system or `bytes` said; nothing has changed then.
pub(super) fn write(
    path: &Path,
    root: &Node,
    tensors: &[Described],
    mut bytes: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut pickle = Pickle { bytes: vec![0x80, 2], tensors };
    pickle.node(root)?;
    pickle.bytes.push(b'.');
    write_atomically(path, |out| {
        let mut archive = ZipWriter::new(out);
        let small = |archive: &mut ZipWriter<_>, name: &str, content: &[u8]| {
            start(archive, name, content.len() as u64)?;
            archive.write_all(content)
        };
        small(&mut archive, "data.pkl", &pickle.bytes)?;
        small(&mut archive, ".format_version", b"1")?;
        small(&mut archive, ".storage_alignment", ALIGNMENT.to_string().as_bytes())?;
        small(&mut archive, "byteorder", b"little")?;
        for (number, tensor) in tensors.iter().enumerate() {
            start(&mut archive, &format!("data/{number}"), length(tensor).ok_or(io::ErrorKind::FileTooLarge)?)?;
            bytes(number, &mut archive)?;
        }
        small(&mut archive, "version", b"3\n")?;
        archive.finish().map(|_| ()).map_err(io::Error::other)
    })
}

fn start<W: Write + Seek>(archive: &mut ZipWriter<W>, name: &str, length: u64) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT)
        .large_file(length >= u64::from(u32::MAX));
    archive.start_file(format!("{ROOT}/{name}"), options).map_err(io::Error::other)
}

fn length(tensor: &Described) -> Option<u64> {
    let size = tensor.element.size() as u64;
    tensor.shape.iter().try_fold(size, |bytes, size| bytes.checked_mul(*size as u64))
}

struct Pickle<'a> {
    bytes: Vec<u8>,
    tensors: &'a [Described],
}

impl Pickle<'_> {
    fn node(&mut self, node: &Node) -> io::Result<()> {
        match node {
            Node::Plain(value) => self.plain(value),
            Node::Dict(items) => {
                self.bytes.extend(b"}(");
                for (key, value) in items {
                    self.plain(key)?;
                    self.node(value)?;
                }
                self.bytes.push(b'u');
                Ok(())
            }
            Node::List(elements) => {
                self.bytes.extend(b"](");
                elements.iter().try_for_each(|element| self.node(element))?;
                self.bytes.push(b'e');
                Ok(())
            }
            Node::Tensor(number) => self.tensor(*number),
        }
    }

    fn plain(&mut self, value: &Plain) -> io::Result<()> {
        match value {
            Plain::None => self.bytes.push(b'N'),
            Plain::Bool(value) => self.bytes.push(if *value { 0x88 } else { 0x89 }),
            Plain::Int(number) => self.int(*number),
            Plain::Float(number) => {
                self.bytes.push(b'G');
                self.bytes.extend(number.to_be_bytes());
            }
            Plain::Text(text) => self.text(text)?,
            Plain::List(elements) => {
                self.bytes.extend(b"](");
                elements.iter().try_for_each(|element| self.plain(element))?;
                self.bytes.push(b'e');
            }
            Plain::Tuple(elements) => {
                self.bytes.push(b'(');
                elements.iter().try_for_each(|element| self.plain(element))?;
                self.bytes.push(b't');
            }
            Plain::Dict(items) => {
                self.bytes.extend(b"}(");
                for (key, value) in items {
                    self.plain(key)?;
                    self.plain(value)?;
                }
                self.bytes.push(b'u');
            }
        }
        Ok(())
    }

    fn int(&mut self, number: i64) {
        match i32::try_from(number) {
            Ok(number) => {
                self.bytes.push(b'J');
                self.bytes.extend(number.to_le_bytes());
            }
            Err(_) => {
                self.bytes.extend([0x8a, 8]);
                self.bytes.extend(number.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.bytes.push(b'X');
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(text.as_bytes());
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, requires_grad=False, hooks=OrderedDict())`.
    fn tensor(&mut self, number: usize) -> io::Result<()> {
        let Described { shape, element } = self.tensors.get(number).ok_or(io::ErrorKind::InvalidInput)?;
        let count = |count: usize| i64::try_from(count).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        self.bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage")?;
        self.bytes.extend(format!("ctorch\n{}\n", storage(*element)).bytes());
        self.text(&number.to_string())?;
        self.text("cpu")?;
        self.int(count(shape.iter().product())?);
        self.bytes.extend(b"tQ");
        self.int(0);
        self.bytes.push(b'(');
        for size in shape {
            self.int(count(*size)?);
        }
        self.bytes.extend(b"t(");
        for axis in 0..shape.len() {
            // As PyTorch has them: axes without elements count as of one.
            let inner = shape.get(axis + 1..).unwrap_or_default().iter().map(|size| (*size).max(1)).product();
            self.int(count(inner)?);
        }
        self.bytes.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        Ok(())
    }
}

/// The class of a storage.
fn storage(element: Element) -> &'static str {
    match element {
        Element::F32 => "FloatStorage",
        Element::F16 => "HalfStorage",
        Element::Bf16 => "BFloat16Storage",
        Element::F64 => "DoubleStorage",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn entries_are_stored_aligned_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pt");
        let tensors = [
            Described { shape: vec![3, 0, 2], element: Element::F64 },
            Described { shape: vec![5], element: Element::Bf16 },
        ];
        let root = Node::dict([("a", Node::Tensor(0)), ("b", Node::List(vec![Node::Tensor(1)]))]);
        let data: [&[u8]; 2] = [&[], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]];
        write(&path, &root, &tensors, |number, out| out.write_all(data[number])).unwrap();
        // Read by a reader that is not ours.
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
        for number in 0..archive.len() {
            let mut entry = archive.by_index(number).unwrap();
            assert_eq!(entry.compression(), CompressionMethod::Stored);
            assert_eq!(entry.data_start().unwrap() % u64::from(ALIGNMENT), 0, "{}", entry.name());
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if entry.name() == "archive/data/1" {
                assert_eq!(content, data[1]);
            }
        }
        // A failure leaves what was there.
        let before = std::fs::read(&path).unwrap();
        assert!(write(&path, &root, &tensors, |_, _| Err(io::ErrorKind::Other.into())).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
