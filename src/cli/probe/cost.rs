//! What a probe's training and evaluation would cost.

use std::collections::BTreeSet;
use std::path::Path;

use vjepa_data::VideoList;
use vjepa_data::annotations::subset;
use vjepa_eval::foreign::probe_heads;
use vjepa_eval::protocols::heads::{Head, HeadKind};
use vjepa_eval::protocols::videos::PART;
use vjepa_graphs::{EncoderConfig, Probe, ProbeConfig};
use vjepa_programs::{describe, encoder_config};
use vjepa_recipe::config::Config;

use super::lists::Lists;
use super::{Args, stored};
use crate::cli::CliError;
use crate::cli::cost::{Assumed, Bill, Count, Once, here};
use crate::cli::frozen::{Kind, Setup, samples, wanted};
use crate::cli::given::all_there;

/// How many samples there are.
struct Sets {
    /// To train on, of each draw of --subset.
    train: Vec<Count>,
    /// Of all draws, each once.
    distinct: Count,
    val: Option<Count>,
    classes: Option<usize>,
    kind: Kind,
}

/// The features that probes read.
struct Read {
    /// For each clip.
    tokens: usize,
    width: usize,
    clips: usize,
    views: usize,
    attend: bool,
}

impl Read {
    /// Rows of a sample in one view, and tokens of each.
    fn rows(&self) -> [usize; 2] {
        if self.attend { [1, self.tokens * self.clips] } else { [self.clips, self.tokens] }
    }
}

impl Args {
    /// What all of it would cost: with the encoder of a run where one is given, else of the checkpoint if it is here, else of the
    /// configuration.
    pub(in crate::cli) fn bill(&self, run: Option<&Config>, assumed: Assumed) -> Result<Bill, CliError> {
        let setup = Setup::read(&self.encoder)?;
        let (options, mut bill) = (self.options(&setup), Bill::default());
        let heads = self.heads(&options, &setup)?;
        let sets = self.sets(&setup, assumed)?;
        let [own_clips, own_views] = setup.clips_and_views();
        let (clips, views) = (self.clips.map_or(own_clips, usize::from), self.views.map_or(own_views, usize::from));
        let attend = setup.attends() && !self.clips_apart;
        let (read, attentive) = if let Some(file) = &self.features {
            let (_, super::FeatureSource::Features { train, .. }) = stored(self, file)? else { return Ok(bill) };
            let (width, tokens) = (train.features.dim, train.features.tokens);
            let read = Read { tokens, width, clips: 1, views: 1, attend };
            let heads = probe_heads(width, self.probe_heads)?;
            (read, ProbeConfig::sized(width, heads, sets.classes.unwrap_or(2)))
        } else if let Some(path) = &self.encoder.encoder {
            bill.leave(format!("{}: the arithmetic of an ONNX encoder is not known", path.display()));
            return Ok(bill);
        } else {
            let encoder = self.sized(&setup, run, sets.kind)?;
            let layers = encoder.out_layers.as_ref().map_or(1, Vec::len);
            let (tokens, width) = (encoder.tokens() * layers, encoder.embed_dim);
            let read = Read { tokens, width, clips, views, attend };
            self.encoded(&mut bill, &encoder, &setup, (&sets, &read), &heads)?;
            let probe = setup.sized(ProbeConfig::for_encoder(&encoder, sets.classes.unwrap_or(2)))?;
            (read, probe)
        };
        if sets.classes.is_none() {
            bill.leave("the probes: the number of classes is not known, and classes=N is not given (--assume)");
            return Ok(bill);
        }
        self.trained(&mut bill, &attentive, (&sets, &read), (&heads, options.epochs, options.batch))?;
        Ok(bill)
    }

    /// Refuses lists that are not there.
    pub(in crate::cli) fn ready(&self) -> Result<(), CliError> {
        let setup = Setup::read(&self.encoder)?;
        let (data, val) = self.samples(&setup)?;
        all_there(&[("the samples to train on,", Some(&data)), ("the samples to evaluate on,", val.as_deref())])?;
        all_there(&[("--names", self.names.as_deref())])
    }

