//! What becomes of a probe's features and scores outside its graph.

/// Tokens `[B, N_i, D]` of several parts, joined along the tokens.
pub(super) fn side_by_side(parts: &[Vec<f32>], batch: usize) -> Vec<f32> {
    let sample = |b: usize| {
        parts.iter().flat_map(move |part| {
            let size = part.len() / batch.max(1);
            part.get(b * size..(b + 1) * size).unwrap_or_default()
        })
    };
    (0..batch).flat_map(sample).copied().collect()
}

pub(super) fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / total) as f32).collect()
}

/// Rows `[view, sample]` averaged over the views.
pub(super) fn mean_of_views(rows: &[Vec<f32>], batch: usize) -> Vec<f32> {
    let classes = rows.first().map_or(0, Vec::len);
    let views = (rows.len() / batch.max(1)).max(1);
    let value = |sample: usize, class: usize| {
        let of_views = rows.iter().skip(sample).step_by(batch.max(1)).filter_map(|row| row.get(class));
        of_views.sum::<f32>() / views as f32
    };
    (0..batch).flat_map(|sample| (0..classes).map(move |class| (sample, class))).map(|(s, c)| value(s, c)).collect()
}

/// Sigmoid focal loss with alpha 0.25 and gamma 2, summed over samples and classes.
pub(super) fn focal_loss(logits: &[f32], labels: &[usize]) -> f64 {
    let classes = logits.len() / labels.len().max(1);
    let rows = logits.chunks(classes.max(1)).zip(labels);
    let term = |logit: f32, wanted: bool| {
        let x = f64::from(if wanted { logit } else { -logit });
        let p = 1.0 / (1.0 + (-x).exp());
        let alpha = if wanted { 0.25 } else { 0.75 };
        -alpha * (1.0 - p).powi(2) * p.ln()
    };
    rows.flat_map(|(row, label)| row.iter().enumerate().map(move |(class, logit)| term(*logit, class == *label))).sum()
}
