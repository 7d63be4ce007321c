//! Every pass by name, with its parameters: `recompute(output=loss, what=blocks)`.

use super::{
    AbsorbCasts, Autocast, CleanUp, CommonScalars, CommonSubexpressions, DeadCode, Decompose, FoldConstants,
    FuseAccumulate, FuseAdamWEma, FuseBiasGelu, FuseGelu, FuseTokenL1, GroupAdamW, KeepSums, MergePads, MergeRows,
    OverlapSums, PackAttention, PadTokens, Pass, Recompute, Recomputed, ReduceSums, SinkTokens,
};
use crate::ir::DType;
use crate::ops::Op;

/// How a pass is made from its parameters.
type Make = fn(&mut Spec) -> Result<Box<dyn Pass>, SpecError>;

/// All passes, under the names their `name` returns.
const REGISTRY: [(&str, Make); 23] = [
    ("clean-up", |_| Ok(Box::new(CleanUp))),
    ("constants", |_| Ok(Box::new(FoldConstants))),
    ("cse", |_| Ok(Box::new(CommonSubexpressions))),
    ("common-scalars", |_| Ok(Box::new(CommonScalars))),
    ("dead-code", |_| Ok(Box::new(DeadCode))),
    ("pad-tokens", pad_tokens),
    ("sink-tokens", |_| Ok(Box::new(SinkTokens))),
    ("merge-rows", |_| Ok(Box::new(MergeRows))),
    ("pack-attention", |_| Ok(Box::new(PackAttention))),
    ("merge-pads", |_| Ok(Box::new(MergePads))),
    ("fuse-adamw-ema", |_| Ok(Box::new(FuseAdamWEma))),
    ("autocast", autocast),
    ("fuse-accumulate", |_| Ok(Box::new(FuseAccumulate))),
    ("fuse-gelu", |_| Ok(Box::new(FuseGelu))),
    ("keep-sums", |_| Ok(Box::new(KeepSums))),
    ("fuse-bias-gelu", |_| Ok(Box::new(FuseBiasGelu))),
    ("absorb-casts", |_| Ok(Box::new(AbsorbCasts))),
    ("fuse-token-l1", |_| Ok(Box::new(FuseTokenL1))),
    ("group-adamw", |_| Ok(Box::new(GroupAdamW))),
    ("recompute", recompute),
    ("decompose", decompose),
    ("reduce-sums", reduce_sums),
    ("overlap-sums", |_| Ok(Box::new(OverlapSums))),
];

/// `to`: `bf16` (the default) or `f16`.
fn autocast(spec: &mut Spec) -> Result<Box<dyn Pass>, SpecError> {
    let to = match spec.take("to").as_deref() {
        None | Some("bf16") => DType::BF16,
        Some("f16") => DType::F16,
        Some(other) => return Err(spec.value("to", "bf16 or f16", other)),
    };
    Ok(Box::new(Autocast { to }))
}

/// `output`: the output the forward part computes, `loss` by default. `what`: `elementwise` (the default) or `blocks`.
fn recompute(spec: &mut Spec) -> Result<Box<dyn Pass>, SpecError> {
    let output = spec.take("output").unwrap_or_else(|| "loss".to_owned());
    let what = match spec.take("what").as_deref() {
        None | Some("elementwise") => Recomputed::Elementwise,
        Some("blocks") => Recomputed::Blocks,
        Some(other) => return Err(spec.value("what", "elementwise or blocks", other)),
    };
    Ok(Box::new(Recompute { output, what }))
}

/// `only`: names of operations joined by `+`; by default every operation that has parts.
fn decompose(spec: &mut Spec) -> Result<Box<dyn Pass>, SpecError> {
    let Some(only) = spec.take("only") else { return Ok(Box::new(Decompose::all())) };
    let names: Vec<String> = only.split('+').map(|name| name.trim().to_owned()).collect();
    if let Some(unknown) = names.iter().find(|name| Op::prototype(name).is_none()) {
        return Err(spec.value("only", "names of operations joined by `+`", unknown));
    }
    Ok(Box::new(Decompose::unless(move |op| !names.iter().any(|name| name == op.name()))))
}

/// `indices`: inputs that are lists of tokens, joined by `+`, none by default. `multiple`: what their lengths are to be a
/// multiple of, 1 by default.
fn pad_tokens(spec: &mut Spec) -> Result<Box<dyn Pass>, SpecError> {
    let indices = spec.take("indices").unwrap_or_default();
    let indices = indices.split('+').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let multiple = match spec.take("multiple") {
        None => 1,
        Some(text) => text.parse().map_err(|_| spec.value("multiple", "a whole number", &text))?,
    };
    Ok(Box::new(PadTokens { indices, multiple }))
}

/// `limit`: elements that travel together, 1,048,576 by default.
fn reduce_sums(spec: &mut Spec) -> Result<Box<dyn Pass>, SpecError> {
    let limit = match spec.take("limit") {
        None => 1 << 20,
        Some(text) => text.parse().map_err(|_| spec.value("limit", "a number of elements", &text))?,
    };
    Ok(Box::new(ReduceSums { limit }))
}

