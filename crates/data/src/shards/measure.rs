//! How fast clips come out of a data set.

use cpu_time::ProcessTime;
use vjepa_recipe::rng::{NumpyRng, Stream};

use crate::list::VideoList;
use crate::media::Opener;
use crate::sampling::ClipSampler;

/// Clips of 16 frames at step 4 that this process decodes in a second of processor time: `count` of them, from videos spread over
/// the list and starts that are the same every time. 0 where none can be read.
pub fn clips_per_second(list: &VideoList, opener: &Opener, count: usize) -> f64 {
    let sampler = ClipSampler::pretrain(16, 4);
    let step = list.entries.len().div_ceil(count.max(1)).max(1);
    let began = ProcessTime::now();
    let mut good = 0;
    for (place, entry) in list.entries.iter().step_by(step).enumerate() {
        let Ok(mut media) = opener.open(&entry.path) else { continue };
        let mut random = NumpyRng::keyed(0, Stream::Clips, place as u64);
        let Ok(clips) = sampler.sample(media.info().frames, |low, high| random.randint(low, high)) else { continue };
        let decoded = clips.first().is_some_and(|frames| media.decode(frames).is_ok());
        good += usize::from(decoded);
    }
    let seconds = began.elapsed().as_secs_f64();
    if seconds > 0.0 { good as f64 / seconds } else { 0.0 }
}
