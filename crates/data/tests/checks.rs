//! Scanning, packing and comparing data sets made of the carried videos.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{batches, carried, config, frames_of, loose, pack_copies};
use vjepa_data::checks::{Fingerprint, Journal, Same, Scanned, fingerprints, overlap, scan, table};
use vjepa_data::media::Opener;
use vjepa_data::shards::{PackPlan, Transcode, clips_per_second, index_path, pack};
use vjepa_data::{ENDINGS, Reading, VideoList, read_list};

/// The list of [`loose`] with three files that are broken in three ways.
fn mixed(folder: &Path) -> VideoList {
    let list = loose(folder);
    let mut text = std::fs::read_to_string(&list).unwrap();
    let whole = std::fs::read(carried().iter().find(|path| path.extension().unwrap() == "mp4").unwrap()).unwrap();
    std::fs::write(folder.join("text.mp4"), "no video ".repeat(200)).unwrap();
    std::fs::write(folder.join("cut.mp4"), &whole[..whole.len() * 3 / 4]).unwrap();
    for name in ["text.mp4", "cut.mp4", "missing.mp4"] {
        text.push_str(&format!("{name} 1\n"));
    }
    std::fs::write(&list, text).unwrap();
    read_list(&list).unwrap()
}

#[test]
fn a_scan_finds_what_is_broken_and_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let list = mixed(folder.path());
    let file = folder.path().join("scan.jsonl");
    let run = || {
        let decoded = AtomicUsize::new(0);
        let journal: Journal<Scanned> = Journal::open(Some(&file)).unwrap();
        let found = scan(&list, &journal, Opener::shared(), &|_| {
            decoded.fetch_add(1, Ordering::SeqCst);
        });
        (found.unwrap(), decoded.into_inner())
    };
    let (found, decoded) = run();
    assert_eq!((found.len(), decoded), (list.entries.len(), list.entries.len()));
    let (bad, good): (Vec<&Scanned>, Vec<&Scanned>) = found.iter().partition(|one| one.fault.is_some());
    assert_eq!((bad.len(), good.len()), (3, carried().len()));
    assert!(good.iter().all(|one| one.frames >= 8 && one.fps > 1.0 && one.width > 16 && !one.codec.is_empty()));
    let faults: Vec<&str> = bad.iter().filter_map(|one| one.fault.as_deref()).collect();
    assert!(faults[0].contains("it holds text"), "{faults:?}");
    assert!(bad[1].path.ends_with("cut.mp4"), "{faults:?}");
    assert!(faults[2].contains("no such file"), "{faults:?}");
    assert!(table(&found).contains(&["good".to_owned(), carried().len().to_string()]));
    // Nothing is decoded twice, but what has changed, and what was cut off with the run.
    assert_eq!(run(), (found.clone(), 0));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &text[..text.len() - 9]).unwrap();
    assert_eq!(run(), (found.clone(), 1));
    std::fs::write(&list.entries[0].path, "another file now").unwrap();
    let (again, decoded) = run();
    assert_eq!(decoded, 1);
    assert!(again[0].fault.is_some());
    std::fs::write(&file, "a text\nof someone\n").unwrap();
    assert!(Journal::<Scanned>::open(Some(&file)).unwrap_err().contains("line 1 is not what this command writes"));
}

