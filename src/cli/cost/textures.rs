//! The protocol on drifting textures.

use vjepa_eval::protocols::textures::TextureProtocol;
use vjepa_graphs::{EncoderConfig, Probe, ProbeConfig};

use super::{Bill, Once};
use crate::cli::CliError;

/// What the protocol costs for an encoder.
pub(in crate::cli) fn bill(encoder: &EncoderConfig, protocol: &TextureProtocol) -> Result<Bill, CliError> {
    let mut bill = Bill::default();
    let work = protocol.work();
    bill.add(format!("encoder, {} clips", work.clips), work.clips as f64, Once::encoder(encoder)?);
    let tokens = if work.steps > 0 { encoder.tokens() } else { 1 };
    bill.held = (work.clips * tokens * encoder.embed_dim * size_of::<f32>()) as u64;
    if work.steps > 0 {
        let probe = Probe::Attentive(ProbeConfig::for_encoder(encoder, work.classes));
        let step = Once::step(&probe, [work.batch, tokens])?;
        bill.add(format!("attentive probes, {} steps of {} clips", work.steps, work.batch), work.steps as f64, step);
        let classified = Once::classifying(&probe, tokens)?;
        bill.add(format!("attentive probes, {} clips classified", work.classified), work.classified as f64, classified);
    }
    bill.leave("logistic regression, whose iterations depend on the features");
    Ok(bill)
}
