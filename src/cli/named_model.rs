//! What files of V-JEPA 2's evaluations say of a checkpoint, against what it holds.

use std::path::Path;

use vjepa_graphs::EncoderConfig;
use vjepa_recipe::config::evaluation::EncoderSource;

use super::CliError;

/// Checks a checkpoint against what an official file of V-JEPA 2 says of it.
pub(super) fn check_second(encoder: &EncoderSource, found: &EncoderConfig, path: &Path) -> Result<(), CliError> {
    let held = |encoder: &EncoderConfig| [encoder.embed_dim, encoder.depth, encoder.num_heads];
    if let Some(name) = encoder.model.filter(|name| held(&EncoderConfig::named(*name)) != held(found)) {
        let (said, heads) = (in_words(&EncoderConfig::named(name)), found.num_heads);
        let name = serde_json::to_value(name)?;
        let called = vjepa_weights::load(path)?.later_generation();
        let is = called.map_or_else(|| in_words(found), |called| format!("a {called} with {heads} heads"));
        return Err(format!(
            "model_kwargs.pretrain_kwargs.encoder.model_name is {name}, {said}, but {} holds {is}: name the file's, or \
             give the model's checkpoint",
            path.display()
        )
        .into());
    }
    let sizes = [("patch_size", encoder.patch, found.patch), ("tubelet_size", encoder.tubelet, found.tubelet)];
    match sizes.into_iter().find(|(_, said, is)| said != is) {
        Some((key, said, is)) => Err(format!(
            "model_kwargs.pretrain_kwargs.encoder.{key} is {said}, but the encoder of {} has {is}: correct it",
            path.display()
        )
        .into()),
        None => Ok(()),
    }
}

/// The sizes of an encoder that its name stands for.
fn in_words(encoder: &EncoderConfig) -> String {
    let EncoderConfig { embed_dim, depth, num_heads, .. } = encoder;
    format!("an encoder {embed_dim} wide with {depth} blocks of {num_heads} heads")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_recipe::config::ModelName;
    use vjepa_recipe::config::evaluation::CheckpointKey;
    use vjepa_weights::{Tensors, save_safetensors};

    #[test]
    fn a_name_stands_for_width_depth_and_heads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.safetensors");
        let tensor = Tensors::from([("encoder.norm.bias".to_owned(), (vec![1], vec![0.0]))]);
        save_safetensors(&path, &tensor, &Default::default()).unwrap();
        let source = EncoderSource {
            checkpoint: path.clone(),
            key: CheckpointKey::default(),
            model: Some(ModelName::Large),
            frames: 16,
            tubelet: 2,
            patch: 16,
            uniform_power: false,
            from_file: true,
            layers: None,
        };
        let check = |name, found: &EncoderConfig| {
            check_second(&EncoderSource { model: name, ..source.clone() }, found, &path)
                .err()
                .map(|why| why.to_string())
        };
        let large = EncoderConfig::large();
        assert_eq!(check(Some(ModelName::Large), &large), None);
        assert_eq!(check(None, &EncoderConfig { depth: 23, ..large.clone() }), None);
        for (found, words) in [
            (EncoderConfig { depth: 23, ..large.clone() }, "holds an encoder 1024 wide with 23 blocks of 16 heads"),
            (EncoderConfig { num_heads: 8, ..large.clone() }, "holds an encoder 1024 wide with 24 blocks of 8 heads"),
            (EncoderConfig::huge(), "holds an encoder 1280 wide with 32 blocks of 16 heads"),
        ] {
            let told = check(Some(ModelName::Large), &found).unwrap();
            let said = "model_name is \"vit_large\", an encoder 1024 wide with 24 blocks of 16 heads";
            assert!(told.contains(words) && told.contains(said), "{told}");
        }
        // Two giants of one width and depth.
        let told = check(Some(ModelName::Giant), &EncoderConfig::named(ModelName::GiantXformers)).unwrap();
        assert!(told.contains("22 heads"), "{told}");
        assert!(check(None, &EncoderConfig { patch: 8, ..large }).unwrap().contains("patch_size is 16"));
    }
}
