//! Ranks that find one another over TCP: rank 0 listens at `MASTER_ADDR:MASTER_PORT`, the others call.
//!
//! What stays afterwards is a line between rank 0 and each other rank, for a few bytes at a time: an engine's identifier, the
//! comparison of configurations, roll calls. Gradients do not travel here.

use crate::{CollectiveError, Control, Launch};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// First words of a caller, so that a stranger at the port is none.
const GREETING: &[u8; 8] = b"vjepa  1";

/// Between two calls to a rank 0 that is not there yet.
const AGAIN: Duration = Duration::from_millis(100);

/// Where rank 0 listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// `MASTER_ADDR`, the machine of rank 0 as the others reach it.
    pub address: String,
    /// `MASTER_PORT`.
    pub port: u16,
}

impl Meeting {
    /// From the variables `MASTER_ADDR` and `MASTER_PORT`, or Kubeflow's `PET_MASTER_ADDR` and `PET_MASTER_PORT`. None where
    /// neither is set.
    ///
    /// # Errors
    /// [`CollectiveError::Start`] where one of them is missing, [`CollectiveError::Environment`] for a port that is none.
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, CollectiveError> {
        let find = |name: &str| variable(name).or_else(|| variable(&format!("PET_{name}")));
        match (find("MASTER_ADDR"), find("MASTER_PORT")) {
            (None, None) => Ok(None),
            (Some(address), Some(port)) => match port.trim().parse() {
                Ok(port) => Ok(Some(Self { address, port })),
                Err(_) => Err(CollectiveError::Environment { variable: "MASTER_PORT", value: port, what: "port" }),
            },
            (Some(_), None) => Err(start(unset("MASTER_PORT is"))),
            (None, Some(_)) => Err(start(unset("MASTER_ADDR is"))),
        }
    }

    /// As [`Meeting::find`], for ranks that have nowhere else to meet.
    ///
    /// # Errors
    /// As [`Meeting::find`]; [`CollectiveError::Start`] where neither is set.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CollectiveError> {
        Self::find(variable)?.ok_or_else(|| start(unset("both are")))
    }
}

/// The lines between rank 0 and the others.
pub struct Lines {
    rank: usize,
    world: usize,
    limit: Duration,
    /// Of rank 0, to the ranks from 1 on; of another rank, to rank 0 alone.
    lines: Vec<TcpStream>,
}

impl Lines {
    /// Meets the other ranks.
    ///
    /// # Errors
    /// [`CollectiveError::Lost`] on rank 0 for those that did not call in time; [`CollectiveError::Start`] where the port
    /// cannot be had, or nobody answers there.
    pub fn open(launch: Launch, meeting: &Meeting, limit: Duration) -> Result<Self, CollectiveError> {
        let lines = match launch.rank {
            0 => listen(launch.world, meeting, limit)?,
            rank => vec![call(rank, launch.world, meeting, limit)?],
        };
        Ok(Self { rank: launch.rank, world: launch.world, limit, lines })
    }

    fn receive(&self, line: usize, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        let lost = || self.lost(line);
        self.lines.get(line).ok_or_else(lost)?.read_exact(bytes).map_err(|_| lost())
    }

    fn send(&self, line: usize, bytes: &[u8]) -> Result<(), CollectiveError> {
        let lost = || self.lost(line);
        self.lines.get(line).ok_or_else(lost)?.write_all(bytes).map_err(|_| lost())
    }

    fn lost(&self, line: usize) -> CollectiveError {
        let rank = if self.rank == 0 { line + 1 } else { 0 };
        CollectiveError::Lost { ranks: vec![rank], limit: self.limit }
    }
}

