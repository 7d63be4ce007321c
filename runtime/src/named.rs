//! Tensors given by name, matched with the inputs of a model.

use crate::clips::{Feed, NamedInput};
use crate::error::SessionError;
use crate::onnx::{Dimension, TensorInfo};
use std::collections::BTreeMap;

/// The tensors in the order of the model's inputs: one for each, of its shape, and sizes of one name the same in all.
pub(crate) fn feeds<'a>(inputs: &[TensorInfo], given: &[NamedInput<'a>]) -> Result<Vec<Feed<'a>>, SessionError> {
    for (position, tensor) in given.iter().enumerate() {
        if !inputs.iter().any(|input| input.name == tensor.name()) {
            return Err(SessionError::UnknownInput { name: tensor.name().to_owned(), expected: in_words(inputs) });
        }
        if given.iter().skip(position + 1).any(|other| other.name() == tensor.name()) {
            return Err(SessionError::RepeatedInput(tensor.name().to_owned()));
        }
    }
    let mut sizes = BTreeMap::new();
    let mut found = Vec::with_capacity(inputs.len());
    for input in inputs {
        let tensor = given.iter().find(|tensor| tensor.name() == input.name);
        let tensor = tensor
            .ok_or_else(|| SessionError::MissingInput { name: input.name.clone(), expected: in_words(inputs) })?;
        if !input.accepts(tensor.shape()) {
            return Err(SessionError::InputShape { expected: input.to_string(), got: tensor.shape().to_vec() });
        }
        agree(&mut sizes, input, tensor.shape())?;
        found.push(Feed { name: tensor.name(), shape: tensor.shape(), data: tensor.data() });
    }
    Ok(found)
}

/// Sizes by their name in the model, each with the input that had it first.
type Named<'m> = BTreeMap<&'m str, (&'m str, usize)>;

/// Takes the named sizes of an input in; fails where another input has another one. A size without a name is its own.
fn agree<'m>(sizes: &mut Named<'m>, input: &'m TensorInfo, shape: &[usize]) -> Result<(), SessionError> {
    for (dimension, size) in input.shape.iter().zip(shape) {
        let Dimension::Symbol(symbol) = dimension else { continue };
        if symbol.is_empty() {
            continue;
        }
        let (name, known) = *sizes.entry(symbol).or_insert((&input.name, *size));
        if known != *size {
            return Err(SessionError::InputSizes {
                symbol: symbol.clone(),
                first: (name.to_owned(), known),
                second: (input.name.clone(), *size),
            });
        }
    }
    Ok(())
}

/// Inputs one after another: `clip f32[batch, 3, 16, 224, 224] and boxes f32[R, 5]`.
pub(crate) fn in_words(inputs: &[TensorInfo]) -> String {
    let words: Vec<String> = inputs.iter().map(TensorInfo::to_string).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, shape: &[Dimension]) -> TensorInfo {
        TensorInfo { name: name.to_owned(), shape: shape.to_vec(), is_f32: true }
    }

    fn symbol(name: &str) -> Dimension {
        Dimension::Symbol(name.to_owned())
    }

    /// What a detector takes, and poses of the same batch.
    fn inputs() -> Vec<TensorInfo> {
        let size = Dimension::Size;
        vec![
            input("clip", &[symbol("batch"), size(2)]),
            input("boxes", &[symbol("R"), size(5)]),
            input("poses", &[symbol("batch"), symbol(""), symbol("")]),
        ]
    }

    fn told(given: &[(&str, &[usize])]) -> Result<Vec<String>, String> {
        let data = [0.0; 64];
        let given: Vec<NamedInput<'_>> = given
            .iter()
            .map(|(name, shape)| NamedInput::new(name, shape, &data[..shape.iter().product()]).unwrap())
            .collect();
        let found = feeds(&inputs(), &given).map_err(|error| error.to_string())?;
        Ok(found.iter().map(|feed| format!("{} {:?}", feed.name, feed.shape)).collect())
    }

    #[test]
    fn tensors_are_put_in_the_models_order() {
        let found = told(&[("poses", &[3, 1, 4]), ("boxes", &[7, 5]), ("clip", &[3, 2])]).unwrap();
        assert_eq!(found, ["clip [3, 2]", "boxes [7, 5]", "poses [3, 1, 4]"]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (clip, boxes, poses): (_, _, (&str, &[usize])) =
            (("clip", &[3, 2][..]), ("boxes", &[7, 5][..]), ("poses", &[3, 1, 4]));
        for (given, words) in [
            (
                &[clip, boxes][..],
                "nothing was given for the input `poses`; the model takes clip f32[batch, 2] and boxes",
            ),
            (
                &[clip, boxes, poses, ("box", &[1])],
                "no input `box`; it takes clip f32[batch, 2] and boxes f32[R, 5] and poses",
            ),
            (&[clip, boxes, poses, boxes], "the input `boxes` was given twice"),
            (&[clip, ("boxes", &[7, 4]), poses], "the input boxes f32[R, 5] was given a tensor of shape [7, 4]"),
            (&[clip, ("boxes", &[5]), poses], "the input boxes f32[R, 5] was given a tensor of shape [5]"),
            (&[clip, boxes, ("poses", &[2, 1, 4])], "`batch` is 3 in the input `clip` and 2 in the input `poses`"),
        ] {
            let told = told(given).unwrap_err();
            assert!(told.contains(words), "{words}: {told}");
        }
        let error = NamedInput::new("boxes", &[2, 5], &[0.0; 9]).unwrap_err().to_string();
        assert_eq!(error, "a tensor of shape [2, 5] for the input `boxes` has 9 values");
        assert!(NamedInput::new("boxes", &[0, 5], &[]).is_err());
    }
}
