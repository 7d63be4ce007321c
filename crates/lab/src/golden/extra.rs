//! Position tables, their interpolation, GELU, and the deviations of the first weights.

use std::path::Path;

use serde::Deserialize;

use super::check::{Check, GoldenError, Limit, read_json};
use super::run::{Execution, run_once, values};
use super::sampled::Compare;
use vjepa_compiler::ir::{Dim, Graph, TensorType};
use vjepa_compiler::ops::Unary;
use vjepa_graphs::init::{self, Init};
use vjepa_graphs::position::{interpolate_bicubic, resize_table, sincos_1d, sincos_2d, sincos_3d};
use vjepa_graphs::{EncoderConfig, NamedTensors, PredictorConfig};
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

/// Of tables, and of GELU.
const TABLE: Limit = Limit::MaxAbs(1e-6);
/// Pixels and frames of a token of the interpolated tables.
const PATCH: usize = 16;
const TUBELET: usize = 2;

/// Compares with `extra.safetensors` and, where it is there, `stats.json`; masks are [`super::masks::check_extra`]'s.
pub(super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let golden = TensorFile::read(dir.join("extra.safetensors"))?;
    let mut checks = Vec::new();
    for name in golden.names() {
        if name.starts_with("causal.") || name == "gelu.x" {
            continue;
        }
        let got = if name == "gelu.y" { Some(gelu(execution, &golden)?) } else { table(name, golden.shape(name)?) };
        checks.push(match got {
            Some(values) => golden.compare(name, &values, TABLE)?.under("extra"),
            None => Check::unsupported(format!("extra.{name}"), "this program knows no rule for such a tensor"),
        });
    }
    let stats = dir.join("stats.json");
    if stats.exists() {
        check_init(&read_json(&stats)?, &mut checks);
    }
    Ok(checks)
}

/// GELU through a plan.
fn gelu(execution: Execution, golden: &TensorFile) -> Result<Vec<f32>, GoldenError> {
    let build = || {
        let mut graph = Graph::new("gelu", &["N"]);
        let x = graph.input("x", TensorType::f32([Dim::symbol("N")]))?;
        let y = graph.unary(Unary::Gelu, x)?;
        graph.output("y", y);
        Ok(graph)
    };
    let graph = build().map_err(|error: vjepa_compiler::ir::GraphError| GoldenError::Compile(error.into()))?;
    let data = golden.f32("gelu.x")?;
    let x = HostTensor::F32 { shape: vec![data.len()], data };
    values(&run_once(execution, &graph, &mut execution.params(), vec![("x", x)])?, "y")
}

/// The table a name describes; `None` for names of no known form, and for sizes other than those stored.
fn table(name: &str, shape: &[usize]) -> Option<Vec<f32>> {
    let (kind, description) = name.split_once('.')?;
    let numbers = numbers(description);
    // Compared before anything is computed, so that no name can ask for more than the file holds.
    let stored = |rows: &[usize], dim: usize| {
        let rows = rows.iter().try_fold(1usize, |rows, n| rows.checked_mul(*n));
        rows.and_then(|rows| rows.checked_mul(dim)) == Some(shape.iter().product()) && dim > 0
    };
    match (kind, &numbers[..]) {
        ("pos1d", &[dim, n]) if stored(&[n], dim) => {
            let positions: Vec<f64> = (0..n).map(|i| i as f64).collect();
            Some(sincos_1d(dim, &positions))
        }
        ("pos2d", &[dim, grid]) if stored(&[grid, grid], dim) => Some(sincos_2d(dim, [grid, grid])),
        ("pos3d", &[dim, grid, depth, uniform]) if stored(&[depth, grid, grid], dim) => {
            Some(sincos_3d(dim, [depth, grid, grid], uniform != 0))
        }
        ("interp_pos", &[side, frames, t, h, w, dim]) => {
            let to = [t / TUBELET, h / PATCH, w / PATCH];
            let from = [frames / TUBELET, side / PATCH, side / PATCH];
            if !stored(&to, dim) || from.iter().any(|n| !(1..=1024).contains(n)) || dim > 1 << 14 {
                return None;
            }
            let mut table = (vec![1, from.iter().product(), dim], sincos_3d(dim, from, true));
            resize_table(&mut table, from, to).ok()?;
            Some(table.1)
        }
        ("image_interp_pos", &[side, new, dim]) => {
            let [from, to] = [side / PATCH, new / PATCH];
            let fits = stored(&[to, to], dim) && (1..=1024).contains(&from) && to > 0;
            fits.then(|| interpolate_bicubic(&sincos_2d(dim, [from, from]), dim, [from, from], [to, to]))
        }
        _ => None,
    }
}

