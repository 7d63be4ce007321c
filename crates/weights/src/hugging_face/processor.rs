//! `video_preprocessor_config.json`: how Hugging Face's models want their clips.

use serde::{Deserialize, Serialize};
use vjepa_recipe::config::{Framing, Normalization, Preprocessing, Sampling};

use super::config::HfConfig;

/// Pillow's number of bilinear interpolation.
const BILINEAR: u8 = 2;
/// What pixels are multiplied with.
const RESCALE: f64 = 1.0 / 255.0;

/// The keys that matter to a clip; others are ignored, as versions differ in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Processor {
    crop_size: Side,
    do_center_crop: bool,
    do_normalize: bool,
    do_rescale: bool,
    do_resize: bool,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    resample: u8,
    rescale_factor: f64,
    return_metadata: bool,
    size: Size,
    video_processor_type: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Side {
    Both { height: usize, width: usize },
    One(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Size {
    shortest_edge: Option<usize>,
}

impl Default for Processor {
    fn default() -> Self {
        let (image_mean, image_std) = Normalization::Imagenet.statistics().unwrap_or_default();
        Self {
            crop_size: Side::One(256),
            do_center_crop: true,
            do_normalize: true,
            do_rescale: true,
            do_resize: true,
            image_mean,
            image_std,
            resample: BILINEAR,
            rescale_factor: RESCALE,
            return_metadata: false,
            size: Size::default(),
            video_processor_type: "VJEPA2VideoProcessor".to_owned(),
        }
    }
}

/// Frames between those of a clip in the official evaluations, by its length: 4 of 16 frames, 2 of 32 and of 64. Hugging
/// Face's processor chooses no frames.
fn sampling_rate(frames: usize) -> usize {
    if frames > 16 { 2 } else { 4 }
}

impl Processor {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, to follow the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("cannot be read: {error}"))
    }

    /// What it does to a clip of `config`, as our record. The short side that it resizes to is always 256/224 of the crop: the
    /// library computes it anew on loading.
    ///
    /// # Errors
    /// What this program does not do, to follow the file's name.
    pub fn preprocessing(&self, config: &HfConfig) -> Result<Preprocessing, String> {
        let (height, width) = match self.crop_size {
            Side::Both { height, width } => (height, width),
            Side::One(side) => (side, side),
        };
        if height != width {
            return Err(format!("crops to {height} x {width} pixels; only square clips are prepared"));
        }
        if height != config.crop_size {
            return Err(format!("crops to {height} pixels, but config.json says `crop_size` {}", config.crop_size));
        }
        let steps = [
            ("do_resize", self.do_resize),
            ("do_center_crop", self.do_center_crop),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
        ];
        if let Some((key, _)) = steps.into_iter().find(|(_, does)| !does) {
            return Err(format!("has `{key}: false`; clips are always resized, cropped, rescaled and normalised here"));
        }
        if self.resample != BILINEAR {
            return Err(format!("has `resample: {}`; frames are resized bilinearly (2) here", self.resample));
        }
        if (self.rescale_factor - RESCALE).abs() > 1e-12 {
            return Err(format!("has `rescale_factor: {}`; pixels are divided by 255 here", self.rescale_factor));
        }
        if self.image_std.iter().any(|std| !std.is_finite() || *std <= 0.0) {
            return Err("has deviations (`image_std`) that are not above 0".to_owned());
        }
        let statistics = (self.image_mean, self.image_std);
        let imagenet = Normalization::Imagenet.statistics() == Some(statistics);
        Ok(Preprocessing {
            num_frames: config.frames_per_clip,
            sampling_rate: sampling_rate(config.frames_per_clip),
            sampling: Sampling::Vjepa,
            crop_size: height,
            crop_width: None,
            patch_size: config.patch_size,
            tubelet_size: config.tubelet_size,
            normalization: match imagenet {
                true => Normalization::Imagenet,
                false => Normalization::Custom { mean: self.image_mean, std: self.image_std },
            },
            grayscale: false,
            framing: Framing::Centre,
        })
    }

    /// The processor for clips of `config`.
    pub fn default_for(config: &HfConfig) -> Self {
        Self { crop_size: Side::One(config.crop_size), ..Self::default() }
    }

    /// The processor that prepares clips as the record says.
    ///
    /// # Errors
    /// What the library's processor does not do.
    pub fn of(record: &Preprocessing) -> Result<Self, String> {
        let Some((image_mean, image_std)) = record.normalization.statistics() else {
            return Err(
                "its clips are normalised each by itself, which Hugging Face's processor does not do".to_owned()
            );
        };
        if record.grayscale || record.framing != Framing::Centre {
            return Err("its clips are grey or not cropped, which Hugging Face's processor does not do".to_owned());
        }
        let [side, width] = record.size();
        if side != width {
            return Err(format!("its clips have {side}x{width} pixels, and Hugging Face's processor cuts square ones"));
        }
        Ok(Self {
            crop_size: Side::Both { height: side, width: side },
            image_mean,
            image_std,
            size: Size { shortest_edge: Some(side * 256 / 224) },
            ..Self::default()
        })
    }

    /// Its text. Means and deviations are written as the shortest decimal numbers that mean them.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        for (key, values) in [("image_mean", self.image_mean), ("image_std", self.image_std)] {
            let short = values.map(|value| value.to_string().parse::<f64>().unwrap_or(f64::from(value)));
            json[key] = serde_json::json!(short);
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_lead_there_and_back() {
        let mut config = HfConfig::default();
        config.crop_size = 384;
        let record = Processor::default_for(&config).preprocessing(&config).unwrap();
        assert_eq!((record.crop_size, record.num_frames, record.sampling_rate), (384, 64, 2));
        let written = Processor::of(&record).unwrap();
        assert_eq!(written.to_json()["size"]["shortest_edge"], 438);
        assert_eq!(written.to_json()["image_mean"], serde_json::json!([0.485, 0.456, 0.406]));
        let read = Processor::parse(&written.to_json().to_string()).unwrap();
        assert_eq!(read.preprocessing(&config).unwrap(), record);
        let grey = Preprocessing { grayscale: true, ..record.clone() };
        assert!(Processor::of(&grey).unwrap_err().contains("grey"));
    }

    #[test]
    fn what_is_not_done_here_is_refused() {
        let config = HfConfig::default();
        let told = |text: &str| Processor::parse(text).and_then(|it| it.preprocessing(&config)).unwrap_err();
        assert!(told(r#"{"do_rescale": false}"#).contains("do_rescale"));
        assert!(told(r#"{"resample": 3}"#).contains("bilinearly"));
        assert!(told(r#"{"rescale_factor": 1.0}"#).contains("255"));
        assert!(told(r#"{"crop_size": {"height": 256, "width": 128}}"#).contains("square"));
        assert!(told(r#"{"crop_size": 384}"#).contains("config.json says `crop_size` 256"));
        assert!(told(r#"{"image_std": [0, 1, 1]}"#).contains("above 0"));
        assert!(told("[").contains("cannot be read"));
    }
}
