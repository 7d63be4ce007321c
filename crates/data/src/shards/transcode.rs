//! Makes videos small with the `ffmpeg` program: short side 256, short groups of pictures.
//!
//! This program has no encoder of its own. What ffmpeg writes is opened and counted: a video that lost or gained frames on the
//! way is left out, since its frame numbers would mean other frames. Of a video that only ffmpeg decodes, the frames are those
//! that it decodes, and one that it finds damaged is left out; what it passes over in silence between two frames is lost.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::media::Media;

/// Seconds without end are a hang: longer than this for one video is an error.
const MOST_TIME: Duration = Duration::from_secs(4 * 3600);
/// Bytes of ffmpeg's complaints that are kept.
const MOST_WORDS: u64 = 4096;

/// How videos are made small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcode {
    /// The program.
    pub ffmpeg: PathBuf,
    /// Pixels of the shorter side; smaller videos keep theirs.
    pub short_side: usize,
    /// Frames from one key frame to the next.
    pub group: usize,
    /// x264's constant rate factor: lower is better and larger.
    pub quality: u32,
}

impl Transcode {
    /// Short side 256 and a key frame every 16, so that a clip is decoded from less far before it than with the usual 250.
    pub fn new(ffmpeg: impl Into<PathBuf>) -> Self {
        Self { ffmpeg: ffmpeg.into(), short_side: 256, group: 16, quality: 20 }
    }

    /// The version that the program states, to see that it runs and has x264.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub fn check(&self) -> Result<String, String> {
        let program = self.ffmpeg.display();
        let output = Command::new(&self.ffmpeg).args(["-hide_banner", "-encoders"]).stdin(Stdio::null()).output();
        let output =
            output.map_err(|error| format!("{program} cannot be run ({error}): give an ffmpeg program, or --copy"))?;
        match String::from_utf8_lossy(&output.stdout).contains("libx264") {
            true => {}
            false => {
                return Err(format!(
                    "{program} has no encoder libx264: install another build of ffmpeg, or give --copy"
                ));
            }
        }
        let version = Command::new(&self.ffmpeg).arg("-version").stdin(Stdio::null()).output();
        let version = version.map_err(|error| format!("{program} cannot be run: {error}"))?;
        Ok(String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned())
    }

    /// The video of `path`, opened as `media`, encoded; `bytes` are its own where it is no file of this machine.
    ///
    /// # Errors
    /// Why it cannot be had whole, without its name.
    pub(super) fn run(&self, media: &mut Media, path: &Path, bytes: Option<&[u8]>) -> Result<Vec<u8>, String> {
        // ffmpeg invents something in the place of what is damaged, mostly without a word.
        if let Some((_, why)) = media.first_fault() {
            return Err(why);
        }
        let folder = tempfile::tempdir().map_err(|error| cannot(&error))?;
        let out = folder.path().join("out.mp4");
        let words = match path.is_dir() {
            true => self.frames(media, &out)?,
            false => self.file(path, bytes, folder.path(), &[])?,
        };
        let (bytes, has) = encoded(&out, &words)?;
        match media.info().frames {
            had if had == has => Ok(bytes),
            had => {
                Err(said(&words, format!("has {had} frames and {has} once encoded, so frame numbers would not match")))
            }
        }
    }

    /// The video of `path`, which only ffmpeg decodes, encoded.
    pub(super) fn unknown(&self, path: &Path, bytes: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().map_err(|error| cannot(&error))?;
        // Nothing else counts its frames, so the first error is the end.
        let words = self.file(path, bytes, folder.path(), &["-xerror", "-err_detect", "explode"])?;
        if !words.trim().is_empty() {
            return Err(said(&words, "is damaged".into()));
        }
        match encoded(&folder.path().join("out.mp4"), &words)? {
            (_, 0) => Err(said(&words, "has no frame that ffmpeg decodes".into())),
            (bytes, _) => Ok(bytes),
        }
    }

    /// Encodes a file to `out.mp4` in a folder; what lies in a shard or on an object store is made one.
    fn file(&self, path: &Path, bytes: Option<&[u8]>, folder: &Path, first: &[&str]) -> Result<String, String> {
        let input = match bytes {
            None => std::path::absolute(path).map_err(|error| cannot(&error))?,
            Some(bytes) => {
                let input = folder.join("in");
                std::fs::write(&input, bytes).map_err(|error| cannot(&error))?;
                input
            }
        };
        let mut arguments: Vec<OsString> = first.iter().map(OsString::from).collect();
        arguments.extend([OsString::from("-i"), input.into()]);
        wait(self.start(&arguments, &folder.join("out.mp4"), Stdio::null())?)
    }

    /// Encodes frames that this program decodes.
    fn frames(&self, media: &mut Media, out: &Path) -> Result<String, String> {
        let info = media.info();
        let (frames, rate) = (info.frames, info.average_fps());
        let (size, rate) = (format!("{}x{}", info.width(), info.height()), rate.to_string());
        let arguments = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", &size, "-r", &rate, "-i", "-"];
        let mut child = self.start(&arguments.map(OsString::from), out, Stdio::piped())?;
        let mut send = || -> Result<(), String> {
            let mut pipe = child.stdin.take().ok_or("cannot be given to ffmpeg")?;
            let mut expected = None;
            for index in 0..frames {
                for frame in media.frames(&[index])? {
                    let size = (frame.display_width(), frame.display_height());
                    if *expected.get_or_insert(size) != size {
                        return Err("has frames of several sizes".into());
                    }
                    pipe.write_all(&frame.rgb()).map_err(|error| format!("cannot be given to ffmpeg: {error}"))?;
                }
            }
            Ok(())
        };
        let sent = send();
        if sent.is_err() {
            // It ends by itself once its input does; without a result it has nothing to say.
            let _ = child.kill();
        }
        let words = wait(child);
        sent?;
        words
    }

    fn start(&self, input: &[OsString], out: &Path, stdin: Stdio) -> Result<Child, String> {
        let side = self.short_side;
        // The short side in even numbers, as 4:2:0 needs them; -2 keeps the shape.
        let small = |side_of: &str| format!("trunc(min({side},{side_of})/2)*2");
        let scale = format!("scale=w='if(gt(iw,ih),-2,{})':h='if(gt(iw,ih),{},-2)'", small("iw"), small("ih"));
        let mut command = Command::new(&self.ffmpeg);
        command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]).args(input);
        command.args(["-map", "0:v:0", "-an", "-sn", "-dn", "-fps_mode", "passthrough", "-vf", &scale]);
        command.args(["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", &self.quality.to_string()]);
        command.args([
            "-tune",
            "fastdecode",
            "-g",
            &self.group.to_string(),
            "-threads",
            "1",
            "-movflags",
            "+faststart",
        ]);
        command.arg(out).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().map_err(|error| format!("cannot be encoded: {} cannot be run: {error}", self.ffmpeg.display()))
    }
}

