//! Probes on frozen features: the paper's attentive one, and a linear one on mean-pooled tokens.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use crate::config::{BlocksOn, ProbeConfig};
use crate::encoder::Encoder;
use crate::error::{ConfigError, ShapeError};
use crate::layers::{Block, LayerNorm, Linear, Mlp, attend, merge_heads, parameter, split_heads};
use crate::tuned::TunedHead;
use vjepa_recipe::finetune::Pooling;

/// Attention of a query over features.
#[derive(Module, Debug)]
pub struct CrossAttention {
    /// Of the query.
    pub q: Linear,
    /// Of the features: key, then value.
    pub kv: Linear,
    /// Part of the official state dict of V-JEPA's probes, but never applied there: it gets no gradient.
    pub proj: Option<Linear>,
    /// Heads.
    pub num_heads: usize,
}

impl CrossAttention {
    fn empty(config: &ProbeConfig, device: &Device) -> Self {
        let dim = config.embed_dim;
        Self {
            q: Linear::empty(dim, dim, device),
            kv: Linear::empty(dim, 2 * dim, device),
            proj: (config.blocks_on == BlocksOn::Query).then(|| Linear::empty(dim, dim, device)),
            num_heads: config.num_heads,
        }
    }

    /// Query `[B, Q, D]` over features `[B, N, D]`: `[B, Q, D]`.
    pub fn forward(&self, query: Tensor<3>, features: Tensor<3>) -> Tensor<3> {
        let dim = query.dims()[2];
        let q = split_heads(self.q.forward(query), self.num_heads); // [B, H, Q, D/H]
        let kv = self.kv.forward(features); // [B, N, 2D]
        let [k, v] = [0, 1].map(|i| split_heads(kv.clone().narrow(2, i * dim, dim), self.num_heads)); // [B, H, N, D/H]
        merge_heads(attend(q, k, v))
    }
}

/// Cross-attention with residual, norms and MLP. The query itself is not normalised.
#[derive(Module, Debug)]
pub struct CompleteBlock {
    /// Of the features.
    pub norm1: LayerNorm,
    /// Query over features.
    pub xattn: CrossAttention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
}

/// How the query reads the features.
// A model has only one of it, and Burn's `Module` does not support boxes.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum CrossAttentionBlock {
    /// As released.
    Complete(CompleteBlock),
    /// Attention only: no residual, norm or MLP.
    Bare(CrossAttention),
}

impl CrossAttentionBlock {
    fn empty(config: &ProbeConfig, device: &Device) -> Self {
        let dim = config.embed_dim;
        let xattn = CrossAttention::empty(config, device);
        if !config.complete_block {
            return Self::Bare(xattn);
        }
        Self::Complete(CompleteBlock {
            norm1: LayerNorm::empty(dim, config.eps, device),
            xattn,
            norm2: LayerNorm::empty(dim, config.eps, device),
            mlp: Mlp::empty(dim, config.mlp_dim(), device),
        })
    }

    /// Query `[B, Q, D]` over features `[B, N, D]`: `[B, Q, D]`.
    pub fn forward(&self, query: Tensor<3>, features: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Bare(xattn) => xattn.forward(query, features),
            Self::Complete(block) => {
                let q = query.clone() + block.xattn.forward(query, block.norm1.forward(features));
                q.clone() + block.mlp.forward(block.norm2.forward(q))
            }
        }
    }
}

/// Learned queries that read all features (`src/models/attentive_pooler.py`).
#[derive(Module, Debug)]
pub struct AttentivePooler {
    /// The queries `[1, Q, D]`: one for a classification.
    pub query_tokens: Param<Tensor<3>>,
    /// Query over features.
    pub cross_attention_block: CrossAttentionBlock,
    /// Self-attention over the pooled query or over the features, for a depth of more than 1.
    pub blocks: Vec<Block>,
    /// Whether the blocks come before the cross-attention.
    pub blocks_first: bool,
}

impl AttentivePooler {
    fn empty(config: &ProbeConfig, queries: usize, device: &Device) -> Self {
        let (dim, heads, hidden) = (config.embed_dim, config.num_heads, config.mlp_dim());
        Self {
            query_tokens: parameter([1, queries, dim], device),
            cross_attention_block: CrossAttentionBlock::empty(config, device),
            blocks: (1..config.depth).map(|_| Block::empty(dim, heads, hidden, config.eps, device)).collect(),
            blocks_first: config.blocks_on == BlocksOn::Features,
        }
    }

    /// `[B, N, D]` to `[B, Q, D]`.
    fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let [batch, _, dim] = features.dims();
        let query = self.query_tokens.val(); // [1, Q, D]
        let queries = query.dims()[1];
        let query = query.expand([batch, queries, dim]); // [B, Q, D]
        let through_blocks =
            |tokens: Tensor<3>| self.blocks.iter().fold(tokens, |tokens, block| block.forward(tokens, None));
        if self.blocks_first {
            return self.cross_attention_block.forward(query, through_blocks(features));
        }
        through_blocks(self.cross_attention_block.forward(query, features))
    }
}

