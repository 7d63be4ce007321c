//! Thrift's compact protocol, as far as Parquet's footers and page headers need it.

/// How deep structs and lists may stand within each other; a footer's are five deep.
const DEEPEST: usize = 16;

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A struct of Thrift's compact protocol; fields in ascending order.
pub(super) struct Struct {
    out: Vec<u8>,
    last: u8,
}

/// Thrift's numbers of types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

impl Struct {
    pub fn new() -> Self {
        Self { out: Vec::new(), last: 0 }
    }

    fn field(mut self, id: u8, kind: u8) -> Self {
        self.out.push((id - self.last) << 4 | kind);
        self.last = id;
        self
    }

    fn number(mut self, value: i64) -> Self {
        varint(&mut self.out, ((value << 1) ^ (value >> 63)) as u64);
        self
    }

    pub fn int(self, id: u8, value: i64) -> Self {
        self.field(id, I32).number(value)
    }

    pub fn long(self, id: u8, value: i64) -> Self {
        self.field(id, I64).number(value)
    }

    fn raw(mut self, text: &str) -> Self {
        varint(&mut self.out, text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    pub fn text(self, id: u8, text: &str) -> Self {
        self.field(id, BINARY).raw(text)
    }

    pub fn child(self, id: u8, child: Self) -> Self {
        let mut parent = self.field(id, STRUCT);
        parent.out.extend(child.bytes());
        parent
    }

    fn list(self, id: u8, kind: u8, count: usize) -> Self {
        let mut list = self.field(id, LIST);
        if count < 15 {
            list.out.push((count as u8) << 4 | kind);
        } else {
            list.out.push(0xF0 | kind);
            varint(&mut list.out, count as u64);
        }
        list
    }

    pub fn ints(self, id: u8, values: &[i64]) -> Self {
        values.iter().fold(self.list(id, I32, values.len()), |list, value| list.number(*value))
    }

    pub fn texts(self, id: u8, texts: &[&str]) -> Self {
        texts.iter().fold(self.list(id, BINARY, texts.len()), |list, text| list.raw(text))
    }

    pub fn structs(self, id: u8, children: Vec<Self>) -> Self {
        let mut list = self.list(id, STRUCT, children.len());
        children.into_iter().for_each(|child| list.out.extend(child.bytes()));
        list
    }

    pub fn bytes(mut self) -> Vec<u8> {
        self.out.push(0);
        self.out
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Struct(Vec<(i16, Value<'a>)>),
    /// Of a kind that nothing here asks for.
    Other,
}

impl<'a> Value<'a> {
    /// The struct at the beginning of these bytes, and what follows it; none where there is no whole one. What it takes in
    /// memory is in proportion to the bytes, whatever they say.
    pub fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut input = Input { rest: bytes };
        let value = input.fields(DEEPEST)?;
        Some((value, input.rest))
    }

    pub fn field(&self, id: i16) -> Option<&Value<'a>> {
        let Self::Struct(fields) = self else { return None };
        fields.iter().find(|(own, _)| *own == id).map(|(_, value)| value)
    }

    pub fn number(&self, id: i16) -> Option<i64> {
        let Self::Number(number) = self.field(id)? else { return None };
        Some(*number)
    }

    pub fn text(&self, id: i16) -> Option<&'a str> {
        let Self::Bytes(bytes) = self.field(id)? else { return None };
        std::str::from_utf8(bytes).ok()
    }

    pub fn list(&self, id: i16) -> Option<&[Value<'a>]> {
        let Self::List(values) = self.field(id)? else { return None };
        Some(values)
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn number(&mut self) -> Option<i64> {
        let zigzag = self.varint()?;
        Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn fields(&mut self, depth: usize) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        let (mut fields, mut last) = (Vec::new(), 0i16);
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(Value::Struct(fields));
            }
            last = match head >> 4 {
                0 => i16::try_from(self.number()?).ok()?,
                step => last.checked_add(i16::from(step))?,
            };
            let value = match head & 0x0F {
                // In a struct the kind is the value.
                TRUE | FALSE => Value::Other,
                kind => self.value(kind, depth)?,
            };
            fields.push((last, value));
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => usize::try_from(self.varint()?).ok()?,
            count => usize::from(count),
        };
        // Every element takes a byte or more.
        if count > self.rest.len() {
            return None;
        }
        let kind = head & 0x0F;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(if matches!(kind, TRUE | FALSE) {
                self.take(1).map(|_| Value::Other)?
            } else {
                self.value(kind, depth)?
            });
        }
        Some(Value::List(values))
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<Value<'a>> {
        match kind {
            I8 => self.take(1).map(|_| Value::Other),
            I16 | I32 | I64 => self.number().map(Value::Number),
            DOUBLE => self.take(8).map(|_| Value::Other),
            BINARY => {
                let count = usize::try_from(self.varint()?).ok()?;
                self.take(count).map(Value::Bytes)
            }
            LIST => self.list(depth),
            STRUCT => self.fields(depth),
            // Sets and maps stand in no Parquet file.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Struct::new().text(4, "rows").int(5, -7);
        let numbers: Vec<i64> = (0..20).collect();
        let bytes = Struct::new().int(1, 3).ints(2, &numbers).child(12, inner).bytes();
        let (read, rest) = Value::read(&bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!((read.number(1), read.list(2).unwrap().len()), (Some(3), 20));
        let inner = read.field(12).unwrap();
        assert_eq!((inner.text(4), inner.number(5), inner.number(6)), (Some("rows"), Some(-7), None));
        assert!((0..bytes.len()).all(|end| Value::read(&bytes[..end]).is_none()));
    }

    #[test]
    fn lists_within_lists_and_counts_beyond_the_end_are_refused() {
        // Field 1, a list of one list of one list ...
        let deep: Vec<u8> = std::iter::once(0x19).chain(std::iter::repeat_n(0x19, 100)).collect();
        assert!(Value::read(&deep).is_none());
        assert!(Value::read(&[0x19, 0xF5, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0]).is_none());
    }
}
