//! How gRPC's messages are decoded: what a message may repeat is counted before memory is taken for it. An empty tensor is
//! two bytes on the wire and hundreds in memory.

use crate::error::InferError;
use crate::grpc::proto::ModelInferRequest;
use bytes::Buf;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::any::TypeId;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// A field that a message may repeat.
struct Repeated {
    tag: u32,
    name: &'static str,
    /// How often it may come.
    most: usize,
    inside: Inside,
}

/// What a field is.
enum Inside {
    /// Text, bytes or a message whose fields do not matter.
    Opaque,
    /// Whole numbers, which count by their bytes.
    Numbers,
    /// A message with fields of its own.
    Message(&'static [Repeated]),
}

const fn repeated(tag: u32, name: &'static str, most: usize, inside: Inside) -> Repeated {
    Repeated { tag, name, most, inside }
}

/// More tensors than any model has.
const TENSORS: usize = 64;
const PARAMETERS: usize = 64;

/// `ModelInferRequest` in `proto/inference.proto`.
const REQUEST: [Repeated; 4] = [
    repeated(4, "parameters", PARAMETERS, Inside::Opaque),
    repeated(5, "inputs", TENSORS, Inside::Message(&INPUT)),
    repeated(6, "outputs", TENSORS, Inside::Message(&OUTPUT)),
    repeated(7, "raw_input_contents", TENSORS, Inside::Opaque),
];

const INPUT: [Repeated; 3] = [
    repeated(3, "bytes of a shape", 256, Inside::Numbers),
    repeated(4, "parameters of an input", PARAMETERS, Inside::Opaque),
    repeated(5, "contents of an input", 1, Inside::Message(&CONTENTS)),
];

const OUTPUT: [Repeated; 1] = [repeated(2, "parameters of an output", PARAMETERS, Inside::Opaque)];

/// All but `fp32_contents`, whose numbers are no larger in memory.
const CONTENTS: [Repeated; 7] = [
    repeated(1, "bool_contents", 0, Inside::Opaque),
    repeated(2, "int_contents", 0, Inside::Opaque),
    repeated(3, "int64_contents", 0, Inside::Opaque),
    repeated(4, "uint_contents", 0, Inside::Opaque),
    repeated(5, "uint64_contents", 0, Inside::Opaque),
    repeated(7, "fp64_contents", 0, Inside::Opaque),
    repeated(8, "bytes_contents", 0, Inside::Opaque),
];

/// Prost's own words name fields of its tables; what helps is which message it should have been.
fn malformed(_: prost::DecodeError) -> InferError {
    InferError::Invalid(
        "the message is malformed; it must be one of `package inference` as the Open Inference Protocol's proto has it, \
         and reflection gives that away"
            .to_owned(),
    )
}

/// Counts what a message repeats; takes no memory.
///
/// # Errors
/// [`InferError::Invalid`] when it is more than may be, or the message is malformed.
fn check(mut message: &[u8], fields: &[Repeated]) -> Result<(), InferError> {
    let mut counts = [0usize; 8];
    while message.has_remaining() {
        let (tag, kind) = decode_key(&mut message).map_err(malformed)?;
        let before = message;
        skip_field(kind, tag, &mut message, DecodeContext::default()).map_err(malformed)?;
        let Some((field, count)) = fields.iter().zip(&mut counts).find(|(field, _)| field.tag == tag) else { continue };
        let mut part = before.get(..before.len() - message.len()).unwrap_or_default();
        *count += if matches!(field.inside, Inside::Numbers) { part.len() } else { 1 };
        if *count > field.most {
            let (name, most) = (field.name, field.most);
            return Err(InferError::Invalid(format!("the request has more {name} than the {most} allowed")));
        }
        if let (Inside::Message(fields), WireType::LengthDelimited) = (&field.inside, kind) {
            decode_varint(&mut part).map_err(malformed)?;
            check(part, fields)?;
        }
    }
    Ok(())
}

/// Prost's messages; a request for inference is counted before it is decoded.
pub(crate) struct Counted<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Counted<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for Counted<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CountedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountedDecoder(PhantomData)
    }
}

/// Decodes messages for [`Counted`].
pub(crate) struct CountedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for CountedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The only request with anything to repeat.
        if TypeId::of::<U>() == TypeId::of::<ModelInferRequest>() {
            check(buffer.chunk(), &REQUEST)?;
        }
        Ok(Some(U::decode(buffer).map_err(malformed)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::InferTensorContents;
    use crate::grpc::proto::model_infer_request::InferInputTensor;

    /// A field with these bytes, this many times.
    fn many(tag: u8, part: &[u8], times: usize) -> Vec<u8> {
        [&[tag << 3 | 2, part.len() as u8][..], part].concat().repeat(times)
    }

    #[test]
    fn what_is_repeated_is_counted() {
        let parameter = many(2, b"", 1);
        for (message, words) in [
            (many(4, &parameter, 65), "more parameters than the 64"),
            (many(5, b"", 65), "more inputs than the 64"),
            (many(6, b"", 65), "more outputs than the 64"),
            (many(7, b"", 65), "more raw_input_contents than the 64"),
            (many(6, &many(2, b"", 60), 1), ""),
            (many(5, &[3 << 3, 1].repeat(60), 1), ""),
            (many(5, &many(5, &many(8, b"", 1), 1), 1), "more bytes_contents than the 0"),
            (many(5, &many(5, &many(3, &[1], 1), 1), 1), "more int64_contents than the 0"),
            (many(5, &many(5, b"", 2), 1), "more contents of an input than the 1"),
            (many(9, b"", 1000), ""),
            (vec![0x2A, 5, 0], "malformed"),
        ] {
            let outcome = check(&message, &REQUEST).map_err(|error| error.to_string());
            let fits =
                outcome.as_ref().map_or_else(|error| !words.is_empty() && error.contains(words), |()| words.is_empty());
            assert!(fits, "{words}: {outcome:?}");
        }
        let input = InferInputTensor { shape: vec![-1; 30], ..InferInputTensor::default() };
        let message = ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() };
        assert!(check(&message.encode_to_vec(), &REQUEST).unwrap_err().to_string().contains("more bytes of a shape"));
    }

    #[test]
    fn requests_as_clients_make_them_pass() {
        let contents = Some(InferTensorContents { fp32_contents: vec![1.5; 4096], ..Default::default() });
        let input = InferInputTensor { shape: vec![8, 2, 3, 64, 384, 384], contents, ..InferInputTensor::default() };
        let message = ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() };
        check(&message.encode_to_vec(), &REQUEST).unwrap();
    }
}
