//! `config.json` of V-JEPA 2 in Hugging Face's format: obeyed where tensors say nothing, compared with them where they do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{EncoderLayout, ModelFile, PredictorLayout, ProbeLayout};

/// The keys that matter to a model, with the library's own defaults; others are ignored, as older versions wrote more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HfConfig {
    pub architectures: Vec<String>,
    attention_dropout: f64,
    attention_probs_dropout_prob: f64,
    pub crop_size: usize,
    drop_path_rate: f64,
    /// The numbers' type; earlier versions call it `torch_dtype`.
    #[serde(alias = "torch_dtype")]
    dtype: Option<String>,
    pub frames_per_clip: usize,
    hidden_act: String,
    hidden_size: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    id2label: BTreeMap<String, String>,
    in_chans: usize,
    initializer_range: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    label2id: BTreeMap<String, usize>,
    layer_norm_eps: f64,
    mlp_ratio: f64,
    pub model_type: String,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    num_pooler_layers: usize,
    pub patch_size: usize,
    pred_hidden_size: usize,
    pred_mlp_ratio: f64,
    pred_num_attention_heads: usize,
    pred_num_hidden_layers: usize,
    pred_num_mask_tokens: usize,
    pred_zero_init_mask_tokens: bool,
    qkv_bias: bool,
    pub tubelet_size: usize,
}

/// What `model_type` says.
pub(super) const MODEL_TYPE: &str = "vjepa2";

impl Default for HfConfig {
    fn default() -> Self {
        Self {
            architectures: Vec::new(),
            attention_dropout: 0.0,
            attention_probs_dropout_prob: 0.0,
            crop_size: 256,
            drop_path_rate: 0.0,
            dtype: None,
            frames_per_clip: 64,
            hidden_act: "gelu".to_owned(),
            hidden_size: 1024,
            id2label: BTreeMap::new(),
            in_chans: 3,
            initializer_range: 0.02,
            label2id: BTreeMap::new(),
            layer_norm_eps: 1e-6,
            mlp_ratio: 4.0,
            model_type: String::new(),
            num_attention_heads: 16,
            num_hidden_layers: 24,
            num_pooler_layers: 3,
            patch_size: 16,
            pred_hidden_size: 384,
            pred_mlp_ratio: 4.0,
            pred_num_attention_heads: 12,
            pred_num_hidden_layers: 12,
            pred_num_mask_tokens: 10,
            pred_zero_init_mask_tokens: true,
            qkv_bias: true,
            tubelet_size: 2,
        }
    }
}