impl Control for Lines {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), CollectiveError> {
        match (self.rank, root) {
            (0, root) => {
                if root > 0 {
                    self.receive(root - 1, bytes)?;
                }
                for to in (0..self.lines.len()).filter(|line| line + 1 != root) {
                    self.send(to, bytes)?;
                }
                Ok(())
            }
            (rank, root) if rank == root => self.send(0, bytes),
            _ => self.receive(0, bytes),
        }
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        if self.rank != 0 {
            self.send(0, b"here")?;
            return self.receive(0, &mut [0; 4]);
        }
        let missing = (0..self.lines.len()).filter(|line| self.receive(*line, &mut [0; 4]).is_err());
        let ranks: Vec<usize> = missing.map(|line| line + 1).collect();
        if !ranks.is_empty() {
            return Err(CollectiveError::Lost { ranks, limit: self.limit });
        }
        (0..self.lines.len()).try_for_each(|line| self.send(line, b"all!"))
    }

    fn abort(&self, code: i32) {
        // The lines close with the process, and the other ranks then say who is gone.
        std::process::exit(code);
    }
}

fn unset(which: &str) -> String {
    format!(
        "several ranks meet at MASTER_ADDR and MASTER_PORT, of which {which} not set: set them to the machine of rank 0 and a free \
         port there (torchrun does)"
    )
}

fn start(why: String) -> CollectiveError {
    CollectiveError::Start { engine: "the rendezvous", why }
}

/// Rank 0: everybody calls, in any order; strangers are hung up on.
fn listen(world: usize, meeting: &Meeting, limit: Duration) -> Result<Vec<TcpStream>, CollectiveError> {
    let port = meeting.port;
    let cannot = |error: std::io::Error| {
        start(format!("port {port} cannot be listened at ({error}); set MASTER_PORT to a free one"))
    };
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let began = Instant::now();
    let mut lines: Vec<Option<TcpStream>> = (1..world).map(|_| None).collect();
    while lines.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((line, _)) => {
                if let Some((rank, line)) = greeted(line, world, limit.saturating_sub(began.elapsed()))
                    && let Some(place) = rank.checked_sub(1).and_then(|rank| lines.get_mut(rank))
                {
                    *place = Some(line);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(cannot(error)),
        }
        if began.elapsed() > limit {
            let missing = lines.iter().enumerate().filter(|(_, line)| line.is_none());
            return Err(CollectiveError::Lost { ranks: missing.map(|(rank, _)| rank + 1).collect(), limit });
        }
    }
    let lines: Vec<TcpStream> = lines.into_iter().flatten().collect();
    lines.iter().try_for_each(|line| timed(line, limit)).map_err(cannot)?;
    Ok(lines)
}

/// The rank of a caller; none for a stranger, or one that counts the ranks otherwise.
fn greeted(line: TcpStream, world: usize, left: Duration) -> Option<(usize, TcpStream)> {
    line.set_nonblocking(false).ok()?;
    // A silent stranger must not keep the ranks waiting.
    line.set_read_timeout(Some(left.clamp(Duration::from_millis(1), Duration::from_secs(2)))).ok()?;
    let mut greeting = [0u8; 16];
    (&line).read_exact(&mut greeting).ok()?;
    let (words, numbers) = greeting.split_at(8);
    let (rank, theirs) = numbers.split_at(4);
    let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize);
    (words == GREETING && number(theirs)? == world).then_some((number(rank)?, line))
}

