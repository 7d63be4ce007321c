//! Data sets as they are published, made small from the carried clips: their own annotation files to a list, a probe, its
//! evaluation, the exported model, and the same answers from it. AVA is in `cli_detect.rs`, picture folders are in `frozen.rs`.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{texture, tiny, vjepa, write};

/// The golden model `tiny`, on every frame of the carried clips.
const CONFIG: &str = "
model: {embed_dim: 96, depth: 3, num_heads: 3}
data: {crop_size: 64, num_frames: 8, tubelet_size: 2, patch_size: 16, sampling_rate: 1}
";

/// The classes: the texture of a clip, under a name of two words.
const CLASSES: [&str; 4] = ["Falling Dots", "Moving Waves", "Rolling Checks", "Turning Noise"];

/// A carried clip: its class, and whether it is one to test on.
struct Clip {
    file: &'static str,
    id: usize,
    class: usize,
    test: bool,
}

/// Six clips of each class, two of which are for testing; H.264 and VP9.
fn clips() -> Vec<Clip> {
    let files: [[&str; 6]; 4] = [
        ["t0_d0_s0.mp4", "t0_d1_s1.mp4", "t0_d2_s0.mp4", "t0_d3_s0.webm", "t0_d4_s0.mp4", "t0_d5_s0.webm"],
        ["t1_d0_s0.webm", "t1_d1_s0.mp4", "t1_d2_s0.webm", "t1_d3_s0.mp4", "t1_d4_s0.webm", "t1_d5_s0.mp4"],
        ["t2_d0_s0.mp4", "t2_d1_s0.webm", "t2_d2_s0.mp4", "t2_d3_s0.webm", "t2_d4_s0.mp4", "t2_d5_s0.webm"],
        ["t3_d0_s0.webm", "t3_d1_s0.mp4", "t3_d2_s0.webm", "t3_d3_s0.mp4", "t3_d4_s0.webm", "t3_d5_s0.mp4"],
    ];
    let of_class = |class: usize| {
        let numbered = move |(number, file)| Clip { file, id: 100 * class + number, class, test: number > 3 };
        files[class].into_iter().enumerate().map(numbered)
    };
    (0..CLASSES.len()).flat_map(of_class).collect()
}

/// A data set in a folder, and the arguments of `vjepa data list` for its two parts.
struct Published {
    folder: tempfile::TempDir,
    train: Vec<String>,
    test: Vec<String>,
}

impl Published {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), train: Vec::new(), test: Vec::new() }
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }

    /// A clip under the name that the data set gives it; the ending is the clip's own.
    fn video(&self, name: &str, clip: &Clip) {
        let ending = Path::new(clip.file).extension().unwrap().to_str().unwrap();
        self.file(&format!("videos/{name}.{ending}"), std::fs::read(texture(clip.file)).unwrap());
    }

    fn lists(mut self, train: &[&str], test: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        (self.train, self.test) = (owned(train), owned(test));
        self
    }

    fn command(&self, name: &str) -> assert_cmd::Command {
        let mut command = vjepa();
        command.current_dir(self.folder.path()).arg(name);
        command
    }

    fn encoded(&self, name: &str) -> assert_cmd::Command {
        let mut command = self.command(name);
        command.args(["--config", "tiny.yaml", "--checkpoint"]).arg(tiny("weights.safetensors"));
        command
    }
}