/// The numbers in a name, in order.
fn numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[derive(Deserialize)]
struct StatsJson {
    trunc_std: f64,
    trunc_absmax: f64,
    pretrain_init_proj_std_by_block: Vec<f64>,
    constructor_only_proj_std_by_block: Vec<f64>,
    pretrain_init_fc2_std_by_block: Vec<f64>,
    pred_proj_std_by_block: Vec<f64>,
    patch_embed_std: f64,
    patch_embed_bias_absmax: f64,
}

/// Deviations of weights drawn by other generators agree to a few per cent, as the official ones among themselves do.
const DRAWN: f64 = 0.05;
/// The largest of a million draws scatters more.
const LARGEST: f64 = 0.15;

fn check_init(stats: &StatsJson, checks: &mut Vec<Check>) {
    let depth = |by_block: &[f64]| by_block.len().clamp(1, 64);
    let config = EncoderConfig { depth: depth(&stats.pretrain_init_proj_std_by_block), ..EncoderConfig::small() };
    let official = init::encoder(&config, Init::Official, 0);
    let predictor = PredictorConfig::for_encoder(&config);
    let predictor = PredictorConfig { depth: depth(&stats.pred_proj_std_by_block), ..predictor };
    let predictor = init::predictor(&predictor, Init::Official, true, 0);
    let constructor = EncoderConfig { depth: depth(&stats.constructor_only_proj_std_by_block), ..config.clone() };
    let constructor = init::encoder(&constructor, Init::Constructor, 0);

    let weight = "blocks.0.mlp.fc1.weight";
    let mut scalar = |name: &str, got: f64, want: f64, limit: f64| {
        checks.push(Check::scalar_rel(format!("extra.init.{name}"), got, want, limit));
    };
    scalar("weight_std", deviation(&official, weight), stats.trunc_std, DRAWN);
    scalar("weight_absmax", largest(&official, weight), stats.trunc_absmax, LARGEST);
    scalar("patch_embed_std", deviation(&official, "patch_embed.proj.weight"), stats.patch_embed_std, DRAWN);
    scalar("patch_embed_bias_absmax", largest(&official, "patch_embed.proj.bias"), stats.patch_embed_bias_absmax, 0.0);
    for (name, tensors, weight, want) in [
        ("attn.proj", &official, "blocks.{}.attn.proj.weight", &stats.pretrain_init_proj_std_by_block),
        ("mlp.fc2", &official, "blocks.{}.mlp.fc2.weight", &stats.pretrain_init_fc2_std_by_block),
        (
            "constructor.attn.proj",
            &constructor,
            "blocks.{}.attn.proj.weight",
            &stats.constructor_only_proj_std_by_block,
        ),
        ("predictor.attn.proj", &predictor, "predictor_blocks.{}.attn.proj.weight", &stats.pred_proj_std_by_block),
    ] {
        let block = |i: usize| deviation(tensors, &weight.replace("{}", &i.to_string()));
        let got: Vec<f64> = (0..want.len()).map(block).collect();
        checks.push(Check::series_rel(format!("extra.init.{name}_std"), &got, want, DRAWN));
    }
}

fn deviation(tensors: &NamedTensors, name: &str) -> f64 {
    let Some((_, values)) = tensors.get(name) else { return f64::NAN };
    (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

fn largest(tensors: &NamedTensors, name: &str) -> f64 {
    let Some((_, values)) = tensors.get(name) else { return f64::NAN };
    values.iter().map(|&v| f64::from(v.abs())).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_describe_tables() {
        assert_eq!(numbers("64x8_to_T12_H96_W80.dim48"), [64, 8, 12, 96, 80, 48]);
        assert_eq!(table("pos1d.dim4.n2", &[2, 4]).unwrap().len(), 8);
        assert_eq!(table("pos1d.dim4.n2", &[3, 4]), None);
        assert_eq!(table("pos1d.dim4000000000.n4000000000", &[2, 4]), None);
        assert_eq!(table("interp_pos.0x0_to_T2_H16_W16.dim8", &[1, 1, 8]), None);
        assert_eq!(table("other", &[1]), None);
    }
}