impl HfConfig {
    /// Whether a text is of such a file, usable or not.
    pub fn is(text: &str) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            model_type: String,
        }
        serde_json::from_str::<Kind>(text).is_ok_and(|kind| kind.model_type == MODEL_TYPE)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// What is wrong with it, to follow the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_json::from_str(text).map_err(|error| format!("cannot be read: {error}"))?;
        if config.model_type.is_empty() {
            return Err("has no `model_type`".to_owned());
        }
        if config.model_type != MODEL_TYPE {
            let found = crate::names::shortened(&config.model_type);
            return Err(format!("has `model_type: {found}`, not `{MODEL_TYPE}`"));
        }
        if config.hidden_act != "gelu" {
            let found = crate::names::shortened(&config.hidden_act);
            return Err(format!("has `hidden_act: {found}`; V-JEPA 2's activation is `gelu`"));
        }
        for (key, eps) in [("layer_norm_eps", config.layer_norm_eps), ("mlp_ratio", config.mlp_ratio)] {
            if !eps.is_finite() || eps <= 0.0 {
                return Err(format!("has `{key}: {eps}`, which must be above 0"));
            }
        }
        Ok(config)
    }

    /// Hidden size and blocks, for a message about a folder whose tensors cannot be read.
    pub fn name(&self) -> String {
        format!("V-JEPA 2 ({} wide, {} blocks)", self.hidden_size, self.num_hidden_layers)
    }

    /// Completes `model` by what tensors do not show.
    ///
    /// # Errors
    /// The first key that tensors contradict, to follow the file's name.
    pub fn describe(&self, model: &mut ModelFile) -> Result<(), String> {
        if !self.qkv_bias {
            return Err("says `qkv_bias` false: V-JEPA 2's queries, keys and values have biases".to_owned());
        }
        if let Some(encoder) = &mut model.encoder {
            let EncoderLayout { embed_dim, depth, mlp_dim, channels, tubelet, patch, .. } = *encoder;
            agree("hidden_size", self.hidden_size, embed_dim)?;
            agree("num_hidden_layers", self.num_hidden_layers, depth)?;
            agree("mlp_ratio (hidden width)", vjepa_recipe::config::mlp_dim(embed_dim, self.mlp_ratio), mlp_dim)?;
            agree("in_chans", self.in_chans, channels)?;
            agree("tubelet_size", self.tubelet_size, tubelet)?;
            agree("patch_size", self.patch_size, patch)?;
            encoder.num_heads = Some(self.num_attention_heads);
            encoder.layer_norm_eps = self.layer_norm_eps;
        }
        if let Some(predictor) = &mut model.predictor {
            let PredictorLayout { embed_dim, depth, mlp_dim, mask_tokens, .. } = *predictor;
            agree("pred_hidden_size", self.pred_hidden_size, embed_dim)?;
            agree("pred_num_hidden_layers", self.pred_num_hidden_layers, depth)?;
            agree(
                "pred_mlp_ratio (hidden width)",
                vjepa_recipe::config::mlp_dim(embed_dim, self.pred_mlp_ratio),
                mlp_dim,
            )?;
            agree("pred_num_mask_tokens", self.pred_num_mask_tokens, mask_tokens)?;
            predictor.num_heads = Some(self.pred_num_attention_heads);
            predictor.layer_norm_eps = self.layer_norm_eps;
        }
        if let Some(probe) = &mut model.probe {
            self.describe_probe(probe)?;
        }
        Ok(())
    }

    fn describe_probe(&self, probe: &mut ProbeLayout) -> Result<(), String> {
        agree("num_pooler_layers", self.num_pooler_layers, probe.blocks.unwrap_or(0))?;
        agree(
            "mlp_ratio (hidden width)",
            vjepa_recipe::config::mlp_dim(probe.embed_dim, self.mlp_ratio),
            probe.mlp_dim,
        )?;
        let classes = probe.heads.first().map_or(0, |(_, classes)| *classes);
        if !self.id2label.is_empty() {
            agree("id2label (classes)", self.id2label.len(), classes)?;
            let label = |number: usize| self.id2label.get(&number.to_string()).cloned();
            let labels: Option<Vec<String>> = (0..classes).map(label).collect();
            probe.labels = labels.ok_or("numbers the classes of `id2label` otherwise than from 0")?;
        }
        probe.num_heads = Some(self.num_attention_heads);
        probe.layer_norm_eps = self.layer_norm_eps;
        Ok(())
    }

    /// The configuration of a model of V-JEPA 2 whose clips are `frames` frames of `crop` pixels, with numbers of type
    /// `dtype`.
    ///
    /// # Errors
    /// What such a configuration cannot say of the model.
    pub fn of(model: &ModelFile, frames: usize, crop: usize, dtype: &str) -> Result<Self, String> {
        let (Some(encoder), Some(predictor)) = (&model.encoder, &model.predictor) else {
            return Err("it lacks the encoder or the predictor, and Hugging Face's models have both".to_owned());
        };
        let heads = |heads: Option<usize>, what: &str| {
            heads.ok_or_else(|| format!("the number of its {what}'s attention heads is not known; give --config"))
        };
        let ratio = |hidden: usize, width: usize| hidden as f64 / width.max(1) as f64;
        let sizes = encoder.sizes().map_or(ratio(encoder.mlp_dim, encoder.embed_dim), |sizes| sizes.mlp_ratio);
        let mut config = Self {
            architectures: vec!["VJEPA2Model".to_owned()],
            crop_size: crop,
            dtype: Some(dtype.to_owned()),
            frames_per_clip: frames,
            hidden_size: encoder.embed_dim,
            in_chans: encoder.channels,
            layer_norm_eps: encoder.layer_norm_eps,
            mlp_ratio: sizes,
            model_type: MODEL_TYPE.to_owned(),
            num_attention_heads: heads(encoder.num_heads, "encoder")?,
            num_hidden_layers: encoder.depth,
            patch_size: encoder.patch,
            pred_hidden_size: predictor.embed_dim,
            pred_mlp_ratio: ratio(predictor.mlp_dim, predictor.embed_dim),
            pred_num_attention_heads: heads(predictor.num_heads, "predictor")?,
            pred_num_hidden_layers: predictor.depth,
            pred_num_mask_tokens: predictor.mask_tokens,
            tubelet_size: encoder.tubelet,
            ..Self::default()
        };
        if let Some(probe) = &model.probe {
            config.add_probe(probe)?;
        }
        // Reading it again is the test of what it cannot say.
        let mut again = model.clone();
        config.describe(&mut again).map_err(|why| format!("Hugging Face's config.json {why}"))?;
        Ok(config)
    }

    fn add_probe(&mut self, probe: &ProbeLayout) -> Result<(), String> {
        let (Some(blocks), [(head, classes)], true) = (probe.blocks, probe.heads.as_slice(), probe.complete) else {
            return Err("its probe is not one attentive classifier, as Hugging Face's are".to_owned());
        };
        if head != "linear" || probe.queries != 1 || probe.projection.is_some() {
            return Err("its probe is not one attentive classifier of V-JEPA 2, as Hugging Face's are".to_owned());
        }
        if probe.num_heads != Some(self.num_attention_heads) {
            let heads = probe.num_heads.map_or("an unknown number of".to_owned(), |heads| heads.to_string());
            return Err(format!(
                "its probe has {heads} attention heads, and Hugging Face's classifiers have the encoder's {}: they would \
                 compute something else",
                self.num_attention_heads
            ));
        }
        self.architectures = vec!["VJEPA2ForVideoClassification".to_owned()];
        self.num_pooler_layers = blocks;
        let named = |number: usize| match probe.labels.get(number) {
            Some(label) => label.clone(),
            None => format!("LABEL_{number}"),
        };
        let labels: Vec<String> = (0..*classes).map(named).collect();
        self.label2id = labels.iter().enumerate().map(|(number, label)| (label.clone(), number)).collect();
        self.id2label = labels.into_iter().enumerate().map(|(number, label)| (number.to_string(), label)).collect();
        Ok(())
    }
}

fn agree(key: &str, says: usize, there: usize) -> Result<(), String> {
    if says == there { Ok(()) } else { Err(format!("says `{key}` {says}, its tensors {there}")) }
}