/// Attentive pooling and a linear layer.
#[derive(Module, Debug)]
pub struct AttentiveClassifier {
    /// Features to one token.
    pub pooler: AttentivePooler,
    /// That token to logits.
    pub linear: Linear,
    #[module(skip)]
    config: ProbeConfig,
}

impl AttentiveClassifier {
    /// A probe whose parameters have no values yet; see [`Encoder::empty`].
    ///
    /// # Errors
    /// [`ConfigError`] for a configuration that is not valid.
    pub fn empty(config: &ProbeConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            pooler: AttentivePooler::empty(config, 1, device),
            linear: Linear::empty(config.embed_dim, config.num_classes, device),
            config: config.clone(),
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &ProbeConfig {
        &self.config
    }

    /// Features `f32[B, N, D]`, of one clip or of several concatenated along N, to logits `f32[B, classes]`.
    ///
    /// # Errors
    /// [`ShapeError`] for features of another width.
    pub fn forward(&self, features: Tensor<3>) -> Result<Tensor<2>, ShapeError> {
        let pooled = self.pool(features)?; // [B, 1, D]
        Ok(self.linear.forward(pooled.squeeze_dim::<2>(1))) // [B, D] to [B, classes]
    }

    /// Features `f32[B, N, D]` to one token `f32[B, 1, D]`.
    ///
    /// # Errors
    /// [`ShapeError`] for features of another width.
    pub fn pool(&self, features: Tensor<3>) -> Result<Tensor<3>, ShapeError> {
        check_features(&features, self.config.embed_dim)?;
        Ok(self.pooler.forward(features))
    }
}

/// Verb, noun and action of what happens next: three queries read the features, each for a classifier of its own
/// (`evals/action_anticipation_frozen/models.py`).
#[derive(Module, Debug)]
pub struct ActionClassifier {
    /// Features to three tokens: verb, noun, action.
    pub pooler: AttentivePooler,
    /// The first token to logits.
    pub verb_classifier: Linear,
    /// The second.
    pub noun_classifier: Linear,
    /// The third.
    pub action_classifier: Linear,
    #[module(skip)]
    dim: usize,
}

impl ActionClassifier {
    /// A probe whose parameters have no values yet, with these numbers of verbs, nouns and actions; the number of classes of
    /// `config` is not asked for.
    ///
    /// # Errors
    /// [`ConfigError`] for a configuration that is not valid.
    pub fn empty(config: &ProbeConfig, classes: [usize; 3], device: &Device) -> Result<Self, ConfigError> {
        for num_classes in classes {
            ProbeConfig { num_classes, ..config.clone() }.validate()?;
        }
        let dim = config.embed_dim;
        let [verb_classifier, noun_classifier, action_classifier] =
            classes.map(|classes| Linear::empty(dim, classes, device));
        let pooler = AttentivePooler::empty(config, 3, device);
        Ok(Self { pooler, verb_classifier, noun_classifier, action_classifier, dim })
    }

    /// Features `f32[B, N, D]`, of the clip and of the future, to the logits of verb, noun and action, `f32[B, classes]`.
    ///
    /// # Errors
    /// [`ShapeError`] for features of another width.
    pub fn forward(&self, features: Tensor<3>) -> Result<[Tensor<2>; 3], ShapeError> {
        check_features(&features, self.dim)?;
        let pooled = self.pooler.forward(features); // [B, 3, D]
        let heads = [&self.verb_classifier, &self.noun_classifier, &self.action_classifier];
        let mut at = 0;
        Ok(heads.map(|head| {
            let token = pooled.clone().narrow(1, at, 1).squeeze_dim::<2>(1); // [B, D]
            at += 1;
            head.forward(token)
        }))
    }
}

/// A linear layer on the mean token.
#[derive(Module, Debug)]
pub struct LinearProbe {
    /// Mean token to logits.
    pub linear: Linear,
    #[module(skip)]
    dim: usize,
}

impl LinearProbe {
    /// A probe whose parameters have no values yet.
    pub fn empty(embed_dim: usize, num_classes: usize, device: &Device) -> Self {
        Self { linear: Linear::empty(embed_dim, num_classes, device), dim: embed_dim }
    }

