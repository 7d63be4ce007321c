//! The `finetune` section: training an encoder and a classifier on labelled clips, end to end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::draws::{DRAWS, draws};
pub use crate::finetune::Pooling;

/// Which clips and crops of a video a fine-tuned model is tested on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestSampling {
    /// Clips of every `data.sampling_rate`-th frame, with evenly spaced starts (VideoMAE on Kinetics: 5 segments, 3 crops).
    #[default]
    Strided,
    /// Two clips whose frames alternate over the whole video (VideoMAE on Something-Something: 2 segments, 3 crops).
    Dealt,
    /// Clips and views as in frozen evaluation, `vjepa eval` and `vjepa run`.
    Frozen,
}

/// The `finetune` section: an encoder and a classifier trained end to end on labelled clips (`vjepa finetune`). Keys have the
/// names of VideoMAE's arguments, which V-JEPA's paper uses. Learning rates, epochs, batch and clips are in their usual
/// sections, whose defaults in a file with this section are those of the paper's table 8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneConfig {
    /// Labelled videos to test on after training (`.csv` or `.txt`, one `path label` per line); null: none.
    #[schemars(extend("x-ours" = true))]
    pub val: Option<String>,
    /// Share of each class of `data.datasets` to train on, above 0 and at most 1, with at least one video of each class; null:
    /// all.
    #[schemars(extend("x-ours" = true))]
    pub subset: Option<f64>,
    /// Seed of the one random draw of `subset` that is trained on, in `logging.folder` itself: the same draws as those of
    /// `vjepa data subset --split` and `vjepa probe --subset`; null: the first `subset_splits` draws.
    #[schemars(extend("x-ours" = true))]
    pub subset_split: Option<u64>,
    /// Draws of `subset`, with the seeds from 0; each is trained in a folder of its own in `logging.folder`, and their tests
    /// are averaged.
    #[schemars(extend("x-ours" = true))]
    pub subset_splits: u32,
    /// Names of the classes; if empty, the labels that occur in `data.datasets`, in order.
    #[schemars(extend("x-ours" = true))]
    pub class_names: Vec<String>,
    /// Label of the first class in the lists.
    #[schemars(extend("x-ours" = true))]
    pub labels_from: i64,
    /// How the tokens become one vector.
    #[schemars(extend("x-ours" = true))]
    pub pooling: Pooling,
    /// Factor on the classifier's initial weights.
    #[schemars(extend("x-ours" = true))]
    pub init_scale: f64,
    /// Factor on the learning rate from each layer to the one before it.
    #[schemars(extend("x-ours" = true))]
    pub layer_decay: f64,
    /// Probability that a branch of the last block is dropped; it falls linearly to 0 at the first block.
    #[schemars(extend("x-ours" = true))]
    pub drop_path: f64,
    /// Dropout probability of the mean token's values.
    #[schemars(extend("x-ours" = true))]
    pub fc_drop_rate: f64,
    /// Alpha of mixup; 0: off.
    #[schemars(extend("x-ours" = true))]
    pub mixup: f64,
    /// Alpha of cutmix; 0: off.
    #[schemars(extend("x-ours" = true))]
    pub cutmix: f64,
    /// Share of batches that are mixed.
    #[schemars(extend("x-ours" = true))]
    pub mixup_prob: f64,
    /// Share of mixed batches that use cutmix, if both are on.
    #[schemars(extend("x-ours" = true))]
    pub mixup_switch_prob: f64,
    /// Label smoothing.
    #[schemars(extend("x-ours" = true))]
    pub smoothing: f64,
    /// How often each decoded clip is augmented; all results are in the batch, which is that many times larger.
    #[schemars(extend("x-ours" = true))]
    pub num_sample: u32,
    /// Learning rates are given for 256 videos per step and scaled to the batch, as in VideoMAE.
    #[schemars(extend("x-ours" = true))]
    pub scale_lr: bool,
    /// How the clips of the test are chosen.
    #[schemars(extend("x-ours" = true))]
    pub test_sampling: TestSampling,
    /// Clips per video in the test.
    #[schemars(extend("x-ours" = true))]
    pub test_num_segment: usize,
    /// Crops per clip in the test, spread along the long side.
    #[schemars(extend("x-ours" = true))]
    pub test_num_crop: usize,
}

impl Default for FinetuneConfig {
    fn default() -> Self {
        Self {
            val: None,
            subset: None,
            subset_split: None,
            subset_splits: DRAWS,
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

impl FinetuneConfig {
    /// Seeds of the random draws of `subset` that are trained on; none where all is.
    pub fn draws(&self) -> Vec<u64> {
        self.subset.map(|_| draws(self.subset_split, Some(self.subset_splits))).unwrap_or_default()
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
