//! Attributes of operations by name: what the text form and the serialiser read and write.

use super::{Op, RoiSampling};
use crate::ir::{DType, Dim, Scalar, TensorType};

/// A named attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attribute {
    Number(f64),
    Scalar(Scalar),
    Count(usize),
    Flag(bool),
    DType(DType),
    Type(TensorType),
    Dim(Dim),
    Dims(Vec<Dim>),
    Axes(Vec<usize>),
}

/// Where an attribute is kept.
pub(crate) enum AttributeMut<'a> {
    Number(&'a mut f64),
    Scalar(&'a mut Scalar),
    Count(&'a mut usize),
    Flag(&'a mut bool),
    DType(&'a mut DType),
    Type(&'a mut TensorType),
    Dim(&'a mut Dim),
    Dims(&'a mut Vec<Dim>),
    Axes(&'a mut Vec<usize>),
}

impl AttributeMut<'_> {
    /// A copy of the value.
    pub fn get(&self) -> Attribute {
        match self {
            AttributeMut::Number(x) => Attribute::Number(**x),
            AttributeMut::Scalar(x) => Attribute::Scalar((**x).clone()),
            AttributeMut::Count(x) => Attribute::Count(**x),
            AttributeMut::Flag(x) => Attribute::Flag(**x),
            AttributeMut::DType(x) => Attribute::DType(**x),
            AttributeMut::Type(x) => Attribute::Type((**x).clone()),
            AttributeMut::Dim(x) => Attribute::Dim((**x).clone()),
            AttributeMut::Dims(x) => Attribute::Dims((**x).clone()),
            AttributeMut::Axes(x) => Attribute::Axes((**x).clone()),
        }
    }

    /// Stores `value`; false when it is of another kind.
    pub fn set(&mut self, value: Attribute) -> bool {
        match (self, value) {
            (AttributeMut::Number(to), Attribute::Number(x)) => **to = x,
            (AttributeMut::Scalar(to), Attribute::Scalar(x)) => **to = x,
            (AttributeMut::Count(to), Attribute::Count(x)) => **to = x,
            (AttributeMut::Flag(to), Attribute::Flag(x)) => **to = x,
            (AttributeMut::DType(to), Attribute::DType(x)) => **to = x,
            (AttributeMut::Type(to), Attribute::Type(x)) => **to = x,
            (AttributeMut::Dim(to), Attribute::Dim(x)) => **to = x,
            (AttributeMut::Dims(to), Attribute::Dims(x)) => **to = x,
            (AttributeMut::Axes(to), Attribute::Axes(x)) => **to = x,
            _ => return false,
        }
        true
    }
}

fn sampling_attributes(sampling: &mut RoiSampling) -> Vec<(&'static str, AttributeMut<'_>)> {
    let RoiSampling { scale, samples, aligned } = sampling;
    let (scale, samples) = (AttributeMut::Number(scale), AttributeMut::Count(samples));
    vec![("scale", scale), ("samples", samples), ("aligned", AttributeMut::Flag(aligned))]
}

impl Op {
    /// Name and place of every attribute, in printing order.
    pub(crate) fn attributes_mut(&mut self) -> Vec<(&'static str, AttributeMut<'_>)> {
        use AttributeMut as A;
        match self {
            Op::AddScalar(c) | Op::MulScalar(c) => vec![("c", A::Scalar(c))],
            Op::PowScalar(c) => vec![("c", A::Number(c))],
            Op::Cast(dtype) => vec![("dtype", A::DType(dtype))],
            Op::Sum { axes } | Op::Mean { axes } | Op::ReduceMax { axes } | Op::Permute { axes } => {
                vec![("axes", A::Axes(axes))]
            }
            Op::Full { value, ty } => vec![("value", A::Scalar(value)), ("ty", A::Type(ty))],
            Op::Iota { size } => vec![("size", A::Dim(size))],
            Op::Reshape { shape } | Op::Broadcast { shape } => vec![("shape", A::Dims(shape))],
            Op::Slice { axis, start, end } => {
                vec![("axis", A::Count(axis)), ("start", A::Dim(start)), ("end", A::Dim(end))]
            }
            Op::Pad { axis, before, after } => {
                vec![("axis", A::Count(axis)), ("before", A::Dim(before)), ("after", A::Dim(after))]
            }
            Op::Concat { axis } => vec![("axis", A::Count(axis))],
            Op::ScatterTokens { tokens } => vec![("tokens", A::Dim(tokens))],
            Op::Tubelets { tubelet, patch } | Op::PatchEmbed { tubelet, patch } => {
                vec![("tubelet", A::Count(tubelet)), ("patch", A::Count(patch))]
            }
            Op::Dropout { rate, place, axes } => {
                vec![("rate", A::Number(rate)), ("place", A::Count(place)), ("axes", A::Count(axes))]
            }
            Op::RoiAlign { size, sampling } => {
                [vec![("size", A::Count(size))], sampling_attributes(sampling)].into_iter().flatten().collect()
            }
            Op::RoiAlignGrad { shape, sampling } => {
                [vec![("shape", A::Dims(shape))], sampling_attributes(sampling)].into_iter().flatten().collect()
            }
            Op::MatMul { ta, tb } => vec![("ta", A::Flag(ta)), ("tb", A::Flag(tb))],
            Op::LayerNorm { eps } | Op::LayerNormGrad { eps } | Op::TokenL1 { eps } => vec![("eps", A::Number(eps))],
            Op::NarrowLayerNorm { eps, to } => vec![("eps", A::Number(eps)), ("to", A::DType(to))],
            Op::TokenL1Grad { eps, scale } => vec![("eps", A::Number(eps)), ("scale", A::Scalar(scale))],
            Op::Attention { scale } | Op::AttentionGrad { scale } => vec![("scale", A::Number(scale))],
            Op::PackedAttention { heads, scale, parts, .. } | Op::PackedAttentionGrad { heads, scale, parts, .. } => {
                vec![("heads", A::Count(heads)), ("scale", A::Number(scale)), ("parts", A::Dims(parts))]
            }
            Op::Rotate { transposed } => vec![("transposed", A::Flag(transposed))],
            Op::AdamW { beta1, beta2, eps }
            | Op::AdamWEma { beta1, beta2, eps }
            | Op::AdamWAll { beta1, beta2, eps, .. } => {
                vec![("beta1", A::Number(beta1)), ("beta2", A::Number(beta2)), ("eps", A::Number(eps))]
            }
            Op::Unary(_) | Op::Binary(_) | Op::GeluGrad | Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax => Vec::new(),
            Op::BiasGelu | Op::BiasGeluGrad { .. } | Op::AddWidened => Vec::new(),
            Op::GeluWithGrad | Op::SquaredNorm | Op::GatherTokens | Op::Linear | Op::Ema => Vec::new(),
            Op::AllReduce | Op::AllReduceStart | Op::AllReduceDone => Vec::new(),
        }
    }

    /// Names and values of the attributes, in printing order.
    pub(crate) fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.clone().attributes_mut().into_iter().map(|(name, place)| (name, place.get())).collect()
    }
}
