//! Where the query of an attentive probe looks.

/// The weights of a probe's cross-attention, by their names in the official state dict below
/// `pooler.cross_attention_block.` (`src/models/utils/modules.py`), all row-major.
#[derive(Clone, Copy, Debug)]
pub struct QueryAttention<'a> {
    /// The query `[D]` (`pooler.query_tokens`).
    pub query: &'a [f32],
    /// Norm of the tokens, weight and bias `[D]` (`norm1`); none where the block has only attention.
    pub norm: Option<[&'a [f32]; 2]>,
    /// Of the query, weight `[D, D]` and bias `[D]` (`xattn.q`).
    pub q: [&'a [f32]; 2],
    /// Of the tokens, weight `[2 D, D]` and bias `[2 D]`, of which the first half makes keys (`xattn.kv`).
    pub kv: [&'a [f32]; 2],
    /// Heads `H`.
    pub heads: usize,
    /// Added to variances in the norm.
    pub eps: f64,
}

impl QueryAttention<'_> {
    /// How much each head takes of each of `tokens` `[N, D]`: `[H, N]`, whose rows each sum to 1. None where sizes do not fit
    /// together.
    pub fn over(&self, tokens: &[f32]) -> Option<Vec<f32>> {
        let dim = self.query.len();
        let size = dim.checked_div(self.heads).filter(|size| *size > 0 && size * self.heads == dim)?;
        let fits = |[weight, bias]: [&[f32]; 2], rows: usize| weight.len() == rows * dim && bias.len() == rows;
        let norm_fits = self.norm.is_none_or(|[weight, bias]| weight.len() == dim && bias.len() == dim);
        if !fits(self.q, dim) || !fits(self.kv, 2 * dim) || !norm_fits || !tokens.len().is_multiple_of(dim) {
            return None;
        }
        let query = linear(self.query.iter().copied().map(f64::from).collect(), self.q, dim);
        let scale = 1.0 / (size as f64).sqrt();
        let mut scores = vec![Vec::with_capacity(tokens.len() / dim); self.heads];
        for token in tokens.chunks_exact(dim) {
            let key = linear(self.normed(token), self.kv, dim);
            let heads = query.chunks_exact(size).zip(key.chunks_exact(size));
            for (scores, (query, key)) in scores.iter_mut().zip(heads) {
                scores.push(scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>());
            }
        }
        Some(scores.into_iter().flat_map(softmax).collect())
    }

    fn normed(&self, token: &[f32]) -> Vec<f64> {
        let values: Vec<f64> = token.iter().copied().map(f64::from).collect();
        let Some([weight, bias]) = self.norm else { return values };
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let by = 1.0 / (variance + self.eps).sqrt();
        let affine = values.iter().zip(weight).zip(bias);
        affine.map(|((value, weight), bias)| (value - mean) * by * f64::from(*weight) + f64::from(*bias)).collect()
    }
}

/// The first `rows` outputs of a linear layer.
fn linear(x: Vec<f64>, [weight, bias]: [&[f32]; 2], rows: usize) -> Vec<f64> {
    let row = |(weight, bias): (&[f32], &f32)| {
        weight.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(*bias)
    };
    weight.chunks_exact(x.len().max(1)).zip(bias).take(rows).map(row).collect()
}

fn softmax(scores: Vec<f64>) -> Vec<f32> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.iter().map(|part| (part / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, by: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * by).sin()).collect()
    }

    #[test]
    fn weights_are_those_of_torch() {
        let (query, tokens) = (values(4, 0.7), values(12, 0.3));
        let (weight, bias) = (values(4, 0.9), values(4, 1.1));
        let (q, q_bias, kv, kv_bias) = (values(16, 0.37), values(4, 0.5), values(32, 0.23), values(8, 0.6));
        let attention = QueryAttention {
            query: &query,
            norm: Some([&weight, &bias]),
            q: [&q, &q_bias],
            kv: [&kv, &kv_bias],
            heads: 2,
            eps: 1e-5,
        };
        let found = attention.over(&tokens).unwrap();
        // layer_norm, linear and softmax of PyTorch 2 in float64 on the same numbers.
        let expected: [f32; 6] = [0.630086, 0.3497851, 0.02012882, 0.4116092, 0.2358333, 0.3525574];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let sums: Vec<f32> = found.chunks_exact(3).map(|row| row.iter().sum()).collect();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6));
        assert_eq!(attention.over(&tokens[..7]), None);
        assert_eq!(QueryAttention { heads: 3, ..attention }.over(&tokens), None);
        assert_eq!(QueryAttention { kv: [&q, &q_bias], ..attention }.over(&tokens), None);
    }
}
