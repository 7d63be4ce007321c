//! What a model is called: its generation and size, in words.

use vjepa_recipe::config::{EncoderSizes, Generation, ModelName};

use super::{ModelFile, ProbeLayout};

/// A released size.
pub(super) struct Released {
    /// The generations that have it.
    generations: &'static [Generation],
    /// Its sizes.
    pub sizes: EncoderSizes,
    /// What people call it.
    name: &'static str,
}

/// Every size that has a name, by width.
pub(super) const RELEASED: [Released; 8] = {
    const ALL: &[Generation] = &Generation::ALL;
    const FIRST: &[Generation] = &[Generation::V1];
    const LATER: &[Generation] = &[Generation::V2, Generation::V21];
    const fn released(generations: &'static [Generation], size: ModelName, name: &'static str) -> Released {
        Released { generations, sizes: size.sizes(), name }
    }
    [
        released(ALL, ModelName::Tiny, "ViT-Ti"),
        released(ALL, ModelName::Small, "ViT-S"),
        released(ALL, ModelName::Base, "ViT-B"),
        released(ALL, ModelName::Large, "ViT-L"),
        released(ALL, ModelName::Huge, "ViT-H"),
        released(FIRST, ModelName::Giant, "ViT-g"),
        released(LATER, ModelName::GiantXformers, "ViT-g"),
        released(LATER, ModelName::GiganticXformers, "ViT-G"),
    ]
};

/// The size of this width that a generation has.
pub(super) fn released(generation: Generation, embed_dim: usize) -> Option<&'static Released> {
    RELEASED.iter().find(|size| size.sizes.embed_dim == embed_dim && size.generations.contains(&generation))
}

impl ModelFile {
    /// The probe in words: `a probe of V-JEPA 2's evaluation for features 1024 wide`. The probes of 2.1 are like those of 2.
    pub(super) fn probe_name(&self, probe: &ProbeLayout) -> String {
        let generation = match self.generation {
            Generation::V1 => Generation::V1.about(),
            Generation::V2 | Generation::V21 => Generation::V2.about(),
        };
        format!("a probe of {generation}'s evaluation for features {} wide", probe.embed_dim)
    }

    /// Generation and size in words: `V-JEPA 2.1 ViT-B (768 wide, 12 blocks)`.
    pub fn name(&self) -> String {
        let generation = self.generation.about();
        let action = self.predictor.as_ref().is_some_and(|predictor| predictor.action_conditioned);
        let generation = if action { format!("{generation}-AC") } else { generation.to_owned() };
        let Some(encoder) = &self.encoder else {
            return match &self.probe {
                Some(probe) => self.probe_name(probe),
                None => format!("a predictor of {generation}"),
            };
        };
        sized(self.generation, &generation, encoder.embed_dim, encoder.depth)
    }
}

/// Generation and size of an encoder in words: `V-JEPA 2 ViT-L (1024 wide, 24 blocks)`.
pub fn size_name(generation: Generation, width: usize, depth: usize) -> String {
    sized(generation, generation.about(), width, depth)
}

/// A generation, by its name, and a size: `V-JEPA 2 ViT-L (1024 wide, 24 blocks)`.
pub(super) fn sized(generation: Generation, name: &str, width: usize, depth: usize) -> String {
    let size = released(generation, width).filter(|size| size.sizes.depth == depth);
    format!("{name} {} ({width} wide, {depth} blocks)", size.map_or("encoder", |size| size.name))
}
