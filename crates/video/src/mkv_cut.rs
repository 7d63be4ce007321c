//! What a webm or mkv that ends too early has lost.

/// Where a file ends that says it is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Inside a cluster.
    Frames,
    /// Behind a cluster, where others may have followed.
    Between,
    /// In what stands beside clusters, usually behind the last.
    Beside,
}

/// Seconds that the last block of a whole file's sound may take.
const LAST_BLOCK: f64 = 0.2;

impl Cut {
    /// Whether frames were lost: where none was cut through, the duration says that, which is of the longest track. `ends` is the
    /// end of the last frame that is left of any track. Both are in seconds.
    pub(crate) fn loses_frames(self, ends: f64, duration: Option<f64>) -> bool {
        match (self, duration) {
            (Self::Frames, _) => true,
            (_, Some(duration)) => ends + LAST_BLOCK < duration,
            (Self::Between, None) => true,
            (Self::Beside, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_last_cluster_may_be_lost() {
        assert!(Cut::Frames.loses_frames(10.0, Some(10.0)));
        for cut in [Cut::Between, Cut::Beside] {
            assert!(cut.loses_frames(5.0, Some(10.0)) && !cut.loses_frames(9.9, Some(10.0)));
        }
        assert!(Cut::Between.loses_frames(5.0, None) && !Cut::Beside.loses_frames(5.0, None));
    }
}