fn said(command: &mut assert_cmd::Command) -> Vec<Value> {
    let output = command.arg("--json").assert().success().get_output().stdout.clone();
    String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn one(command: &mut assert_cmd::Command) -> Value {
    let mut lines = said(command);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Annotations to list, probe, evaluation and exported model; the exported model answers what the evaluation counted.
fn from_annotations_to_an_exported_model(data: &Published, names: &[&str]) {
    write(data.folder.path(), "tiny.yaml", CONFIG);
    let list = |arguments: &[String], out: &str| {
        let listed = one(data.command("data").arg("list").args(arguments).args(["--out", out]));
        assert_eq!(listed["classes"], names.len(), "{listed}");
        let left_out = listed["left_out"].as_array().unwrap();
        assert!(left_out.iter().all(|reason| reason["what"] == "belong to the other part of the split"), "{listed}");
        listed["samples"].as_u64().unwrap()
    };
    assert_eq!((list(&data.train, "train.csv"), list(&data.test, "test.csv")), (16, 8));
    let written = std::fs::read_to_string(data.folder.path().join("train.names.txt")).unwrap();
    assert_eq!(written.lines().collect::<Vec<_>>(), names);

    let mut probe = data.encoded("probe");
    probe.args(["--data", "train.csv", "--val", "test.csv", "--names", "train.names.txt", "--kind", "linear"]);
    let trained = one(probe.args(["--epochs", "60", "--lr", "0.03", "--out", "probe.safetensors"]));
    let mut eval = data.encoded("eval");
    let evaluated = one(eval.args(["--probe", "probe.safetensors", "--data", "test.csv"]));
    assert_eq!(evaluated["top1"], trained["val"]["top1"], "{evaluated}");
    let top1 = evaluated["top1"].as_f64().unwrap();
    // An encoder that never saw a video, and 16 of them: what it learned by heart says that labels and videos belong together.
    assert!(trained["train"]["top1"].as_f64().unwrap() >= 0.7, "one class in four by chance: {trained}");

    let mut compile = data.encoded("compile");
    compile.args(["--export", "onnx", "--probe", "probe.safetensors", "--out", "model.onnx"]).assert().success();
    let list = std::fs::read_to_string(data.folder.path().join("test.csv")).unwrap();
    let samples: Vec<(&str, usize)> = list
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(path, label)| (path, label.parse().unwrap()))
        .collect();
    let mut run = data.command("run");
    run.args(["model.onnx", "--runtime", "tract"]).args(samples.iter().map(|(path, _)| path));
    let answers = said(&mut run);
    assert_eq!(answers.len(), samples.len());
    let right = answers.iter().zip(&samples).filter(|(answer, (_, label))| answer["top"][0]["class"] == *label);
    assert_eq!(right.count() as f64 / samples.len() as f64, top1, "{answers:?}");
    for answer in &answers {
        let top = &answer["top"][0];
        assert_eq!(top["label"], names[top["class"].as_u64().unwrap() as usize], "{answer}");
    }
}

#[test]
fn ucf101() {
    let data = Published::empty();
    let name = |class: usize| CLASSES[class].replace(' ', "");
    let (mut train, mut test) = (String::new(), String::new());
    for clip in &clips() {
        let class = name(clip.class);
        let video = format!("{class}/v_{class}_g{:02}_c01", clip.id % 100);
        data.video(&video, clip);
        // Labels count from 1, and the test list has none.
        match clip.test {
            true => writeln!(test, "{video}.avi\r").unwrap(),
            false => writeln!(train, "{video}.avi {}\r", clip.class + 1).unwrap(),
        }
    }
    let classes = (0..CLASSES.len()).map(|class| format!("{} {}\r\n", class + 1, name(class))).collect::<String>();
    data.file("ucfTrainTestlist/classInd.txt", classes);
    data.file("ucfTrainTestlist/trainlist01.txt", train);
    data.file("ucfTrainTestlist/testlist01.txt", test);
    let more = ["--classes", "ucfTrainTestlist/classInd.txt", "--videos", "videos"];
    let part = |list| [&["ucf101", list], &more[..]].concat();
    let data = data.lists(&part("ucfTrainTestlist/trainlist01.txt"), &part("ucfTrainTestlist/testlist01.txt"));
    let names: Vec<String> = (0..CLASSES.len()).map(name).collect();
    from_annotations_to_an_exported_model(&data, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn hmdb51() {
    let data = Published::empty();
    let name = |class: usize| CLASSES[class].to_lowercase().replace(' ', "_");
    let mut splits: BTreeMap<String, String> = BTreeMap::new();
    for clip in &clips() {
        let class = name(clip.class);
        let video = format!("Some_film_{}_{class}_u_cm_np1_fr_med_0", clip.id);
        data.video(&format!("{class}/{video}"), clip);
        writeln!(splits.entry(class).or_default(), "{video}.avi {} ", 1 + usize::from(clip.test)).unwrap();
    }
    for (class, text) in &splits {
        data.file(&format!("splits/{class}_test_split2.txt"), text);
    }
    let train = ["hmdb51", "splits", "--videos", "videos", "--split", "2"];
    let data = data.lists(&train, &[&train[..], &["--test"]].concat());
    from_annotations_to_an_exported_model(&data, &splits.keys().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn something_something() {
    let data = Published::empty();
    let names: Vec<String> = CLASSES.iter().map(|class| format!("{class} over something")).collect();
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for clip in &clips() {
        data.video(&clip.id.to_string(), clip);
        let template = format!("{} over [something]", CLASSES[clip.class]);
        let entry = json!({"id": clip.id.to_string(), "label": template.to_lowercase(), "template": template, "placeholders": ["a cup"]});
        if clip.test { test.push(entry) } else { train.push(entry) }
    }
    let labels: BTreeMap<&String, String> = names.iter().zip((0..).map(|number: usize| number.to_string())).collect();
    data.file("labels/labels.json", serde_json::to_string(&labels).unwrap());
    data.file("labels/train.json", serde_json::to_string(&train).unwrap());
    data.file("labels/validation.json", serde_json::to_string(&test).unwrap());
    let part = |list| ["ssv2", list, "--classes", "labels/labels.json", "--videos", "videos"];
    let data = data.lists(&part("labels/train.json"), &part("labels/validation.json"));
    from_annotations_to_an_exported_model(&data, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn kinetics() {
    let data = Published::empty();
    let first = "label,youtube_id,time_start,time_end,split\n".to_owned();
    let (mut train, mut test) = (first.clone(), first);
    for clip in &clips() {
        let (class, id) = (CLASSES[clip.class].to_lowercase(), format!("-x{:03}_Yt", clip.id));
        data.video(&format!("{class}/{id}_{:06}_{:06}", clip.id, clip.id + 10), clip);
        let (to, split) = if clip.test { (&mut test, "val") } else { (&mut train, "train") };
        writeln!(to, "{class},{id},{},{},{split}", clip.id, clip.id + 10).unwrap();
    }
    data.file("train.csv.in", train);
    data.file("validate.csv.in", test);
    let part = |list| ["kinetics", list, "--videos", "videos"];
    let data = data.lists(&part("train.csv.in"), &part("validate.csv.in"));
    let names: Vec<String> = CLASSES.iter().map(|class| class.to_lowercase()).collect();
    from_annotations_to_an_exported_model(&data, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn diving48() {
    let data = Published::empty();
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for clip in &clips() {
        let name = format!("dive_{:05}", clip.id);
        data.video(&name, clip);
        let entry = json!({"vid_name": name, "label": clip.class, "start_frame": 0, "end_frame": 16});
        if clip.test { test.push(entry) } else { train.push(entry) }
    }
    let vocabulary: Vec<[&str; 4]> = CLASSES.iter().map(|class| [*class, "15som", "NoTwis", "PIKE"]).collect();
    data.file("Diving48_vocab.json", serde_json::to_string(&vocabulary).unwrap());
    data.file("Diving48_V2_train.json", serde_json::to_string(&train).unwrap());
    data.file("Diving48_V2_test.json", serde_json::to_string(&test).unwrap());
    let part = |list| ["diving48", list, "--classes", "Diving48_vocab.json", "--videos", "videos"];
    let data = data.lists(&part("Diving48_V2_train.json"), &part("Diving48_V2_test.json"));
    let names = std::fs::read_to_string(first_names(&data)).unwrap();
    from_annotations_to_an_exported_model(&data, &names.lines().collect::<Vec<_>>());
}

/// The class names as `vjepa data list` joins the vocabulary's words.
fn first_names(data: &Published) -> PathBuf {
    data.command("data").arg("list").args(&data.train).args(["--out", "first.csv"]).assert().success();
    data.folder.path().join("first.names.txt")
}