/// Another rank: calls until somebody answers.
fn call(rank: usize, world: usize, meeting: &Meeting, limit: Duration) -> Result<TcpStream, CollectiveError> {
    let Meeting { address, port } = meeting;
    let began = Instant::now();
    let greeting = [&GREETING[..], &(rank as u32).to_le_bytes(), &(world as u32).to_le_bytes()].concat();
    loop {
        let called = TcpStream::connect((address.as_str(), *port)).and_then(|mut line| {
            timed(&line, limit)?;
            line.write_all(&greeting)?;
            Ok(line)
        });
        match called {
            Ok(line) => return Ok(line),
            Err(error) if began.elapsed() > limit => {
                return Err(start(format!(
                    "nobody answers at MASTER_ADDR {address}, MASTER_PORT {port} ({error}): rank 0 has to run there and be \
                     reachable"
                )));
            }
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}

fn timed(line: &TcpStream, limit: Duration) -> std::io::Result<()> {
    line.set_nodelay(true)?;
    line.set_read_timeout(Some(limit))?;
    line.set_write_timeout(Some(limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Launcher;

    fn meeting() -> Meeting {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Meeting { address: "127.0.0.1".into(), port }
    }

    fn launch(rank: usize, world: usize) -> Launch {
        Launch { launcher: Launcher::Torch, rank, world, local: rank }
    }

    #[test]
    fn ranks_meet_in_any_order_and_hear_each_other() {
        let (meeting, limit) = (meeting(), Duration::from_secs(20));
        let threads: Vec<_> = [2, 0, 1]
            .map(|rank| {
                let meeting = meeting.clone();
                std::thread::spawn(move || {
                    let lines = Lines::open(launch(rank, 3), &meeting, limit).unwrap();
                    let mut heard = Vec::new();
                    for root in 0..3 {
                        let mut word = [lines.rank() as u8 * 10; 5];
                        lines.broadcast(&mut word, root).unwrap();
                        heard.push(word);
                    }
                    lines.barrier().unwrap();
                    heard
                })
            })
            .into();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), [[0; 5], [10; 5], [20; 5]]);
        }
    }

    #[test]
    fn a_stranger_is_hung_up_on_and_who_is_missing_is_named() {
        let (meeting, limit) = (meeting(), Duration::from_millis(1500));
        let port = meeting.port;
        let stranger = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let mut line = TcpStream::connect(("127.0.0.1", port)).unwrap();
            line.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        });
        let third = {
            let meeting = meeting.clone();
            std::thread::spawn(move || Lines::open(launch(2, 3), &meeting, limit).map(|lines| lines.barrier()))
        };
        let error = Lines::open(launch(0, 3), &meeting, limit).err().unwrap();
        assert_eq!(error, CollectiveError::Lost { ranks: vec![1], limit });
        stranger.join().unwrap();
        let _ = third.join().unwrap();
    }

    #[test]
    fn a_rank_that_goes_is_named() {
        let (meeting, limit) = (meeting(), Duration::from_secs(5));
        let other = {
            let meeting = meeting.clone();
            std::thread::spawn(move || drop(Lines::open(launch(1, 2), &meeting, limit).unwrap()))
        };
        let lines = Lines::open(launch(0, 2), &meeting, limit).unwrap();
        other.join().unwrap();
        assert_eq!(lines.barrier().unwrap_err(), CollectiveError::Lost { ranks: vec![1], limit });
    }

    #[test]
    fn a_place_where_nobody_is_is_named() {
        let meeting = meeting();
        let error = Lines::open(launch(1, 2), &meeting, Duration::from_millis(250)).err().unwrap().to_string();
        assert!(error.contains("nobody answers at MASTER_ADDR 127.0.0.1"), "{error}");
        let of = |pairs: &[(&str, &str)]| {
            Meeting::from(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(of(&[]).unwrap_err().to_string().contains("of which both are not set"));
        let half = of(&[("MASTER_ADDR", "node0")]).unwrap_err().to_string();
        assert!(half.contains("of which MASTER_PORT is not set"), "{half}");
        assert_eq!(Meeting::find(|_| None), Ok(None));
        let pet = of(&[("PET_MASTER_ADDR", "node0"), ("PET_MASTER_PORT", "29500")]).unwrap();
        assert_eq!(pet, Meeting { address: "node0".into(), port: 29500 });
        assert!(
            of(&[("MASTER_ADDR", "node0"), ("MASTER_PORT", "x")])
                .unwrap_err()
                .to_string()
                .contains("MASTER_PORT is `x`")
        );
    }
}
