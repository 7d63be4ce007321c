//! The finished model: outputs under their names, inputs and outputs with their types.

use super::Lowering;
use crate::emit::CONTRIB;
use crate::proto::tensor_shape_proto::dimension;
use crate::proto::type_proto::{self, Value};
use crate::proto::{
    GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto,
};
use crate::weights::data_type;
use crate::{ExportError, OnnxModel};
use std::collections::BTreeSet;
use vjepa_compiler::ir::{Dim, TensorType};

impl<'w> Lowering<'_, 'w> {
    pub(super) fn finish(mut self) -> Result<OnnxModel<'w>, ExportError> {
        let mut taken = BTreeSet::new();
        for (name, id) in &self.graph.outputs {
            let view = self.natural(*id)?;
            // A tensor has one name: a second output of it, an input or a constant needs a node to carry the name.
            if taken.contains(&view.tensor) || !self.emit.rename(&view.tensor, name) {
                let tensor = self.emit.node("Identity", &format!("{name}/identity"), &[&view.tensor], &[]);
                self.emit.rename(&tensor, name);
            } else {
                for other in self.views.values_mut().filter(|other| other.tensor == view.tensor) {
                    name.clone_into(&mut other.tensor);
                }
            }
            taken.insert(name.clone());
        }
        let graph = self.graph;
        let batch =
            graph.inputs.first().and_then(|id| graph.ty(*id).shape.first()).filter(|dim| dim.as_const().is_none());
        let info = |name: &str, ty: &TensorType| ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(type_proto(ty, batch, self.options.batch)),
            ..ValueInfoProto::default()
        };
        let inputs = graph.inputs.iter().map(|id| info(graph.source_name(*id).unwrap_or_default(), graph.ty(*id)));
        let outputs = graph.outputs.iter().map(|(name, id)| info(name, graph.ty(*id)));
        let operators =
            |domain: &str, version| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) };
        let contrib = self.emit.contrib.then(|| operators(CONTRIB, 1));
        let model = ModelProto {
            ir_version: Some(self.options.ir_version()),
            opset_import: std::iter::once(operators("", self.options.opset)).chain(contrib).collect(),
            producer_name: Some("vjepa".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            metadata_props: self.options.metadata.iter().map(|(key, value)| entry(key, value)).collect(),
            graph: Some(GraphProto {
                name: Some(graph.name.clone()),
                input: inputs.collect(),
                output: outputs.collect(),
                node: self.emit.nodes,
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        Ok(OnnxModel::new(model, self.emit.initializers, self.weights, self.options.external_data))
    }
}

fn type_proto(ty: &TensorType, batch: Option<&Dim>, fixed: Option<usize>) -> TypeProto {
    let dims = ty.shape.iter().map(|dim| tensor_shape_proto::Dimension {
        value: Some(match dim.as_const() {
            Some(size) => dimension::Value::DimValue(size),
            None if let Some(size) = fixed_size(dim, fixed) => dimension::Value::DimValue(size),
            None if Some(dim) == batch => dimension::Value::DimParam("batch".to_owned()),
            None => dimension::Value::DimParam(dim.to_string()),
        }),
        ..tensor_shape_proto::Dimension::default()
    });
    TypeProto {
        value: Some(Value::TensorType(type_proto::Tensor {
            elem_type: Some(data_type(ty.dtype) as i32),
            shape: Some(TensorShapeProto { dim: dims.collect() }),
        })),
        ..TypeProto::default()
    }
}

/// The size of a dimension when there is one symbol in it, and that is `batch`.
fn fixed_size(dim: &Dim, batch: Option<usize>) -> Option<i64> {
    let terms = dim.terms().flat_map(|(symbols, _)| symbols);
    let size = dim.eval(&terms.map(|symbol| (symbol.clone(), batch.unwrap_or(0))).collect());
    size.filter(|_| batch.is_some()).and_then(|size| i64::try_from(size).ok())
}

pub(crate) fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}
