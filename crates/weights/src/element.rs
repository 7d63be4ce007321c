//! Element types of stored weights.

use half::{bf16, f16};

/// A floating-point type weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32 bits.
    F32,
    /// IEEE half.
    F16,
    /// Brain float.
    Bf16,
    /// 64 bits.
    F64,
}

impl Element {
    /// The type of this name in a safetensors header.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F64" => Self::F64,
            _ => return None,
        })
    }

    /// Its name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F64 => "F64",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F64 => 8,
        }
    }

    /// Little-endian bytes as `f32`.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => words(bytes, f32::from_le_bytes),
            Self::F16 => words(bytes, |word| f16::from_le_bytes(word).to_f32()),
            Self::Bf16 => words(bytes, |word| bf16::from_le_bytes(word).to_f32()),
            Self::F64 => words(bytes, |word| f64::from_le_bytes(word) as f32),
        }
    }
}

fn words<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|word| read(*word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_as_f32() {
        assert_eq!(Element::F32.decode(&1.5f32.to_le_bytes()), [1.5]);
        assert_eq!(Element::F16.decode(&f16::from_f32(-0.25).to_le_bytes()), [-0.25]);
        assert_eq!(Element::Bf16.decode(&bf16::from_f32(3.0).to_le_bytes()), [3.0]);
        assert_eq!(Element::F64.decode(&0.125f64.to_le_bytes()), [0.125]);
        for element in [Element::F32, Element::F16, Element::Bf16, Element::F64] {
            assert_eq!(Element::named(element.name()), Some(element));
        }
    }
}
