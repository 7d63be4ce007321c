//! The part of a file that holds a tensor, and reading it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::element::Element;

/// A part of a file that holds a tensor.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// Which of the files.
    pub file: usize,
    /// First byte, and bytes up to the last element's end.
    pub offset: u64,
    pub length: u64,
    /// Elements between neighbours along each axis; none for row-major order without gaps.
    pub strides: Option<Box<[u64]>>,
    /// Whether numbers have their first byte first.
    pub big_endian: bool,
    /// Checksum of these bytes, where there is one.
    pub crc: Option<u32>,
}

impl Span {
    /// Row-major little-endian numbers.
    pub fn plain(offset: u64, length: u64) -> Self {
        Self { file: 0, offset, length, strides: None, big_endian: false, crc: None }
    }

    /// The part of a tensor of `shape` that has index `row` on the first axis, if there is one.
    pub fn row(&self, shape: &[usize], element: Element, row: usize) -> Option<Self> {
        let (first, inner) = shape.split_first()?;
        let size = element.size() as u64;
        let (step, strides) = match &self.strides {
            None => (inner.iter().try_fold(1u64, |count, size| count.checked_mul(*size as u64))?, None),
            Some(strides) => {
                let (step, strides) = strides.split_first()?;
                (*step, (!is_row_major(inner, strides)).then(|| strides.to_vec().into_boxed_slice()))
            }
        };
        let length = match &strides {
            None => inner.iter().try_fold(size, |bytes, size| bytes.checked_mul(*size as u64))?,
            Some(strides) => extent(inner, strides)?.checked_mul(size)?,
        };
        let offset = (row as u64).checked_mul(step)?.checked_mul(size)?;
        let within = row < *first && offset.checked_add(length)? <= self.length;
        // A checksum is of the whole.
        within.then(|| Self { offset: self.offset + offset, length, strides, crc: None, ..self.clone() })
    }

    /// The tensor's bytes from its file: row-major, the last byte of each number last.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::InvalidData`] for bytes without their checksum.
    pub fn read(&self, path: &Path, shape: &[usize], element: Element) -> io::Result<Vec<u8>> {
        self.read_from(&mut File::open(path)?, shape, element)
    }

    /// As [`Span::read`], from a file that is open.
    ///
    /// # Errors
    /// As [`Span::read`].
    pub fn read_from<F: Read + Seek>(&self, file: &mut F, shape: &[usize], element: Element) -> io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(self.offset))?;
        // The length was checked against the file's when it was opened; it may have become shorter since.
        let length = usize::try_from(self.length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        if self.crc.is_some_and(|crc| crc32fast::hash(&bytes) != crc) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its bytes do not have their checksum"));
        }
        if self.big_endian {
            bytes.chunks_exact_mut(element.size()).for_each(<[u8]>::reverse);
        }
        match &self.strides {
            None => Ok(bytes),
            Some(strides) => {
                gather(&bytes, element.size(), shape, strides).ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// Whether a tensor lies in row-major order without gaps. Axes of one element have no neighbours.
pub(super) fn is_row_major(shape: &[usize], strides: &[u64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size <= 1 || *stride == expected;
        expected = expected.saturating_mul(*size as u64);
        fits
    })
}

/// Elements from the first one of a view to the end of its last one; none where it overflows.
pub(super) fn extent(shape: &[usize], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(0u64, |last, (size, stride)| last.checked_add((*size as u64 - 1).checked_mul(*stride)?))?;
    last.checked_add(1)
}

/// A view in row-major order, of elements of `size` bytes; none where it reaches beyond them.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[u64]) -> Option<Vec<u8>> {
    let extent = usize::try_from(extent(shape, strides)?).ok()?;
    let bytes = bytes.get(..extent.checked_mul(size)?)?;
    let strides: Vec<usize> = strides.iter().map(|stride| usize::try_from(*stride).ok()).collect::<Option<_>>()?;
    let wanted = shape.iter().try_fold(size, |bytes, size| bytes.checked_mul(*size))?;
    let (Some((inner, outer)), Some((step, steps))) = (shape.split_last(), strides.split_last()) else {
        return Some(bytes.to_vec());
    };
    let mut gathered = Vec::with_capacity(wanted);
    let mut index = vec![0; outer.len()];
    while gathered.len() < wanted {
        let start: usize = index.iter().zip(steps).map(|(i, step)| i * step).sum();
        for i in 0..*inner {
            let at = (start + i * step) * size;
            gathered.extend_from_slice(bytes.get(at..at + size)?);
        }
        // The next row: the last axis that has one more, with those after it at 0.
        for (i, size) in index.iter_mut().zip(outer).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    Some(gathered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_gathered_in_row_major_order() {
        let values: Vec<u8> = (0..24).collect();
        let view = |shape: &[usize], strides: &[u64]| gather(&values, 1, shape, strides).unwrap();
        assert_eq!(view(&[2, 3], &[1, 2]), [0, 2, 4, 1, 3, 5]);
        assert_eq!(view(&[2, 2, 2], &[12, 4, 1]), [0, 1, 4, 5, 12, 13, 16, 17]);
        assert_eq!(view(&[2, 2], &[0, 1]), [0, 1, 0, 1]);
        assert_eq!(view(&[], &[]), [0]);
        assert!(view(&[0, 5], &[5, 1]).is_empty());
        assert_eq!(gather(&values, 1, &[25], &[1]), None);
        assert_eq!(gather(&values, 1, &[2], &[u64::MAX]), None);
        // Numbers of several bytes stay whole.
        assert_eq!(gather(&values, 2, &[2, 2], &[1, 2]).unwrap(), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(gather(&values, 8, &[4], &[1]), None);
        let whole = Span { length: 96, crc: Some(1), ..Span::plain(8, 96) };
        let row = whole.row(&[4, 2, 3], Element::F32, 3).unwrap();
        assert_eq!((row.offset, row.length, row.strides, row.crc), (80, 24, None, None));
        assert!(whole.row(&[4, 2, 3], Element::F32, 4).is_none() && whole.row(&[], Element::F32, 0).is_none());
        let turned = Span { strides: Some([1, 12, 4].into()), ..whole };
        let row = turned.row(&[4, 2, 3], Element::F32, 1).unwrap();
        assert_eq!((row.offset, row.length, row.strides.as_deref()), (12, 84, Some([12, 4].as_slice())));
        // Axes of one element may have any stride.
        assert!(is_row_major(&[1, 4, 1, 6], &[7, 6, 99, 1]) && !is_row_major(&[4, 6], &[1, 4]));
    }
}
