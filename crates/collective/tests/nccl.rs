//! NCCL's path with a stand-in for its library and the driver's: rendezvous, identifier, sums.
#![cfg(feature = "nccl")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vjepa_collective::{
    Beside, Collective, CollectiveError, Control, Launch, Launcher, Libraries, Lines, Meeting, Nccl, OnDevice, agree,
    sum_alone, totals,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Compiles the stand-in; the linker of Rust programs is a C compiler too.
fn stand_in(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("lib{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-pthread", "-o"]).arg(&library).arg(source);
    assert!(cc.status().unwrap().success());
    library
}

fn libraries(path: PathBuf) -> Libraries {
    Libraries { nccl: path.clone(), cuda: path }
}

fn meeting() -> Meeting {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Meeting { address: "127.0.0.1".into(), port }
}

fn launch(rank: usize, world: usize) -> Launch {
    Launch { launcher: Launcher::Torch, rank, world, local: rank }
}

fn lines(rank: usize, world: usize, meeting: Meeting) -> impl FnOnce() -> Result<Box<dyn Control>, CollectiveError> {
    move || Ok(Box::new(Lines::open(launch(rank, world), &meeting, LIMIT)?))
}

#[test]
fn one_rank_sums_alone() {
    let libraries = libraries(stand_in("one"));
    assert!(sum_alone(0, &libraries, 10_000).unwrap() < LIMIT);
    let missing = Libraries { nccl: "no-such-nccl.so".into(), ..libraries };
    assert!(sum_alone(0, &missing, 1).unwrap_err().to_string().contains("NCCL cannot be opened"));
}

#[test]
fn two_ranks_meet_and_sum() {
    let (meeting, libraries) = (meeting(), libraries(stand_in("together")));
    let ranks = [0, 1].map(|rank| {
        let (meeting, libraries) = (meeting.clone(), libraries.clone());
        std::thread::spawn(move || {
            let start = move || Nccl::start(launch(rank, 2), lines(rank, 2, meeting), rank, &libraries);
            let ranks = Beside::start(start).unwrap();
            assert_eq!((ranks.rank(), ranks.world()), (rank, 2));
            agree(&ranks, &[("plan", "the same".into())]).unwrap();
            assert!(
                agree(&ranks, &[("plan", rank.to_string())]).unwrap_err().to_string().starts_with("rank 1 had another")
            );
            let mut sums = Vec::new();
            for length in [3, 1000, 10] {
                let mut values: Vec<f32> = (0..length).map(|i| (i * (rank + 1)) as f32).collect();
                ranks.all_reduce(&mut values).unwrap();
                assert_eq!(values, (0..length).map(|i| (i * 3) as f32).collect::<Vec<_>>());
                sums.push(values);
            }
            ranks.all_reduce(&mut []).unwrap();
            // Where they lie: the stand-in's device has the host's memory.
            assert_eq!(ranks.sums_on_device(), Some(rank));
            let mut parts = [vec![1.0f32 + rank as f32; 5], Vec::new(), vec![0.5; 700]];
            let places = parts.iter_mut().map(|part| {
                // SAFETY: the vectors live until the sum has been waited for, and nothing looks at them before.
                unsafe { OnDevice::new(part.as_mut_ptr() as u64, part.len()) }
            });
            let summed = ranks.begin_sum_on(places.collect()).wait().unwrap();
            assert!(summed.values.is_empty());
            assert_eq!(parts, [vec![3.0; 5], Vec::new(), vec![1.0; 700]]);
            sums.extend(parts);
            assert_eq!(totals(&ranks, &[0.1, rank as f64]).unwrap(), [0.2, 1.0]);
            ranks.barrier().unwrap();
            sums
        })
    });
    let [first, second] = ranks.map(|rank| rank.join().unwrap());
    assert_eq!(first, second);
}

#[test]
fn what_is_missing_is_named() {
    let start = |libraries: &Libraries, device: usize| {
        let error = Nccl::start(launch(0, 1), lines(0, 1, meeting()), device, libraries).err().unwrap();
        error.to_string()
    };
    let none = Libraries { nccl: "libnot-there.so".into(), cuda: "libnot-there.so".into() };
    assert!(start(&none, 0).contains("NCCL cannot be opened"), "{}", start(&none, 0));
    let there = libraries(stand_in("alone"));
    assert!(start(&there, 7).contains("the NVIDIA driver returned error 101"), "{}", start(&there, 7));
    let other = Libraries { cuda: "libm.so.6".into(), ..there };
    assert!(start(&other, 0).contains("too old or another one"), "{}", start(&other, 0));
}

/// A rank of the test below, which `mpirun` starts.
#[cfg(feature = "mpi")]
#[test]
#[ignore = "started by mpirun"]
fn a_rank_that_mpirun_started() {
    let launch = Launch::from_env().unwrap().unwrap();
    let library = PathBuf::from(std::env::var_os("STAND_IN").unwrap());
    let ranks = vjepa_collective::ranks_on_gpus(launch, libraries(library), LIMIT).unwrap();
    assert_eq!((ranks.rank(), ranks.world()), (launch.rank, 2));
    agree(&ranks, &[("plan", "the same".into())]).unwrap();
    assert!(agree(&ranks, &[("plan", launch.rank.to_string())]).unwrap_err().to_string().starts_with("rank 1 had"));
    assert_eq!(totals(&ranks, &[1.5, launch.rank as f64]).unwrap(), [3.0, 1.0]);
    ranks.barrier().unwrap();
    println!("rank {} has met", launch.rank);
}

/// Without `MASTER_ADDR` the identifier travels by MPI. The stand-in sums within one process, so nothing is summed here.
#[cfg(feature = "mpi")]
#[test]
fn ranks_of_mpirun_meet_by_mpi() {
    let library = stand_in("processes");
    let mut mpirun = Command::new("mpirun");
    mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").env("STAND_IN", library);
    mpirun.env_remove("MASTER_ADDR").args(["--oversubscribe", "-n", "2"]).arg(std::env::current_exe().unwrap());
    mpirun.args(["--ignored", "--exact", "a_rank_that_mpirun_started", "--nocapture"]);
    let output = mpirun.output().expect("mpirun is installed (openmpi-bin)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("rank 0 has met") && said.contains("rank 1 has met"), "{said}");
}