    /// Features `f32[B, N, D]` to logits `f32[B, classes]`.
    ///
    /// # Errors
    /// [`ShapeError`] for features of another width.
    pub fn forward(&self, features: Tensor<3>) -> Result<Tensor<2>, ShapeError> {
        check_features(&features, self.dim)?;
        Ok(self.linear.forward(features.mean_dim(1).squeeze_dim::<2>(1))) // [B, D] to [B, classes]
    }
}

fn check_features(features: &Tensor<3>, dim: usize) -> Result<(), ShapeError> {
    let dims = features.dims();
    ShapeError::require(dims[0] > 0 && dims[1] > 0 && dims[2] == dim, "the features", &dims, || {
        format!("[B, N, {dim}]")
    })
}

/// Features of several segments of the same videos: each clip `f32[B, C, T, H, W]` is encoded separately and the tokens are
/// concatenated in order, `f32[B, segments · N, D]` (`attend_across_segments` of the official evaluations).
///
/// # Errors
/// [`ShapeError`] without segments, or for a clip of another shape.
pub fn segment_features(encoder: &Encoder, segments: Vec<Tensor<5>>) -> Result<Tensor<3>, ShapeError> {
    ShapeError::require(!segments.is_empty(), "the segments", &[0], || "at least one clip".to_owned())?;
    let batch = segments[0].dims()[0];
    for segment in &segments {
        let dims = segment.dims();
        ShapeError::require(dims[0] == batch, "a segment", &dims, || format!("a batch of {batch}, like the first"))?;
    }
    let features = segments.into_iter().map(|clip| encoder.forward(clip, None)).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(features, 1)) // [B, segments · N, D]
}

/// Like [`segment_features`], for clips encoded in one batch: `f32[B · segments, N, D]`, with the segments of a video next to
/// each other, to `f32[B, segments · N, D]`.
///
/// # Errors
/// [`ShapeError`] if the batch is not a whole number of videos.
pub fn joined_segments(tokens: Tensor<3>, segments: usize) -> Result<Tensor<3>, ShapeError> {
    let dims = tokens.dims();
    ShapeError::require(segments > 0 && dims[0].is_multiple_of(segments), "the tokens", &dims, || {
        format!("[B * {segments}, N, D]")
    })?;
    Ok(tokens.reshape([dims[0] / segments, segments * dims[1], dims[2]]))
}

/// Like [`mean_probabilities`], for views in one batch: logits `f32[B · views, classes]`, with the views of a video next to
/// each other, to `f32[B, classes]`.
///
/// # Errors
/// [`ShapeError`] if the batch is not a whole number of videos.
pub fn averaged_views(logits: Tensor<2>, views: usize) -> Result<Tensor<2>, ShapeError> {
    let dims = logits.dims();
    ShapeError::require(views > 0 && dims[0].is_multiple_of(views), "the logits", &dims, || {
        format!("[B * {views}, classes]")
    })?;
    let each = softmax(logits, 1).reshape([dims[0] / views, views, dims[1]]);
    Ok(each.mean_dim(1).squeeze_dim::<2>(1))
}

/// Mean of the softmax of several views' logits, `f32[B, classes]` each: the prediction of a multi-view evaluation.
///
/// # Errors
/// [`ShapeError`] without views, or for views that differ in shape.
pub fn mean_probabilities(views: Vec<Tensor<2>>) -> Result<Tensor<2>, ShapeError> {
    ShapeError::require(!views.is_empty(), "the views", &[0], || "at least one view".to_owned())?;
    let dims = views[0].dims();
    for view in &views {
        ShapeError::require(view.dims() == dims, "a view", &view.dims(), || format!("{dims:?}, like the first"))?;
    }
    let share = 1.0 / views.len() as f64;
    let sum = views.into_iter().map(|logits| softmax(logits, 1)).reduce(|sum, view| sum + view);
    let Some(sum) = sum else { unreachable!("an empty list is refused above") };
    Ok(sum.mul_scalar(share))
}

/// A classifier on an encoder's tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// Attentive pooling, then a linear layer.
    Attentive(ProbeConfig),
    /// A linear layer on the mean token.
    Linear {
        /// Width of the tokens.
        embed_dim: usize,
        /// Number of classes.
        num_classes: usize,
    },
    /// The classifier of a fine-tuned encoder.
    Tuned(TunedHead),
}

impl Probe {
    /// Width of the tokens it reads.
    pub fn embed_dim(&self) -> usize {
        match self {
            Self::Attentive(config) => config.embed_dim,
            Self::Linear { embed_dim, .. } => *embed_dim,
            Self::Tuned(head) => head.embed_dim,
        }
    }

    /// Number of classes.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::Attentive(config) => config.num_classes,
            Self::Linear { num_classes, .. } => *num_classes,
            Self::Tuned(head) => head.num_classes,
        }
    }

    /// Whether it reads tokens after the encoder's final norm.
    pub fn reads_normed(&self) -> bool {
        match self {
            Self::Attentive(_) | Self::Linear { .. } => true,
            Self::Tuned(head) => head.pooling == Pooling::Norm,
        }
    }
}