/// A text that does not name a pass and its parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not `name` or `name(key=value, ..)`.
    #[error("`{0}` is not of the form `name` or `name(key=value, ..)`")]
    Form(String),
    /// There is no pass of that name.
    #[error("there is no pass `{name}`; the passes are {known}")]
    Pass {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The pass has no parameter of that name.
    #[error("`{name}` has no parameter `{parameter}`")]
    Parameter {
        /// The pass.
        name: String,
        /// The parameter given.
        parameter: String,
    },
    /// A parameter has a value it cannot have.
    #[error("parameter `{parameter}` of `{name}` must be {expected}, got `{got}`")]
    Value {
        /// The pass.
        name: String,
        /// The parameter.
        parameter: &'static str,
        /// What it may be.
        expected: &'static str,
        /// The value given.
        got: String,
    },
}

/// The name and the parameters of a pass (or of another step of a filetest) as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What stands before the parenthesis.
    pub name: String,
    parameters: Vec<(String, String)>,
}

impl Spec {
    /// Reads a list separated by commas: `sink-tokens, recompute(what=blocks), dead-code`.
    ///
    /// # Errors
    /// [`SpecError::Form`].
    pub fn list(text: &str) -> Result<Vec<Self>, SpecError> {
        let mut depth = 0usize;
        let items = text.split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        });
        items.map(|item| Self::one(item.trim())).collect()
    }

    fn one(text: &str) -> Result<Self, SpecError> {
        let form = || SpecError::Form(text.to_owned());
        let (name, inside) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')').ok_or_else(form)?),
            None => (text, ""),
        };
        let pairs = inside.split(',').filter(|_| !inside.is_empty());
        let parameters = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(form)?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        });
        let name = name.trim();
        let dashed = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !dashed {
            return Err(form());
        }
        Ok(Self { name: name.to_owned(), parameters: parameters.collect::<Result<_, _>>()? })
    }

    /// Takes the value of a parameter out.
    pub fn take(&mut self, parameter: &str) -> Option<String> {
        let at = self.parameters.iter().position(|(key, _)| key == parameter)?;
        Some(self.parameters.remove(at).1)
    }

    /// Fails when a parameter is left that nothing [took](Spec::take).
    ///
    /// # Errors
    /// [`SpecError::Parameter`].
    pub fn finish(self) -> Result<(), SpecError> {
        match self.parameters.into_iter().next() {
            Some((parameter, _)) => Err(SpecError::Parameter { name: self.name, parameter }),
            None => Ok(()),
        }
    }

    /// The pass.
    ///
    /// # Errors
    /// [`SpecError`] names what there is instead.
    pub fn pass(mut self) -> Result<Box<dyn Pass>, SpecError> {
        let Some((_, make)) = REGISTRY.iter().find(|(name, _)| *name == self.name) else {
            let known: Vec<&str> = REGISTRY.iter().map(|(name, _)| *name).collect();
            return Err(SpecError::Pass { name: self.name, known: known.join(", ") });
        };
        let pass = make(&mut self)?;
        self.finish()?;
        Ok(pass)
    }

    fn value(&self, parameter: &'static str, expected: &'static str, got: &str) -> SpecError {
        SpecError::Value { name: self.name.clone(), parameter, expected, got: got.to_owned() }
    }
}

/// One of each pass, with its default parameters.
pub fn all() -> Vec<Box<dyn Pass>> {
    let specs = REGISTRY.iter().map(|(name, _)| Spec { name: (*name).to_owned(), parameters: Vec::new() });
    specs.filter_map(|spec| spec.pass().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(text: &str) -> Result<String, String> {
        let mut specs = Spec::list(text).map_err(|error| error.to_string())?;
        let spec = specs.remove(0);
        spec.pass().map(|pass| pass.name().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_pass_is_made_under_its_own_name() {
        let names: Vec<&str> = all().iter().map(|pass| pass.name()).collect();
        assert_eq!(names, REGISTRY.map(|(name, _)| name));
    }

    #[test]
    fn parameters_are_checked() {
        assert_eq!(pass("recompute(output=y, what=blocks)").as_deref(), Ok("recompute"));
        assert_eq!(pass("decompose(only=gelu+softmax), dead-code").as_deref(), Ok("decompose"));
        let error = |text| pass(text).unwrap_err();
        assert!(error("dead_code").starts_with("`dead_code` is not of the form"));
        assert!(error("dead-cod").starts_with("there is no pass `dead-cod`; the passes are clean-up, "));
        assert_eq!(error("cse(x=1)"), "`cse` has no parameter `x`");
        assert_eq!(
            error("recompute(what=all)"),
            "parameter `what` of `recompute` must be elementwise or blocks, got `all`"
        );
        assert!(error("decompose(only=foo)").ends_with("joined by `+`, got `foo`"));
        for broken in ["recompute(what", "recompute(what)", "(a=b)", ""] {
            assert!(error(broken).contains("is not of the form"), "{broken}");
        }
    }
}
