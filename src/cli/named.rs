//! Flags whose values are a library's own: names and descriptions stand there, once.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Reads one of the values in `all` by its name; `--help` lists the names with what they mean.
pub(super) fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
    about: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let values = all.iter().map(|value| PossibleValue::new(name(*value)).help(about(*value)));
    PossibleValuesParser::new(values).try_map(move |word| {
        // Clap has refused every other word already.
        all.iter().copied().find(|value| name(*value) == word).ok_or("not one of the possible values")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command};
    use vjepa_export::Target;

    #[test]
    fn values_are_read_by_the_librarys_names_and_described_by_it() {
        let command = || {
            let arg = Arg::new("target").long("target").value_parser(named(&Target::ALL, Target::name, Target::about));
            Command::new("x").arg(arg)
        };
        for target in Target::ALL {
            let matches = command().try_get_matches_from(["x", "--target", target.name()]).unwrap();
            assert_eq!(matches.get_one::<Target>("target"), Some(&target));
        }
        let refused = command().try_get_matches_from(["x", "--target", "onnx"]).unwrap_err().to_string();
        assert!(refused.contains("portable, ort-cpu, tract, tensorrt"), "{refused}");
        assert!(command().render_long_help().to_string().contains(Target::Portable.about()));
    }
}