/// A cut file is bad whatever its container says of frames that it lost, and a whole one is good.
#[test]
fn a_file_that_is_cut_off_is_bad_in_every_container() {
    let folder = tempfile::tempdir().unwrap();
    let clips = Path::new(env!("CARGO_MANIFEST_DIR")).join("../video/tests");
    let faults = |files: &[Vec<u8>]| -> Vec<Option<String>> {
        let names: Vec<String> = (0..files.len()).map(|number| format!("{number}.bin")).collect();
        for (name, bytes) in names.iter().zip(files) {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let list = folder.path().join("list.csv");
        std::fs::write(&list, names.iter().map(|name| format!("{name} 0\n")).collect::<String>()).unwrap();
        let found = scan(&read_list(&list).unwrap(), &Journal::open(None).unwrap(), Opener::shared(), &|_| {});
        found.unwrap().into_iter().map(|one| one.fault).collect()
    };
    for name in ["clips/vp9_ssv2.webm", "clips/odd_420_321x241.mkv", "clips/short_20f.mp4", "data/avc3_frag.mp4"] {
        let whole = std::fs::read(clips.join(name)).unwrap();
        let cut: Vec<Vec<u8>> = (1..10).map(|tenths| whole[..whole.len() * tenths / 10].to_vec()).collect();
        assert_eq!(faults(std::slice::from_ref(&whole)), [None], "{name}");
        for (fault, tenths) in faults(&cut).into_iter().zip(1..) {
            assert!(fault.is_some(), "{name}: {tenths} tenths of it are called good");
        }
    }
    let whole = std::fs::read(clips.join("clips/vp9_ssv2.webm")).unwrap();
    let at = |id: [u8; 4]| -> Vec<usize> {
        whole.windows(4).enumerate().filter(|(_, window)| *window == id).map(|(at, _)| at).collect()
    };
    // What recorders write that cannot go back: nobody knows how long it was to be.
    let segment = at([0x18, 0x53, 0x80, 0x67])[0];
    let mut live = whole.clone();
    live[segment + 4..segment + 12].copy_from_slice(&[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    // Cues and what follows hold no frames.
    let cues = *at([0x1C, 0x53, 0xBB, 0x6B]).last().unwrap();
    let (without, inside) = (whole[..cues].to_vec(), whole[..cues + 6].to_vec());
    assert_eq!(faults(&[live.clone(), live[..cues].to_vec(), without, inside]), [None, None, None, None]);
    let half = live[..live.len() / 2].to_vec();
    let told = faults(&[half])[0].clone().unwrap();
    assert!(told.contains("the file is cut off: ") && told.contains("frames ("), "{told}");
}

#[test]
fn a_pack_goes_on_where_it_was_stopped_and_leaves_out_what_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let list = mixed(folder.path());
    let out = folder.path().join("shards");
    let report = pack_copies(&list.path, &out, 60_000);
    assert_eq!((report.samples + report.left_out, report.left_out >= 2), (list.entries.len(), true), "{report:?}");
    let left_out = std::fs::read_to_string(out.join("left-out.jsonl")).unwrap();
    assert!(left_out.contains("text.mp4") && left_out.contains("missing.mp4"), "{left_out}");
    let bytes = |number: usize| std::fs::read(&report.shards[number].shard).unwrap();
    let (first, last) = (bytes(0), bytes(1));
    // As if it had been stopped while writing the second shard.
    std::fs::remove_file(index_path(&report.shards[1].shard)).unwrap();
    std::fs::write(&report.shards[1].shard, "half of it").unwrap();
    let again = pack_copies(&list.path, &out, 1);
    assert_eq!(again.shards.iter().filter(|shard| !shard.earlier).count(), 1);
    assert_eq!((bytes(0), bytes(1)), (first, last), "the same bytes");
    assert_eq!((again.samples, again.left_out), (report.samples, report.left_out));
    let other = VideoList::of(&list.path, list.entries[1..].to_vec());
    let plan =
        PackPlan { list: &other, out: &out, name: "train", shard_bytes: 1, transcode: None, opener: Opener::shared() };
    assert!(pack(&plan, &|_| {}).unwrap_err().contains("holds a pack of other samples"));
    assert!(pack(&PackPlan { name: "a/b", ..plan }, &|_| {}).unwrap_err().contains("cannot begin a file's name"));
    let bad = VideoList::of(&list.path, list.entries[list.entries.len() - 1..].to_vec());
    let none = folder.path().join("none");
    let plan =
        PackPlan { list: &bad, out: &none, name: "train", shard_bytes: 1, transcode: None, opener: Opener::shared() };
    assert!(pack(&plan, &|_| {}).unwrap_err().contains("none of the 1 samples can be read"));
    assert!(clips_per_second(&list, Opener::shared(), 4) > 0.0);
}

#[test]
fn videos_are_made_small_by_ffmpeg_with_the_same_frames() {
    let transcode = Transcode { short_side: 24, ..Transcode::new("ffmpeg") };
    if let Err(why) = transcode.check() {
        eprintln!("not tested: {why}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let videos: Vec<_> = carried().into_iter().take(3).collect();
    frames_of(&videos[0], &folder.path().join("frames"));
    let list = folder.path().join("list.csv");
    let mut lines: String = videos.iter().map(|video| format!("{} 1\n", video.display())).collect();
    lines.push_str("frames 2\n");
    std::fs::write(&list, lines).unwrap();
    let list = read_list(&list).unwrap();
    let out = folder.path().join("shards");
    let plan = PackPlan {
        list: &list,
        out: &out,
        name: "small",
        shard_bytes: 1 << 30,
        transcode: Some(transcode),
        opener: Opener::shared(),
    };
    let report = pack(&plan, &|_| {}).unwrap();
    let left_out = std::fs::read_to_string(out.join("left-out.jsonl")).unwrap();
    assert_eq!((report.samples, report.left_out), (4, 0), "{left_out}");
    let packed = read_list(&out).unwrap();
    assert_eq!(
        packed.entries.iter().map(|entry| entry.label).collect::<Vec<_>>(),
        [Some(1), Some(1), Some(1), Some(2)]
    );
    for (before, after) in list.entries.iter().zip(&packed.entries) {
        let (before, after) =
            (Opener::shared().open(&before.path).unwrap(), Opener::shared().open(&after.path).unwrap());
        assert_eq!(after.info().frames, before.info().frames);
        assert_eq!(after.info().width().min(after.info().height()), 24);
    }
    assert_eq!(batches(&config(&[&out]), 2).len(), 2);
    others_are_transcoded(folder.path(), &videos[0]);
    assert!(Transcode::new("no-such-program").check().unwrap_err().contains("cannot be run"));
}

#[test]
fn the_same_video_is_found_under_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let videos = carried();
    // One as frames, one under another name; the others are not in the second list.
    frames_of(&videos[0], &folder.path().join("other"));
    std::fs::copy(&videos[1], folder.path().join("copy.bin.mp4")).unwrap();
    let second = folder.path().join("second.csv");
    std::fs::write(&second, "other\ncopy.bin.mp4\n").unwrap();
    let first = folder.path().join("first.csv");
    std::fs::write(&first, videos.iter().map(|video| format!("{}\n", video.display())).collect::<String>()).unwrap();
    let prints = |list: &Path| {
        let journal: Journal<Fingerprint> = Journal::open(None).unwrap();
        fingerprints(&read_list(list).unwrap(), &journal, Opener::shared(), &|_| {}).unwrap()
    };
    let (first, second) = (prints(&first), prints(&second));
    assert!(first.iter().all(|print| print.fault.is_none()));
    let found = overlap(&first, &second);
    let own: Vec<_> = found.iter().map(|one| (one.index, one.by)).collect();
    assert_eq!(own, [(0, Same::Frames), (1, Same::Frames)], "{found:?}");
}

/// What only ffmpeg decodes goes into shards too, and what it finds damaged does not. A folder is searched for both.
fn others_are_transcoded(folder: &Path, video: &Path) {
    let old = folder.join("old");
    std::fs::create_dir(&old).unwrap();
    let ffmpeg = |arguments: &[&str], out: &Path| {
        let mut command = std::process::Command::new("ffmpeg");
        command.args(["-v", "error", "-i"]).arg(video).args(arguments).arg(out);
        assert!(command.status().unwrap().success());
    };
    ffmpeg(&["-c:v", "mpeg4", "-q:v", "3"], &old.join("a.avi"));
    ffmpeg(&["-c:v", "mpeg2video", "-q:v", "3"], &old.join("b.mpg"));
    let whole = std::fs::read(old.join("a.avi")).unwrap();
    std::fs::write(old.join("c.avi"), &whole[..whole.len() * 3 / 4]).unwrap();
    // Which ffmpeg makes good without a word.
    let mut damaged = std::fs::read(video).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 200].fill(0xff);
    std::fs::write(old.join("d.mp4"), damaged).unwrap();
    let list = Reading { endings: ENDINGS, ..Reading::default() }.read(&old).unwrap();
    assert_eq!(list.entries.len(), 4);
    let out = folder.join("old-shards");
    let transcode = Some(Transcode { short_side: 24, ..Transcode::new("ffmpeg") });
    let plan =
        PackPlan { list: &list, out: &out, name: "old", shard_bytes: 1 << 30, transcode, opener: Opener::shared() };
    let report = pack(&plan, &|_| {}).unwrap();
    let left_out = std::fs::read_to_string(out.join("left-out.jsonl")).unwrap();
    assert_eq!((report.samples, left_out.lines().count()), (2, 2), "{left_out}");
    assert!(left_out.contains("c.avi") && left_out.contains("d.mp4"), "{left_out}");
    let frames = Opener::shared().open(video).unwrap().info().frames;
    for entry in read_list(&out).unwrap().entries {
        assert_eq!(Opener::shared().open(&entry.path).unwrap().info().frames, frames, "{}", entry.path.display());
    }
}
