//! The remedy for weights that do not fit a configuration: which key is to be changed, or that the file is another model's.

use std::collections::BTreeSet;

use super::{LoadError, Misshapen};

/// The remedy for these faults, as a clause that names the key of the configuration.
pub fn remedy(faults: &LoadError) -> String {
    width(faults)
        .or_else(|| tubelets(faults))
        .or_else(|| depth(faults))
        .or_else(|| clip(faults))
        .or_else(|| mask_tokens(faults))
        .unwrap_or_else(|| {
            if faults.missing.len() > 8 && faults.unexpected.len() > 8 {
                "it holds another model; give a checkpoint of V-JEPA".to_owned()
            } else {
                "use the configuration this checkpoint was made with (--config)".to_owned()
            }
        })
}

fn misshapen<'a>(faults: &'a LoadError, ending: &str) -> Option<&'a Misshapen> {
    faults.misshapen.iter().find(|fault| fault.name.ends_with(ending))
}

fn width(faults: &LoadError) -> Option<String> {
    let norm = misshapen(faults, "norm1.weight").or_else(|| misshapen(faults, "norm.weight"))?;
    let (&[expected], &[got]) = (norm.expected.as_slice(), norm.got.as_slice()) else { return None };
    let (what, key) = match norm.name.starts_with("predictor.") {
        true => ("predictor", "model.pred_embed_dim"),
        false => ("encoder", "model.embed_dim"),
    };
    Some(format!(
        "the file's {what} is {got} wide and the configuration's {expected}: give the configuration it was trained with, \
         `{key}: {got}`"
    ))
}

fn tubelets(faults: &LoadError) -> Option<String> {
    let kernel = misshapen(faults, ".patch_embed.proj.weight")?;
    Some(match kernel.got.as_slice() {
        [_, _, tubelet, patch, square] if patch == square => format!(
            "the file's tubelets are {tubelet} x {patch} x {patch}: give the configuration it was trained with, \
             `data.tubelet_size: {tubelet}` and `data.patch_size: {patch}`"
        ),
        _ => "the file's encoder does not take clips; give a checkpoint of V-JEPA".to_owned(),
    })
}

fn depth(faults: &LoadError) -> Option<String> {
    // The numbers of whole blocks in a list of names.
    let blocks = |names: &[String], table: &str| -> BTreeSet<usize> {
        let number = |name: &String| name.split_once(table)?.1.strip_suffix(".norm1.weight")?.parse().ok();
        names.iter().filter_map(number).collect()
    };
    [("predictor", ".predictor_blocks.", "model.pred_depth"), ("encoder", ".blocks.", "model.depth")]
        .into_iter()
        .find_map(|(what, table, key)| {
            let missing = blocks(&faults.missing, table);
            let unexpected = blocks(&faults.unexpected, table);
            let depth = match (missing.first(), unexpected.last()) {
                // Without a first block it is not the depth that differs.
                (Some(first), None) if *first > 0 => *first,
                (None, Some(last)) => last + 1,
                _ => return None,
            };
            Some(format!(
                "the file's {what} has {depth} blocks: give the configuration it was trained with, `{key}: {depth}`"
            ))
        })
}

fn clip(faults: &LoadError) -> Option<String> {
    let table = misshapen(faults, "pos_embed")?;
    let (&[_, expected, _], &[_, got, _]) = (table.expected.as_slice(), table.got.as_slice()) else { return None };
    Some(format!(
        "the file's clips have {got} tokens and the configuration's {expected}: give the configuration it was trained with \
         (`data.num_frames`, `crop_size`, `patch_size`, `tubelet_size`)"
    ))
}

fn mask_tokens(faults: &LoadError) -> Option<String> {
    let token = |name: &&String| name.starts_with("predictor.mask_tokens.");
    let (missing, unexpected) = (faults.missing.iter().find(token), faults.unexpected.iter().find(token));
    missing.or(unexpected)?;
    Some("the predictor has one mask token per entry of `mask`: give the configuration it was trained with".to_owned())
}
