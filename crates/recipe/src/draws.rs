//! The random draws of a share of the labels: few labels per class, as in the paper's label efficiency.

/// Draws of the protocol.
pub const DRAWS: u32 = 3;

/// The draws that are trained on and averaged, by their seeds: `only` that one, else the first `count`, else the protocol's.
pub fn draws(only: Option<u64>, count: Option<u32>) -> Vec<u64> {
    only.map_or_else(|| (0..u64::from(count.unwrap_or(DRAWS))).collect(), |only| vec![only])
}

/// Seeds in words: `seed 1`, `seeds 0, 1, 2`.
pub fn in_words(seeds: &[u64]) -> String {
    let all: Vec<String> = seeds.iter().map(u64::to_string).collect();
    format!("seed{} {}", if seeds.len() == 1 { "" } else { "s" }, all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_draw_several_or_those_of_the_protocol() {
        assert_eq!(draws(None, None), [0, 1, 2]);
        assert_eq!(draws(None, Some(2)), [0, 1]);
        assert_eq!(draws(Some(7), Some(2)), [7]);
        assert_eq!((in_words(&[7]), in_words(&[0, 1])), ("seed 7".to_owned(), "seeds 0, 1".to_owned()));
    }
}
