//! The `finetune` section: training an encoder and a classifier on labelled clips, end to end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::finetune::Pooling;

/// Which clips and crops of a video a fine-tuned model is tested on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestSampling {
    /// Clips of every `data.sampling_rate`-th frame, their starts at even distances (VideoMAE on Kinetics: 5 segments, 3 crops).
    #[default]
    Strided,
    /// Two clips of frames dealt out over the whole video (VideoMAE on Something-Something: 2 segments, 3 crops).
    Dealt,
    /// Clips and views as the frozen evaluation, `vjepa eval` and `vjepa run` take them.
    Frozen,
}

/// The `finetune` section: an encoder and a classifier trained end to end on labelled clips (`vjepa finetune`). Keys are
/// named as VideoMAE's arguments, whose names V-JEPA's paper uses; learning rates, epochs, batch and clips stand in their usual
/// sections. A file with this section has fine-tuning's defaults there, those of the paper's table 8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneConfig {
    /// Labelled videos to test on when training is done (`.csv` or `.txt`, one `path label` per line); null: none.
    #[schemars(extend("x-ours" = true))]
    pub val: Option<String>,
    /// Share of each class of `data.datasets` that is trained on, above 0 and at most 1, at least one video of each class; null: all.
    #[schemars(extend("x-ours" = true))]
    pub subset: Option<f64>,
    /// Number of the random draw of `subset`, the same that `vjepa data subset --split` and `vjepa probe --subset` make.
    #[schemars(extend("x-ours" = true))]
    pub subset_split: u64,
    /// Names of the classes; empty: the labels that occur in `data.datasets`, in order.
    #[schemars(extend("x-ours" = true))]
    pub class_names: Vec<String>,
    /// Label of the first class in the lists.
    #[schemars(extend("x-ours" = true))]
    pub labels_from: i64,
    /// What the mean token is taken of and how it is normed: `fc_norm`, a new norm on the mean of the last block's tokens, or
    /// `norm`, the encoder's own norm before the mean.
    #[schemars(extend("x-ours" = true))]
    pub pooling: Pooling,
    /// Factor on the classifier's first weights.
    #[schemars(extend("x-ours" = true))]
    pub init_scale: f64,
    /// Factor on the learning rate from one layer to the layer before it.
    #[schemars(extend("x-ours" = true))]
    pub layer_decay: f64,
    /// Probability that a branch of the last block is dropped; it falls to 0 at the first block.
    #[schemars(extend("x-ours" = true))]
    pub drop_path: f64,
    /// Probability that a value of the mean token is dropped.
    #[schemars(extend("x-ours" = true))]
    pub fc_drop_rate: f64,
    /// Alpha of mixup; 0: none.
    #[schemars(extend("x-ours" = true))]
    pub mixup: f64,
    /// Alpha of cutmix; 0: none.
    #[schemars(extend("x-ours" = true))]
    pub cutmix: f64,
    /// Share of batches that are mixed.
    #[schemars(extend("x-ours" = true))]
    pub mixup_prob: f64,
    /// Share of cutmix where there are both.
    #[schemars(extend("x-ours" = true))]
    pub mixup_switch_prob: f64,
    /// Label smoothing.
    #[schemars(extend("x-ours" = true))]
    pub smoothing: f64,
    /// Times each decoded clip is augmented; all stand in the batch, which is as many times larger.
    #[schemars(extend("x-ours" = true))]
    pub num_sample: u32,
    /// Learning rates are for 256 videos per step and scaled to the batch, as VideoMAE does.
    #[schemars(extend("x-ours" = true))]
    pub scale_lr: bool,
    /// How the clips of a test are chosen.
    #[schemars(extend("x-ours" = true))]
    pub test_sampling: TestSampling,
    /// Clips of a video in a test.
    #[schemars(extend("x-ours" = true))]
    pub test_num_segment: usize,
    /// Crops of a clip in a test, spread along the long side.
    #[schemars(extend("x-ours" = true))]
    pub test_num_crop: usize,
}

impl Default for FinetuneConfig {
    fn default() -> Self {
        Self {
            val: None,
            subset: None,
            subset_split: 0,
            class_names: Vec::new(),
            labels_from: 0,
            pooling: Pooling::default(),
            init_scale: 0.001,
            layer_decay: 0.8,
            drop_path: 0.2,
            fc_drop_rate: 0.5,
            mixup: 0.8,
            cutmix: 1.0,
            mixup_prob: 1.0,
            mixup_switch_prob: 0.5,
            smoothing: 0.1,
            num_sample: 2,
            scale_lr: true,
            test_sampling: TestSampling::default(),
            test_num_segment: 5,
            test_num_crop: 3,
        }
    }
}

/// Settings of other sections where a file with a `finetune` section leaves them out, as `--set` takes them.
pub(super) const DEFAULTS: [&str; 15] = [
    "optimization.ipe=null",
    "optimization.ipe_scale=1.0",
    "optimization.clip_grad=null",
    "optimization.weight_decay=0.05",
    "optimization.final_weight_decay=0.05",
    "optimization.epochs=35",
    "optimization.warmup=5.0",
    "optimization.start_lr=0.0",
    "optimization.lr=3e-4",
    "optimization.final_lr=1e-6",
    "data_aug.auto_augment=true",
    "data_aug.reprob=0.25",
    "data_aug.random_resize_scale=[0.08, 1.0]",
    "data_aug.random_resize_aspect_ratio=[0.75, 1.3333333333333333]",
    "logging.write_tag=finetune",
];
