//! Names of served models.

/// Whether a model may be called so: the name stands in paths, of addresses and of repositories.
pub fn is_model_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}
