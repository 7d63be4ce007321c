//! The tensors in a pickle: their names by where they stand, and what they say of themselves.
//!
//! Dictionaries, lists and modules are gone through as `state_dict` would name them; everything else is opaque.

use std::collections::{BTreeMap, HashSet};

use super::element::Element;
use super::heap::{Heap, Id, Object, Value};

/// Deepest nesting and most values that are visited.
const DEEPEST: usize = 100;
const MOST_VISITED: usize = 1 << 23;
/// Most tensors of a file, and most bytes of their names together.
const MOST_TENSORS: usize = 1 << 20;
const MOST_NAMES: usize = 1 << 27;
/// Most dimensions of a tensor; PyTorch's own limit.
const MOST_DIMENSIONS: usize = 64;

/// A type of element that PyTorch stores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Its name in PyTorch.
    pub name: &'static str,
    /// Bytes of one element.
    pub size: u64,
    /// The type it is read as; none for what is not a float.
    pub element: Option<Element>,
}

/// Every type: the storage's class, its name, bytes, what it is read as.
const TYPES: [(&str, &str, u64, Option<Element>); 25] = [
    ("FloatStorage", "float32", 4, Some(Element::F32)),
    ("DoubleStorage", "float64", 8, Some(Element::F64)),
    ("HalfStorage", "float16", 2, Some(Element::F16)),
    ("BFloat16Storage", "bfloat16", 2, Some(Element::Bf16)),
    ("LongStorage", "int64", 8, None),
    ("IntStorage", "int32", 4, None),
    ("ShortStorage", "int16", 2, None),
    ("CharStorage", "int8", 1, None),
    ("ByteStorage", "uint8", 1, None),
    ("BoolStorage", "bool", 1, None),
    ("ComplexFloatStorage", "complex64", 8, None),
    ("ComplexDoubleStorage", "complex128", 16, None),
    ("QInt8Storage", "qint8", 1, None),
    ("QUInt8Storage", "quint8", 1, None),
    ("QInt32Storage", "qint32", 4, None),
    ("QUInt4x2Storage", "quint4x2", 1, None),
    ("QUInt2x4Storage", "quint2x4", 1, None),
    ("UntypedStorage", "bytes", 1, None),
    ("", "uint16", 2, None),
    ("", "uint32", 4, None),
    ("", "uint64", 8, None),
    ("", "float8_e4m3fn", 1, None),
    ("", "float8_e5m2", 1, None),
    ("", "float8_e4m3fnuz", 1, None),
    ("", "float8_e5m2fnuz", 1, None),
];

/// Tensors that are not read, by the function that would rebuild them.
const FOREIGN: [(&str, &str); 5] = [
    ("_rebuild_qtensor", "quantised"),
    ("_rebuild_sparse_tensor", "sparse"),
    ("_rebuild_nested_tensor", "nested"),
    ("_rebuild_meta_tensor_no_storage", "on the meta device, where it has no values"),
    ("_rebuild_device_tensor_from_numpy", "of another device"),
];

impl Stored {
    /// The type of a storage class (`torch.FloatStorage`) or of a `torch.dtype` (`torch.float32`).
    fn of(global: &str) -> Option<Self> {
        let last = global.rsplit('.').next().unwrap_or(global);
        let found = TYPES.iter().find(|(class, name, ..)| *class == last || *name == last);
        found.map(|&(_, name, size, element)| Self { name, size, element })
    }
}

/// A storage that tensors are views of.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// Its name in the file.
    pub key: String,
    /// Its type.
    pub stored: Stored,
    /// Elements of the whole storage.
    pub elements: u64,
    /// First element of the part that is meant: early files have storages that are views of others.
    pub first: u64,
}

/// A tensor: a view of a storage. Sizes are in elements.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// Where its elements are.
    pub storage: Storage,
    /// Their type.
    pub stored: Stored,
    /// First element.
    pub offset: u64,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Steps from element to element along each axis.
    pub strides: Vec<u64>,
}

/// What stands under a name.
#[derive(Clone, Debug)]
pub(super) enum Leaf {
    /// A tensor.
    Tensor(Tensor),
    /// A tensor of a kind that cannot be read: the function that would rebuild it, or its class.
    Foreign(String),
}

