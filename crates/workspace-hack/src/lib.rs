//! Holds no code: see `Cargo.toml` for the features that it pins.