fn cannot(error: &std::io::Error) -> String {
    format!("cannot be encoded: {error}")
}

/// What went wrong, with what the program said.
fn said(words: &str, what: String) -> String {
    match words.trim() {
        "" => what,
        words => format!("{what}; it says: {}", vjepa_recipe::text::short(words, 300)),
    }
}

/// The bytes of an encoded video, and how many frames it has.
fn encoded(out: &Path, words: &str) -> Result<(Vec<u8>, usize), String> {
    let bytes = std::fs::read(out).map_err(|error| said(words, format!("was not encoded by ffmpeg ({error})")))?;
    let video = vjepa_video::open(out)
        .map_err(|error| said(words, format!("was encoded to what cannot be opened ({error})")))?;
    Ok((bytes, video.info().frames))
}

/// Waits for the program's end and returns what it said.
fn wait(mut child: Child) -> Result<String, String> {
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut words = Vec::new();
        if let Some(mut stderr) = stderr {
            // What is beyond is read and thrown away, or the program would wait for a reader.
            let _ = stderr.by_ref().take(MOST_WORDS).read_to_end(&mut words);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        }
        String::from_utf8_lossy(&words).into_owned()
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() > MOST_TIME => {
                let _ = child.kill();
                return Err(format!("was not encoded within {} hours", MOST_TIME.as_secs() / 3600));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(format!("cannot be encoded: {error}")),
        }
    };
    let words = reader.join().unwrap_or_default();
    match status.success() {
        true => Ok(words),
        false => {
            Err(format!("was not encoded ({status}); ffmpeg says: {}", vjepa_recipe::text::short(words.trim(), 300)))
        }
    }
}