/// The storage behind a persistent id, `("storage", class, key, location, elements[, view])`.
pub(super) fn storage(heap: &Heap, id: Id) -> Option<Storage> {
    let &[kind, class, key, _, elements, ref view @ ..] = heap.elements(id)? else { return None };
    if heap.text(kind) != Some("storage") {
        return None;
    }
    let class = heap.global(class).or_else(|| heap.text(class))?;
    let key = match heap.value(key) {
        Value::Text(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        _ => return None,
    };
    let first = match view.first().and_then(|view| heap.elements(*view)) {
        Some(&[_, first, _]) => heap.size(first)?,
        _ => 0,
    };
    Some(Storage { key, stored: Stored::of(class)?, elements: heap.size(elements)?, first })
}

/// Every tensor of a pickle by its name, `encoder.module.backbone.norm.weight`.
///
/// # Errors
/// A tensor's fault, in words.
pub(super) fn leaves(heap: &Heap, root: Id) -> Result<BTreeMap<String, Leaf>, String> {
    let mut walk = Walk { heap, leaves: BTreeMap::new(), path: Vec::new(), above: Vec::new(), visited: 0, names: 0 };
    walk.visit(root)?;
    Ok(walk.leaves)
}

/// The tensor that a value is, if it is one that can be read.
pub(super) fn tensor_at(heap: &Heap, id: Id) -> Option<Tensor> {
    match heap.value(id) {
        Value::Object(object) => match leaf(heap, object, 0)? {
            Leaf::Tensor(tensor) => Some(tensor),
            Leaf::Foreign(_) => None,
        },
        _ => None,
    }
}

struct Walk<'a> {
    heap: &'a Heap,
    leaves: BTreeMap<String, Leaf>,
    /// The names on the way to where the walk stands, and the values.
    path: Vec<String>,
    above: Vec<Id>,
    visited: usize,
    names: usize,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id) -> Result<(), String> {
        self.visited += 1;
        if self.visited > MOST_VISITED {
            return Err("it nests too many Python objects; save the state dict alone".to_owned());
        }
        let container =
            matches!(self.heap.value(id), Value::Dict(_) | Value::List(_) | Value::Tuple(_) | Value::Object(_));
        // What contains itself, or is nested like this, holds no weights.
        if !container || self.above.len() >= DEEPEST || self.above.contains(&id) {
            return Ok(());
        }
        self.above.push(id);
        let heap = self.heap;
        match heap.value(id) {
            Value::Dict(items) => self.items(items, &HashSet::new())?,
            Value::List(elements) | Value::Tuple(elements) => {
                for (number, element) in elements.iter().enumerate() {
                    self.enter(number.to_string(), *element)?;
                }
            }
            Value::Object(object) => self.object(object)?,
            _ => {}
        }
        self.above.pop();
        Ok(())
    }

    fn enter(&mut self, name: String, id: Id) -> Result<(), String> {
        self.path.push(name);
        self.visit(id)?;
        self.path.pop();
        Ok(())
    }

    fn items(&mut self, items: &[(Id, Id)], without: &HashSet<&str>) -> Result<(), String> {
        for (key, value) in items {
            let name = match self.heap.value(*key) {
                Value::Text(text) => text.to_string(),
                Value::Int(number) => number.to_string(),
                _ => continue,
            };
            if !without.contains(name.as_str()) {
                self.enter(name, *value)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, object: &Object) -> Result<(), String> {
        let heap = self.heap;
        if let Some(leaf) = leaf(heap, object, 0) {
            let name = self.path.join(".");
            self.names += name.len();
            if self.leaves.len() >= MOST_TENSORS || self.names > MOST_NAMES {
                return Err(format!("it names more than {MOST_TENSORS} tensors; save the state dict alone"));
            }
            self.leaves.insert(name, leaf);
            return Ok(());
        }
        // `torch.save(model)`: an instance with its `__dict__`, or that and its slots.
        let state = object.state.map(|state| heap.elements(state).and_then(<[Id]>::first).copied().unwrap_or(state));
        if let Some(state) = state.filter(|state| heap.get(*state, "_parameters").is_some()) {
            return self.module(state);
        }
        // OrderedDict, defaultdict and other kinds of dictionaries, whose first entries may be arguments.
        let dictionary =
            heap.global(object.class).is_some_and(|class| class.ends_with("Dict") || class.ends_with("dict"));
        if dictionary {
            for argument in heap.elements(object.args).unwrap_or_default() {
                match heap.value(*argument) {
                    Value::Dict(items) => self.items(items, &HashSet::new())?,
                    Value::List(entries) | Value::Tuple(entries) => {
                        let pair = |entry: &Id| match heap.elements(*entry) {
                            Some(&[key, value]) => Some((key, value)),
                            _ => None,
                        };
                        self.items(&entries.iter().filter_map(pair).collect::<Vec<_>>(), &HashSet::new())?;
                    }
                    _ => {}
                }
            }
        }
        self.items(&object.items, &HashSet::new())
    }

    /// A module's parameters, buffers and children, under the names that `state_dict()` gives them.
    fn module(&mut self, state: Id) -> Result<(), String> {
        let heap = self.heap;
        let passing = heap.get(state, "_non_persistent_buffers_set").and_then(|names| match heap.value(names) {
            // Before protocol 4 a set is a call of `set` with a list.
            Value::Object(object) => heap.elements(*heap.elements(object.args)?.first()?),
            _ => heap.elements(names),
        });
        let passing: HashSet<&str> = passing.unwrap_or_default().iter().filter_map(|name| heap.text(*name)).collect();
        for table in ["_parameters", "_buffers", "_modules"] {
            let without = if table == "_buffers" { &passing } else { &HashSet::new() };
            match heap.get(state, table).map(|table| heap.value(table)) {
                Some(Value::Dict(items)) => self.items(items, without)?,
                Some(Value::Object(object)) => self.items(&object.items, without)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The tensor that an object is, if it is one. Parameters and subclasses wrap others, to a small depth.
fn leaf(heap: &Heap, object: &Object, depth: usize) -> Option<Leaf> {
    let class = heap.global(object.class)?;
    let args = heap.elements(object.args).unwrap_or_default();
    let inner = |id: Option<&Id>| match heap.value(*id?) {
        Value::Object(object) if depth < 4 => leaf(heap, object, depth + 1),
        _ => None,
    };
    match class {
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor_v3" => {
            // Of no matter unless the tensor is asked for.
            let unreadable = || Leaf::Foreign("a tensor described in a way that cannot be read".to_owned());
            Some(tensor(heap, class, args).unwrap_or_else(unreadable))
        }
        "torch._utils._rebuild_parameter"
        | "torch._utils._rebuild_parameter_with_state"
        | "torch.nn.parameter.Parameter"
        | "torch.nn.parameter.Buffer" => inner(args.first()),
        "torch._tensor._rebuild_from_type_v2" => {
            let &[class, kind, args, ..] = args else { return None };
            let object = Object { class, args, state: None, items: Vec::new() };
            match leaf(heap, &object, depth + 1).filter(|_| depth < 4)? {
                // What is rebuilt as a wrapper around others is named by its type.
                Leaf::Foreign(_) if heap.global(kind).is_some() => Some(Leaf::Foreign(heap.global(kind)?.to_owned())),
                leaf => Some(leaf),
            }
        }
        _ => {
            let last = class.rsplit('.').next().unwrap_or(class);
            if let Some((_, what)) = FOREIGN.iter().find(|(function, _)| *function == last) {
                return Some(Leaf::Foreign((*what).to_owned()));
            }
            let foreign = last.starts_with("_rebuild_") || (last.ends_with("Tensor") && object.state.is_some());
            foreign.then(|| Leaf::Foreign(class.to_owned()))
        }
    }
}

/// `(storage, offset, shape, strides, ...)`; the seventh argument of the third version is the type.
fn tensor(heap: &Heap, class: &str, args: &[Id]) -> Option<Leaf> {
    let &[persistent, offset, shape, strides, ..] = args else { return None };
    let Value::Persistent(id) = heap.value(persistent) else { return None };
    let Some(storage) = storage(heap, *id) else {
        return Some(Leaf::Foreign("a tensor of a storage that is not known".to_owned()));
    };
    let stored = match args.get(6).filter(|_| class.ends_with("_v3")) {
        None => storage.stored,
        Some(dtype) => {
            let name = heap.global(*dtype)?;
            let Some(stored) = Stored::of(name) else { return Some(Leaf::Foreign(name.to_owned())) };
            stored
        }
    };
    let sizes = |id| -> Option<Vec<u64>> { heap.elements(id)?.iter().map(|size| heap.size(*size)).collect() };
    let (shape, strides) = (sizes(shape)?, sizes(strides)?);
    let shape: Vec<usize> = shape.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<_>>()?;
    let fits = shape.len() == strides.len() && shape.len() <= MOST_DIMENSIONS;
    let tensor = Tensor { storage, stored, offset: heap.size(offset)?, shape, strides };
    fits.then_some(Leaf::Tensor(tensor))
}