    /// The encoder that it would be.
    fn sized(&self, setup: &Setup, run: Option<&Config>, kind: Kind) -> Result<EncoderConfig, CliError> {
        let frames = self.encoder.still_frames.map(usize::from).filter(|_| kind == Kind::Pictures);
        let wanted = wanted(setup, frames);
        let trained = match run {
            Some(run) => encoder_config(run)?,
            None => match setup.checkpoint(&self.encoder) {
                Ok(path) if path.exists() => describe(&vjepa_weights::load(&path)?, setup.config.as_ref())?.encoder,
                found => {
                    let config = setup.config.as_ref().ok_or_else(|| match found {
                        Ok(path) => {
                            format!("{} is not here, and nothing else says which encoder it is", path.display())
                        }
                        Err(error) => error.to_string(),
                    })?;
                    encoder_config(config)?
                }
            },
        };
        let (frames, side) = (wanted.frames.unwrap_or(trained.num_frames), wanted.side.unwrap_or(trained.height));
        let encoder = EncoderConfig { out_layers: wanted.layers, ..trained.with_clip(frames, side, side) };
        encoder.validate()?;
        Ok(encoder)
    }

    /// Counts the samples of lists that are here; of others they are what was given.
    fn sets(&self, setup: &Setup, assumed: Assumed) -> Result<Sets, CliError> {
        let listed = |list: &VideoList| Count::Listed(list.entries.len() as u64);
        if let Some(file) = &self.features {
            let (lists, _) = stored(self, file)?;
            let (train, classes) = (listed(&lists.train), Some(lists.classes().len()));
            let val = lists.val.as_ref().map(listed);
            return Ok(Sets { train: vec![train.clone()], distinct: train, val, classes, kind: Kind::Videos });
        }
        let (data, val_path) = self.samples(setup)?;
        let pictures = matches!(setup.official.as_ref().map(|official| &official.samples), Some(s) if s.are_images());
        let mut kind = if pictures { Kind::Pictures } else { Kind::Videos };
        let known = setup.official.as_ref().map(|official| official.classes);
        let given = assumed.classes.and_then(|classes| usize::try_from(classes).ok());
        let mut classes = known.or(given);
        // All of them together, for what one says of the other.
        let both = here(&data) && val_path.as_deref().is_none_or(here);
        let (train, val) = match both {
            true => {
                let lists = Lists::read(&data, val_path.as_deref(), self.names.as_deref(), self.labels_from)?;
                classes = Some(lists.classes().len());
                (Some(lists.train), lists.val)
            }
            false => {
                let read = |path: &Path| here(path).then(|| samples(path).map(|(list, _)| list)).transpose();
                (read(&data)?, val_path.as_deref().map(read).transpose()?.flatten())
            }
        };
        if let Some(list) = train.as_ref().or(val.as_ref()) {
            kind = Kind::of(list)?;
        }
        let (draws, distinct) = match &train {
            Some(list) => self.drawn(list)?,
            None => self.share_of(&Count::absent(&data, assumed.train, "train")),
        };
        let val = val_path.map(|path| val.as_ref().map_or_else(|| Count::absent(&path, assumed.val, "val"), listed));
        Ok(Sets { train: draws, distinct, val, classes, kind })
    }

    /// Samples of each draw of --subset of a list, and of all draws.
    fn drawn(&self, list: &VideoList) -> Result<(Vec<Count>, Count), CliError> {
        let Some(share) = self.subset else {
            let all = Count::Listed(list.entries.len() as u64);
            return Ok((vec![all.clone()], all));
        };
        let seeds = self.draws.seeds(self.subset);
        let draws = seeds.iter().map(|seed| subset(list, share, *seed)).collect::<Result<Vec<_>, _>>()?;
        let distinct: BTreeSet<usize> = draws.iter().flat_map(|draw| draw.indices.iter().copied()).collect();
        let counts = draws.iter().map(|draw| Count::Listed(draw.indices.len() as u64)).collect();
        Ok((counts, Count::Listed(distinct.len() as u64)))
    }

