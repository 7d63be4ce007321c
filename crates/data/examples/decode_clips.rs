//! `vjepa bench decode` without the program around it, for work on the decoders: builds without Burn, prints JSON.
//!
//! `cargo run --release -p vjepa-data --features ffmpeg --example decode_clips -- rgb|clip ROUNDS CLIPS PYTHON|- FILE...`

use std::io::{stdin, stdout};
use std::process::Command;

use vjepa_data::bench::{Contender, FrameTask, PYTHON, PYTHON_DECODERS, Settings, Started, compare, serve};
use vjepa_video::Decoder;

const USAGE: &str = "decode_clips rgb|clip ROUNDS CLIPS PYTHON|- FILE...";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", "pure"] => return Ok(serve(Decoder::Pure, stdin().lock(), stdout().lock())?),
        ["serve", "ffmpeg"] => return Ok(serve(Decoder::Ffmpeg, stdin().lock(), stdout().lock())?),
        _ => {}
    }
    let [task, rounds, clips, python, files @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let task = match task.as_str() {
        "rgb" => FrameTask::Rgb,
        "clip" => FrameTask::Clip,
        _ => return Err(USAGE.into()),
    };
    let ours = if cfg!(feature = "ffmpeg") { &["ffmpeg", "pure"][..] } else { &["pure"] };
    let mut contenders = Vec::new();
    let mut start = |name: &str, command: &mut Command| -> Result<(), Box<dyn std::error::Error>> {
        match Contender::start(name, command)? {
            Started::Ready(contender) => contenders.push(*contender),
            Started::Missing(why) => eprintln!("{name} is left out: {why}"),
        }
        Ok(())
    };
    for name in ours {
        start(name, Command::new(std::env::current_exe()?).args(["serve", name]))?;
    }
    for name in PYTHON_DECODERS.iter().filter(|_| python != "-") {
        start(name, Command::new(python).args(["-c", PYTHON, name]))?;
    }
    let settings = Settings { task, rounds: rounds.parse()?, clips: clips.parse()?, seed: 0 };
    let files: Vec<_> = files.iter().map(std::path::PathBuf::from).collect();
    let report =
        compare(&mut contenders, &files, settings, |file, round| eprintln!("{}: round {round}", file.display()))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
