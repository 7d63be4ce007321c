//! Amounts of memory on the command line.

/// Bytes, written as `800MB`, `1.5GiB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = parse_size::parse_size(text)
            .map_err(|error| format!("expected a size such as 800MB or 1.5GiB, got `{text}` ({error})"))?;
        if bytes == 0 { Err("the size must be greater than 0".to_owned()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        assert_eq!("800MB".parse(), Ok(Bytes(800_000_000)));
        assert_eq!("1.5GiB".parse(), Ok(Bytes(3 << 29)));
        for text in ["", "much", "-1GB", "0"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