    /// The same of a list that is not here: as if no two draws had a sample in common.
    fn share_of(&self, all: &Count) -> (Vec<Count>, Count) {
        match (self.subset, all) {
            (Some(share), Count::Given(all)) => {
                let one = (share.fraction() * *all as f64).round().max(1.0) as u64;
                let draws = vec![Count::Given(one); self.draws.seeds(self.subset).len()];
                let sum = one.saturating_mul(draws.len() as u64).min(*all);
                (draws, Count::Given(sum))
            }
            _ => (vec![all.clone(); self.draws.seeds(self.subset).len().max(1)], all.clone()),
        }
    }

    /// Adds what the encoder does, and the features that are held.
    fn encoded(
        &self,
        bill: &mut Bill,
        encoder: &EncoderConfig,
        setup: &Setup,
        (sets, read): (&Sets, &Read),
        heads: &[Head],
    ) -> Result<(), CliError> {
        let once = Once::encoder(encoder)?;
        let online = self.online || (setup.augments() && !self.cached);
        let kept = if heads.iter().any(|head| head.kind == HeadKind::Attentive) { read.tokens } else { 1 };
        let bytes = |rows: u64| rows * (kept * read.width * size_of::<f32>()) as u64;
        let clips = read.clips as u64;
        if online {
            let epochs = self.options(setup).epochs as u64;
            let what = |count: &Count| format!("encoder, training: {count} samples x {clips} clips x {epochs} epochs");
            for count in &sets.train {
                match count.known() {
                    Ok(samples) => bill.add(what(count), (samples * clips * epochs) as f64, once),
                    Err(why) => bill.leave(format!("training: {why}")),
                }
            }
        }
        let views = read.views as u64;
        let fixed = (!online || sets.val.is_none()).then_some((&sets.distinct, "training", 1));
        for (count, what, views) in fixed.into_iter().chain(sets.val.as_ref().map(|val| (val, "evaluation", views))) {
            match count.known() {
                Ok(samples) => {
                    let words = format!("encoder, {what}: {count} samples x {clips} clips x {views} views, once");
                    bill.add(words, (samples * clips * views) as f64, once);
                    let all = bytes(samples * clips * views);
                    // Those of training stay; others are needed a part at a time only.
                    let part = (PART as u64).max(bytes(clips * views));
                    bill.held += if what == "training" { all } else { all.min(part) };
                }
                Err(why) => bill.leave(format!("{what}: {why}")),
            }
        }
        Ok(())
    }

    /// Adds what the probes do.
    fn trained(
        &self,
        bill: &mut Bill,
        attentive: &ProbeConfig,
        (sets, read): (&Sets, &Read),
        (heads, epochs, batch): (&[Head], usize, usize),
    ) -> Result<(), CliError> {
        let [rows, tokens] = read.rows();
        let linear = Probe::Linear { embed_dim: read.width, num_classes: attentive.num_classes };
        for (kind, probe, tokens) in
            [(HeadKind::Attentive, Probe::Attentive(attentive.clone()), tokens), (HeadKind::Average, linear, 1)]
        {
            let count = heads.iter().filter(|head| head.kind == kind).count();
            if count == 0 {
                continue;
            }
            let once = Once::step(&probe, [batch * rows, tokens])?;
            // Each has weights and moments of its own.
            bill.held += once.weights * (count as u64 - 1);
            for train in &sets.train {
                let Ok(samples) = train.known() else { continue };
                let steps = samples.div_ceil(batch.max(1) as u64) * epochs as u64;
                let name = kind.name();
                let what = format!("{name}, training: {steps} steps of {batch} samples, {count} at once");
                bill.add(what, (steps * count as u64) as f64, once);
            }
            if let Some(Ok(samples)) = sets.val.as_ref().map(Count::known) {
                let classified = samples * (rows * read.views * count * sets.train.len()) as u64;
                let what = format!("{}, evaluation: {classified} rows of {tokens} tokens", kind.name());
                bill.add(what, classified as f64, Once::classifying(&probe, tokens)?);
            }
        }
        for head in heads.iter().filter(|head| !head.kind.is_stepped()) {
            bill.leave(format!("{} on the features, which the encoder outweighs by far", head.kind.name()));
        }
        Ok(())
    }
}
