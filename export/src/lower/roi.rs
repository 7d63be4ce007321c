//! `roi_align`.

use super::Lowering;
use crate::ExportError;
use crate::emit::{Attr, View};
use crate::names;
use crate::proto::tensor_proto::DataType;
use vjepa_compiler::ir::{Dim, Node};
use vjepa_compiler::ops::RoiSampling;

impl Lowering<'_, '_> {
    /// ONNX keeps the index of a box's sample apart from its corners.
    pub(super) fn roi_align(&mut self, node: &Node, size: usize, sampling: RoiSampling) -> Result<View, ExportError> {
        let (x, boxes) = (self.natural(node.inputs[0])?, self.natural(node.inputs[1])?);
        let scope = self.scope(node);
        let name = names::join(&scope, "roi_align");
        let mut columns = |from: i64, to: i64, what: &str| {
            let ints = [from, to, 1].map(|value| self.emit.ints(&[value]));
            let inputs = [&boxes.tensor, &ints[0], &ints[1], &ints[2]].map(String::as_str);
            let tensor = self.emit.node("Slice", &format!("{name}/{what}"), &inputs, &[]);
            let rows = boxes.shape.first().cloned().unwrap_or_default();
            View { tensor, shape: vec![rows, Dim::from((to - from) as usize)], scope: scope.clone() }
        };
        let (samples, corners) = (columns(0, 1, "samples"), columns(1, 5, "corners"));
        let rows = [samples.shape[0].clone()];
        let flat = self.reshaped(&samples, &rows, None)?;
        let cast = [("to", Attr::Int(DataType::Int64 as i64))];
        let index = self.emit.node("Cast", &format!("{name}/index"), &[&flat.tensor], &cast);
        let mode = if sampling.aligned { "half_pixel" } else { "output_half_pixel" };
        let attributes = [
            ("coordinate_transformation_mode", Attr::Text(mode)),
            ("mode", Attr::Text("avg")),
            ("output_height", Attr::Int(size as i64)),
            ("output_width", Attr::Int(size as i64)),
            ("sampling_ratio", Attr::Int(sampling.samples as i64)),
            ("spatial_scale", Attr::Float(sampling.scale as f32)),
        ];
        let tensor = self.emit.node("RoiAlign", &name, &[&x.tensor, &corners.tensor, &index], &attributes);
        Ok(View { tensor, shape: self.ty(node.outputs[0]).shape.clone(), scope })
    }
}
