//! Work that is dealt out to ranks and collected by rank 0.
//!
//! Units of work, which do not depend on how many ranks there are, go round: rank r has the units r, r + W, ... W units, one of
//! each rank, are a *turn*, after which rank 0 has what came of them, in their order. So the numbers are the same for any W, no
//! rank gets far ahead, and one that is lost is missed within a turn.

use crate::{Collective, CollectiveError, broadcast_all};

/// What every rank has to say, on rank 0 in the order of ranks; nothing elsewhere.
///
/// # Errors
/// [`CollectiveError`] when a rank is lost or late.
pub fn collect(ranks: &dyn Collective, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
    if ranks.world() == 1 {
        return Ok(vec![mine]);
    }
    let mut all = Vec::new();
    for root in 0..ranks.world() {
        let theirs = broadcast_all(ranks, if root == ranks.rank() { &mine } else { &[] }, root)?;
        if ranks.rank() == 0 {
            all.push(theirs);
        }
    }
    Ok(all)
}

/// What came of a unit: of each of its samples nothing or why it cannot be used, and the values of those that can.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Portion {
    /// In the order of the unit's samples.
    pub samples: Vec<Option<String>>,
    /// Of the usable samples, one after the other.
    pub values: Vec<f32>,
}

impl Portion {
    /// As bytes: lengths, texts, values.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.samples.len() as u64).to_le_bytes().to_vec();
        for sample in &self.samples {
            let (length, text) = match sample {
                None => (u64::MAX, ""),
                Some(why) => (why.len() as u64, why.as_str()),
            };
            bytes.extend(length.to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend(self.values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// The inverse of [`Portion::to_bytes`]; none for other bytes.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |bytes: &mut &[u8]| -> Option<u64> {
            let (word, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Some(u64::from_le_bytes(*word))
        };
        let mut rest = bytes;
        let count = number(&mut rest)?;
        let mut samples = Vec::new();
        for _ in 0..count {
            let length = number(&mut rest)?;
            if length == u64::MAX {
                samples.push(None);
                continue;
            }
            let (text, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            samples.push(Some(String::from_utf8_lossy(text).into_owned()));
            rest = after;
        }
        let (words, []) = rest.as_chunks::<4>() else { return None };
        Some(Self { samples, values: words.iter().map(|word| f32::from_le_bytes(*word)).collect() })
    }
}

/// Ends a turn: this rank's portion goes to rank 0, which gets one of each rank that had a unit, in their order; none elsewhere.
///
/// # Errors
/// [`CollectiveError`] when a rank is lost or late.
pub fn turn(ranks: &dyn Collective, mine: Option<Portion>) -> Result<Vec<Portion>, CollectiveError> {
    if ranks.world() == 1 {
        return Ok(mine.into_iter().collect());
    }
    let sent = collect(ranks, mine.as_ref().map(Portion::to_bytes).unwrap_or_default())?;
    let broken = || CollectiveError::Start { engine: "a rank", why: "it sent what cannot be read".to_owned() };
    let there = sent.iter().filter(|bytes| !bytes.is_empty());
    there.map(|bytes| Portion::of_bytes(bytes).ok_or_else(broken)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Alone;

    #[test]
    fn portions_survive_the_journey() {
        for portion in [
            Portion::default(),
            Portion {
                samples: vec![None, Some("is \"cut off\"".into()), Some(String::new())],
                values: vec![-0.0, f32::NAN],
            },
        ] {
            let bytes = portion.to_bytes();
            let back = Portion::of_bytes(&bytes).unwrap();
            assert_eq!(back.samples, portion.samples);
            let bits = |portion: &Portion| portion.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&portion));
            if let Some((_, cut)) = bytes.split_last() {
                assert_eq!(Portion::of_bytes(cut), None);
            }
        }
        assert_eq!(Portion::of_bytes(&[255; 8]), None);
    }

    #[test]
    fn alone_a_turn_is_its_own_unit() {
        let mine = Portion { samples: vec![None], values: vec![1.0] };
        assert_eq!(turn(&Alone, Some(mine.clone())).unwrap(), [mine]);
        assert_eq!(turn(&Alone, None).unwrap(), []);
        assert_eq!(collect(&Alone, vec![7]).unwrap(), [[7]]);
    }
}
