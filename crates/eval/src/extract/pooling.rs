//! What is kept of tokens.

use vjepa_programs::DeployedHead;

/// What is kept of a clip's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// All of them, `[N, D]`.
    Tokens,
    /// Their mean, `[D]`.
    Mean,
    /// What an attentive probe's query takes of them, `[D]`.
    Attentive,
    /// The mean of each moment's, `[T / tubelet, D]`.
    Frames,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tokens, Self::Mean, Self::Attentive, Self::Frames];

    /// Its name at the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Mean => "mean",
            Self::Attentive => "attentive",
            Self::Frames => "frames",
        }
    }

    /// What it keeps, for the help.
    pub fn about(self) -> &'static str {
        match self {
            Self::Tokens => "All tokens, [N, D]",
            Self::Mean => "The mean token, [D]",
            Self::Attentive => "Output of an attentive probe's pooling layer (with --probe), [D]",
            Self::Frames => "The mean token of each moment, [T / tubelet, D]",
        }
    }

    pub(super) fn head(self) -> DeployedHead {
        match self {
            Self::Tokens | Self::Frames => DeployedHead::Tokens,
            Self::Mean => DeployedHead::Features,
            Self::Attentive => DeployedHead::Pooled,
        }
    }

    /// Its column, where it is of the last block.
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Tokens => "encoder_out",
            Self::Mean => "features",
            Self::Attentive => "pooled",
            Self::Frames => "frames",
        }
    }
}
