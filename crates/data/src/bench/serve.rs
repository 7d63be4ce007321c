//! Our side of the comparison.

use std::io::{BufRead, Write};

use vjepa_runtime::Normalization;
use vjepa_video::{Decoder, open_with};

use super::{Answer, FrameTask, Request, describe};
use crate::dataset::Coloured;
use crate::decode::decode;
use crate::transforms::{CropBox, resize_crop};

/// Answers requests, one a line, until there are no more; what a [`Contender`](super::Contender) talks to.
///
/// # Errors
/// When reading or writing fails. A request that is none and a file that cannot be read are answers.
pub fn serve(decoder: Decoder, requests: impl BufRead, mut answers: impl Write) -> std::io::Result<()> {
    let about = format!("vjepa {}", env!("CARGO_PKG_VERSION"));
    writeln!(answers, "{}", serde_json::json!({ "ready": about }))?;
    answers.flush()?;
    for line in requests.lines() {
        let answer = match serde_json::from_str::<Request>(&line?) {
            Ok(request) => answer(decoder, &request).unwrap_or_else(|error| Answer::Failed { error }),
            Err(error) => Answer::Failed { error: error.to_string() },
        };
        writeln!(answers, "{}", serde_json::to_string(&answer)?)?;
        answers.flush()?;
    }
    Ok(())
}

fn answer(decoder: Decoder, request: &Request) -> Result<Answer, String> {
    let side = request.size;
    let values = |frames: usize| 3 * frames * side * side;
    let longest = request.clips.iter().map(|pick| pick.frames.len()).max().unwrap_or(0);
    let mut out = vec![0f32; if request.task == FrameTask::Clip { values(longest) } else { 0 }];
    let mut looks = Vec::new();
    let started = cpu_time::ProcessTime::now();
    for pick in &request.clips {
        let mut opened = open_with(&request.path, decoder).map_err(|error| error.to_string())?;
        let clip = decode(opened.as_mut(), &pick.frames)?;
        match request.task {
            FrameTask::Rgb => drop(std::hint::black_box(clip.rgb())),
            FrameTask::Look => looks.extend(clip.rgb().iter().map(|rgb| describe(rgb, clip.height, clip.width))),
            FrameTask::Clip => {
                let [top, left, height, width] = pick.crop;
                let crop = CropBox { top, left, height, width };
                let clip = Coloured { clip, grayscale: false };
                let out = out.get_mut(..values(pick.frames.len())).unwrap_or_default();
                resize_crop(&clip, &[crop], (side, side), pick.flip, Some(&Normalization::Imagenet), out)
                    .map_err(|error| error.to_string())?;
                std::hint::black_box(&out);
            }
        }
    }
    Ok(Answer::Done { seconds: started.elapsed().as_secs_f64(), looks })
}
