//! `--devices`: the ranks of one machine, started by this process. They meet as torchrun's would, at a port of this machine.

use super::CliError;
use super::train::{Collapsed, Stopped};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vjepa_collective::{Launch, Launcher};

/// How long the others may take to end once a rank has failed; they learn it from their sums.
const GRACE: Duration = Duration::from_secs(30);
/// How often ranks are looked at.
const OFTEN: Duration = Duration::from_millis(50);

/// The GPUs of `--devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Devices(Vec<usize>);

impl std::str::FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` names no GPUs: write e.g. cuda:0-7 or cuda:0,2,3");
        let list = text.strip_prefix("cuda:").ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n < 1024 && !text.starts_with('+'));
        let mut all = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
            if first > last {
                return Err(wrong());
            }
            all.extend(first..=last);
        }
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != all.len() {
            return Err(format!("`{text}` names a GPU twice"));
        }
        Ok(Self(all))
    }
}

/// Runs this command again as one rank a GPU, and ends as they do.
///
/// # Errors
/// What the first rank to fail ended with; it has said why itself.
pub(super) fn run(devices: &Devices) -> Result<(), CliError> {
    // A step of srun may be one process, in which somebody works.
    let alone = |launch: &Launch| launch.launcher == Launcher::Slurm && launch.world == 1;
    if Launch::from_env()?.is_some_and(|launch| !alone(&launch)) {
        return Err(
            "a launcher has started this process as a rank already: leave --devices out, or the launcher".into()
        );
    }
    let visible: Vec<String> = devices.0.iter().map(usize::to_string).collect();
    let arguments = without_devices(std::env::args_os().skip(1));
    let environment = [("CUDA_VISIBLE_DEVICES", OsString::from(visible.join(",")))];
    let code = start(&std::env::current_exe()?, &arguments, devices.0.len(), &environment, GRACE)?;
    match code {
        0 => Ok(()),
        code if code == i32::from(Stopped::CODE) => Err(Stopped.into()),
        3 => Err(Collapsed.into()),
        code => Err(format!("a rank has ended with code {code}; its own message is above").into()),
    }
}

/// The arguments of a rank: `--device cuda` in place of `--devices`.
fn without_devices(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut kept, mut skip) = (Vec::new(), false);
    for argument in arguments {
        match argument.to_str() {
            _ if std::mem::take(&mut skip) => {}
            Some("--devices") => skip = true,
            Some(text) if text.starts_with("--devices=") => {}
            _ => kept.push(argument),
        }
    }
    kept.extend(["--device", "cuda"].map(OsString::from));
    kept
}

/// Starts `count` ranks of a program and waits for all of them; the exit code is that of the first that fails. A signal that
/// would end this process goes to them.
fn start(
    program: &Path,
    arguments: &[OsString],
    count: usize,
    environment: &[(&str, OsString)],
    grace: Duration,
) -> Result<i32, CliError> {
    // A terminal sends Ctrl-C to the ranks itself.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    // Free a moment ago; rank 0 says so where it is not any more.
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut ranks = Ranks(Vec::with_capacity(count));
    for rank in 0..count {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (*name, value.as_os_str())));
        command
            .envs([("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count)].map(|(name, n)| (name, n.to_string())));
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string()).stdin(Stdio::null());
        let child = command.spawn().map_err(|error| format!("rank {rank} cannot be started: {error}"))?;
        ranks.0.push((child, None));
    }
    let mut failed: Option<(i32, Instant)> = None;
    loop {
        signals.pending().filter(|sent| *sent != SIGINT).for_each(|sent| ranks.signal(sent));
        if let Some(code) = ranks.look()? {
            failed.get_or_insert((code, Instant::now()));
        }
        match failed {
            _ if ranks.0.iter().all(|(_, code)| code.is_some()) => return Ok(failed.map_or(0, |(code, _)| code)),
            Some((code, since)) if since.elapsed() > grace => {
                // Dropped, and with that killed.
                return Ok(code);
            }
            _ => std::thread::sleep(OFTEN),
        }
    }
}

/// Processes, each with its exit code once it has ended. Those that are left are killed when this is dropped.
struct Ranks(Vec<(Child, Option<i32>)>);

impl Ranks {
    /// Asks who has ended; the code of one that has just failed.
    fn look(&mut self) -> Result<Option<i32>, CliError> {
        let mut failed = None;
        for (child, code) in self.0.iter_mut().filter(|(_, code)| code.is_none()) {
            if let Some(status) = child.try_wait()? {
                // A signal has no code of its own.
                let ended = status.code().unwrap_or(1);
                *code = Some(ended);
                if ended != 0 {
                    failed.get_or_insert(ended);
                }
            }
        }
        Ok(failed)
    }

    /// Sends a signal to all that run.
    fn signal(&self, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else { return };
        for (child, _) in self.0.iter().filter(|(_, code)| code.is_none()) {
            // One that has ended meanwhile needs none.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for (child, _) in self.0.iter_mut().filter(|(_, code)| code.is_none()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_gpus_are_read() {
        let of = |text: &str| text.parse::<Devices>().map(|devices| devices.0);
        assert_eq!(of("cuda:0-3"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(of("cuda:5,0-1"), Ok(vec![5, 0, 1]));
        for text in ["cuda", "cuda:", "wgpu:0-1", "cuda:3-1", "cuda:a", "cuda:+1", "cuda:0-99999", "cuda:0,,1"] {
            assert!(of(text).unwrap_err().contains("cuda:0-7"), "{text}");
        }
        assert!(of("cuda:0-2,1").unwrap_err().contains("twice"));
    }

    #[test]
    fn ranks_get_the_other_arguments() {
        let words = ["train", "--config", "a.yaml", "--devices", "cuda:0-7", "--json"].map(OsString::from);
        let wanted = ["train", "--config", "a.yaml", "--json", "--device", "cuda"].map(OsString::from);
        assert_eq!(without_devices(words.into_iter()), wanted);
        let words = ["train", "--devices=cuda:0-7"].map(OsString::from);
        assert_eq!(without_devices(words.into_iter()), ["train", "--device", "cuda"].map(OsString::from));
    }

    #[test]
    fn ranks_are_started_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("echo $RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $SEEN > {}/$RANK", folder.path().display());
        let environment = [("SEEN", OsString::from("2,4,6"))];
        let run = |text: &str, grace| {
            start(Path::new("/bin/sh"), &["-c".into(), text.into()], 3, &environment, grace).unwrap()
        };
        assert_eq!(run(&text, GRACE), 0);
        for rank in 0..3 {
            let said = std::fs::read_to_string(folder.path().join(rank.to_string())).unwrap();
            assert_eq!(said, format!("{rank} {rank} 3 127.0.0.1 2,4,6\n"));
        }
        // The first failure is the answer; who does not end by itself is ended.
        let began = Instant::now();
        assert_eq!(run("test $RANK = 1 && exit 75; exec sleep 600", Duration::from_millis(200)), 75);
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
