//! How a set of tensors differs from the parameters of a model.

use std::fmt;

use super::names::{cut, sizes};

/// A tensor of another shape than the parameter of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Name of the parameter.
    pub name: String,
    /// Shape of the parameter.
    pub expected: Vec<usize>,
    /// Shape of the tensor.
    pub got: Vec<usize>,
    /// Number of values of the tensor (which may differ from what its shape says).
    pub values: usize,
}

/// Weights that do not fit a module: every name at fault is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// Parameters for which there is no tensor.
    pub missing: Vec<String>,
    /// Tensors for which there is no parameter.
    pub unexpected: Vec<String>,
    /// Tensors of the wrong shape.
    pub misshapen: Vec<Misshapen>,
}

/// Most names of a kind that a message lists; of others it gives the number.
const NAMED: usize = 3;
/// Most shapes that a message shows.
const SHOWN: usize = 2;
/// Longest name that a message shows whole.
const LONGEST: usize = 60;

/// Names that do not fit, a few of them and how many there are: a wrong width puts every parameter of a model at fault.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the weights do not fit the model")?;
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                let named: Vec<String> = names.iter().take(NAMED).map(|name| cut(name, LONGEST)).collect();
                write!(f, "; {what}: {}", named.join(", "))?;
                and_more(f, names.len(), NAMED)?;
            }
        }
        for Misshapen { name, expected, got, values } in self.misshapen.iter().take(SHOWN) {
            let (name, expected, got) = (cut(name, LONGEST), sizes(expected), sizes(got));
            write!(f, "; {name} must be {expected}, got {got} with {values} values")?;
        }
        and_more(f, self.misshapen.len(), SHOWN)
    }
}

fn and_more(f: &mut fmt::Formatter<'_>, all: usize, listed: usize) -> fmt::Result {
    match all.saturating_sub(listed) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_faults_make_a_short_message() {
        let names: Vec<String> = (0..600).map(|i| format!("encoder.blocks.{i}.{}", "x".repeat(300))).collect();
        let misshapen =
            |name: &String| Misshapen { name: name.clone(), expected: vec![1024; 3], got: vec![1024; 60], values: 7 };
        let faults = LoadError {
            misshapen: names.iter().map(misshapen).collect(),
            missing: names.clone(),
            unexpected: names[..3].to_vec(),
        };
        let message = faults.to_string();
        assert!(message.contains("and 597 more") && message.ends_with("and 598 more"), "{message}");
        assert!(message.len() < 800, "{} characters: {message}", message.len());
        let plain = LoadError { missing: vec!["a.b".to_owned()], ..LoadError::default() };
        assert_eq!(plain.to_string(), "the weights do not fit the model; missing: a.b");
    }
}
