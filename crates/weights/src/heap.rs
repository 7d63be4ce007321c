//! The values that a pickle describes, in an arena where they refer to each other by number.

/// A value's index in its [`Heap`].
pub(super) type Id = u32;

/// A Python value, as far as it matters for tensors.
#[derive(Debug)]
pub(super) enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 16 bytes.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Text(Box<str>),
    /// A tuple or a frozen set.
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    /// A dictionary, in order; of equal keys the last counts.
    Dict(Vec<(Id, Id)>),
    /// A class or function, `module.name`.
    Global(Box<str>),
    /// A call that was not made, or an instance that was not built.
    Object(Box<Object>),
    /// Something that stands outside the pickle: a tensor's storage.
    Persistent(Id),
    /// A value that nothing depends on: bytes, an extension.
    Opaque,
}

/// An object as its pickle describes it.
#[derive(Debug)]
pub(super) struct Object {
    /// The callable.
    pub class: Id,
    /// The tuple of its arguments.
    pub args: Id,
    /// The state that `BUILD` sets: usually its `__dict__`.
    pub state: Option<Id>,
    /// Entries set on it, as on a subclass of `dict`.
    pub items: Vec<(Id, Id)>,
}

/// The values that every heap begins with.
pub(super) const NONE: Id = 0;
pub(super) const TRUE: Id = 1;
pub(super) const FALSE: Id = 2;
pub(super) const OPAQUE: Id = 3;

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Heap(pub(super) Vec<Value>);

impl Heap {
    /// The values that every pickle may refer to.
    pub fn first() -> Vec<Value> {
        vec![Value::None, Value::Bool(true), Value::Bool(false), Value::Opaque]
    }

    /// The value there.
    pub fn value(&self, id: Id) -> &Value {
        self.0.get(id as usize).unwrap_or(&Value::Opaque)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// The text there.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number there, where it is a size.
    pub fn size(&self, id: Id) -> Option<u64> {
        match self.value(id) {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The elements of a tuple or list.
    pub fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(elements) | Value::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// The name of a class or function.
    pub fn global(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }

    /// The value of a text key, in a dictionary.
    pub fn get(&self, dict: Id, key: &str) -> Option<Id> {
        let Value::Dict(items) = self.value(dict) else { return None };
        items.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }
}
