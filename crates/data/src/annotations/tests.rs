use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::list::read_list;

/// A folder of annotation files and empty videos.
struct Data(TempDir);

impl Data {
    fn of(videos: &[&str]) -> Self {
        let data = Self(tempfile::tempdir().unwrap());
        videos.iter().for_each(|video| drop(data.file(&format!("videos/{video}"), "")));
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn videos(&self) -> FileIndex {
        FileIndex::of(&self.path("videos")).unwrap()
    }
}

/// File names and labels.
fn samples(listing: &Listing) -> Vec<(String, Option<i64>)> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    listing.entries.iter().map(|entry| (name(&entry.path), entry.label)).collect()
}

fn own(name: &str, label: i64) -> (String, Option<i64>) {
    (name.to_owned(), Some(label))
}

/// Checks that an error is one sentence with the file, the line and these words.
fn says<T: std::fmt::Debug>(result: Result<T, AnnotationError>, place: &str, words: &[&str]) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(place) && words.iter().all(|word| error.contains(word)), "{error}");
    assert!(!error.contains('\n') && !error.contains(". "), "{error}");
}

const K400: &str = "label,youtube_id,time_start,time_end,split,is_cc\n\
    \"massaging person's head\",-abc,10,20,train,0\nabseiling,xyz_1,0,10,train,0\nabseiling,gone,3,13,train,0\n";

#[test]
fn kinetics_csv() {
    let data = Data::of(&["abseiling/xyz_1_000000_000010.mp4", "other/-abc_000010_000020.webm"]);
    let windows = format!("\u{feff}{}", K400.replace('\n', "\r\n"));
    for text in [K400.to_owned(), windows] {
        let listing = kinetics(&data.file("train.csv", text), &data.videos(), None).unwrap();
        assert_eq!(listing.classes, ["abseiling", "massaging person's head"]);
        let wanted = [own("-abc_000010_000020.webm", 1), own("xyz_1_000000_000010.mp4", 0)];
        assert_eq!(samples(&listing), wanted);
        assert_eq!(listing.lines, [2, 3]);
        assert_eq!(listing.left_out(), 1);
        let text = listing.to_string();
        assert!(text.contains("2 samples of 2 classes; 1 left out: 1 have no file in"), "{text}");
        assert!(text.contains("(the first: gone_000003_000013)"), "{text}");
    }
}

#[test]
fn kinetics_refuses_what_it_cannot_mean() {
    let data = Data::of(&["a.mp4"]);
    let read = |text: &str| kinetics(&data.file("train.csv", text), &data.videos(), None);
    let header = "label,youtube_id,time_start,time_end\n";
    says(read("label,youtube_id,time_start\nx,a,1\n"), "train.csv: line 1", &["no column `time_end`"]);
    says(read("youtube_id,time_start,time_end,split\na,1,2,test\n"), "line 1", &["no labels", "validate.csv"]);
    says(read(&format!("{header}x,a,20,10\n")), "train.csv: line 2", &["span from 20 to 10", "correct"]);
    says(read(&format!("{header}x,a,0,10\nx,a,-5,5\n")), "line 3", &["span from -5 to 5"]);
    says(read(&format!("{header}x,a,0,ten\n")), "line 2", &["`ten`"]);
    says(read(&format!("{header}x,a,0\n")), "line 2", &["3 of 4 columns"]);
    for times in ["0.5,10", "0,10.7"] {
        says(read(&format!("{header}x,a,0,10\nx,a,{times}\n")), "train.csv: line 3", &["whole seconds", "clip's name"]);
    }
    assert_eq!(read(&format!("{header}x,a,0.0,10.0\n")).unwrap().entries.len(), 1);
    // The whole video stands for its spans.
    let spans = [("x,a,10,20\n", "a_000010_000020"), ("x,a,0,10\n", "remove one of the lines")];
    for (other, remedy) in spans {
        let both = format!("{header}x,a,0,10\n{}", other.replacen('x', "y", 1));
        says(read(&both), "train.csv: line 3", &["a.mp4, of which line 2 says `x`", "`y` is the class", remedy]);
        let listing = read(&format!("{header}x,a,0,10\n{other}")).unwrap();
        assert_eq!((samples(&listing), listing.left_out()), (vec![own("a.mp4", 0)], 1));
        assert!(listing.to_string().contains("1 name a file that is listed already, for the same class"), "{listing}");
    }
    says(read("\n"), "train.csv", &["is empty"]);
    let names = data.file("names.txt", "one\r\ntwo\r\n");
    let classes = Classes::read(&names).unwrap();
    let path = data.file("val.csv", format!("{header}one,a,0,10\nthree,a,0,10\n"));
    says(kinetics(&path, &data.videos(), Some(&classes)), "val.csv: line 3", &["`three`", "names.txt", "2 classes"]);
    says(Classes::read(&data.file("twice.txt", "a\nb\na\n")), "twice.txt: line 3", &["`a`", "line 1"]);
    says(kinetics(&data.path("no.csv"), &data.videos(), None), "no.csv", &["cannot be read"]);
    says(FileIndex::of(&data.0.path().join("none")), "none", &["cannot be read"]);
    std::fs::create_dir(data.path("empty")).unwrap();
    says(FileIndex::of(&data.path("empty")), "empty", &["holds no videos"]);
}

#[test]
fn kinetics_json() {
    let data = Data::of(&["a_000003_000013.mp4"]);
    let text = "{\"a\": {\"annotations\": {\"label\": \"x\", \"segment\": [3.0, 13.0]}, \"subset\": \"train\"},\n \
        \"b\": {\"annotations\": {\"label\": \"y\", \"segment\": [1.0, 2.0]}}}";
    let listing = kinetics(&data.file("train.json", text), &data.videos(), None).unwrap();
    assert_eq!(samples(&listing), [own("a_000003_000013.mp4", 0)]);
    assert_eq!((listing.classes.len(), listing.left_out()), (2, 1));
    let read = |text: &str| kinetics(&data.file("train.json", text), &data.videos(), None);
    says(read(&text.replace("[1.0, 2.0]", "[2.0, 1.0]")), "train.json: line 2", &["span from 2 to 1"]);
    says(read(&text.replace("[1.0, 2.0]", "[1.5, 2.5]")), "train.json: line 2", &["whole seconds"]);
    says(read("{\"a\": {\"subset\": \"test\"}}"), "train.json: line 1", &["no `annotations`"]);
    says(read("{\"a\": "), "train.json: line 1", &["is not JSON"]);
    says(read("[1]"), "train.json", &["must be an object"]);
}

#[test]
fn something_something() {
    let data = Data::of(&["78687.webm", "42.webm"]);
    let labels = data.file("labels.json", "{\"Holding something\": \"0\",\n\"Moving something up\": \"1\"}");
    let row =
        |id: &str, template: &str| format!("{{\"id\": \"{id}\", \"label\": \"l\", \"template\": \"{template}\"}}");
    let text = format!(
        "\u{feff}[{},\r\n{},\r\n{}]",
        row("42", "Moving [something] up"),
        row("78687", "Holding [something]"),
        row("7", "Holding [something]")
    );
    let listing = ssv2(&data.file("train.json", text), &labels, &data.videos()).unwrap();
    assert_eq!(samples(&listing), [own("42.webm", 1), own("78687.webm", 0)]);
    assert_eq!(listing.classes, ["Holding something", "Moving something up"]);
    assert_eq!(listing.left_out(), 1);
    let read = |text: &str| ssv2(&data.file("train.json", text), &labels, &data.videos());
    let unknown = format!("[{},\n{}]", row("42", "Holding [something]"), row("78687", "Eating [something]"));
    says(read(&unknown), "train.json: line 2", &["`Eating something`", "labels.json"]);
    says(read("[{\"id\": \"42\"}]"), "train.json: line 1", &["no `template`", "validation.json"]);
    says(read("[{\"template\": \"x\"}]"), "train.json", &["entry 1", "no `id`"]);
    says(read("{}"), "train.json", &["must hold a list"]);
    let from_one = data.file("one.json", "{\"a\": \"1\",\n\"b\": \"2\"}");
    says(
        ssv2(&data.path("train.json"), &from_one, &data.videos()),
        "one.json: line 2",
        &["count from 0", "subtract 1"],
    );
}

#[test]
fn ucf101_lists() {
    let data =
        Data::of(&["HandstandPushups/v_HandStandPushups_g01_c01.mp4", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi"]);
    let index = data.file("classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n");
    let train =
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi 1\r\nHandstandPushups/v_HandstandPushups_g01_c01.avi 2\r\n";
    let listing = ucf101(&data.file("trainlist01.txt", train), &index, &data.videos()).unwrap();
    let ending = usize::from(crate::dialect::unread("avi").is_some());
    assert_eq!(ending, usize::from(!cfg!(feature = "ffmpeg")));
    assert_eq!(samples(&listing)[1 - ending..], [own("v_HandStandPushups_g01_c01.mp4", 1)]);
    assert_eq!(listing.left_out(), ending);
    assert!(
        ending == 0
            || listing
                .to_string()
                .contains("1 .avi, which is not read: convert to .mp4 or use `vjepa data pack`, or build with")
    );
    let test = "HandstandPushups/v_HandStandPushups_g01_c01.avi\n";
    let listing = ucf101(&data.file("testlist01.txt", test), &index, &data.videos()).unwrap();
    assert_eq!(samples(&listing), [own("v_HandStandPushups_g01_c01.mp4", 1)]);
    let read = |text: &str| ucf101(&data.file("list.txt", text), &index, &data.videos());
    says(read("HandstandPushups/v_a.avi 1\n"), "list.txt: line 1", &["label 1", "count from 1", "add 1"]);
    says(read("HandstandPushups/v_a.avi 7\n"), "list.txt: line 1", &["label 7", "`HandstandPushups`, 2"]);
    says(read("\nJuggling/v_a.avi 1\n"), "list.txt: line 2", &["`Juggling`", "classInd.txt"]);
    says(read("v_a.avi 1\n"), "list.txt: line 1", &["Class/video.avi"]);
    let zero = data.file("zero.txt", "0 ApplyEyeMakeup\n1 HandstandPushups\n");
    says(ucf101(&data.path("list.txt"), &zero, &data.videos()), "zero.txt: line 1", &["`1 ClassName`"]);
}

#[test]
fn hmdb51_splits() {
    let data = Data::of(&["wave/b#1_(x).mp4", "brush_hair/a&b.mp4", "wave/a&b.mp4"]);
    data.file("splits/brush_hair_test_split1.txt", "a&b.avi 1 \r\nc.avi 2 \r\n");
    data.file("splits/wave_test_split1.txt", "a&b.avi 2 \nb#1_(x).avi 1 \nd.avi 0 \n");
    data.file("splits/wave_test_split2.txt", "a&b.avi 1 \n");
    let listing = hmdb51(&data.path("splits"), 1, HmdbPart::Train, &data.videos()).unwrap();
    assert_eq!(samples(&listing), [own("a&b.mp4", 0), own("b#1_(x).mp4", 1)]);
    assert!(listing.entries[0].path.to_string_lossy().contains("brush_hair"));
    assert_eq!(listing.classes, ["brush_hair", "wave"]);
    assert_eq!(listing.left_out(), 3);
    assert!(listing.to_string().contains("1 marked 0"), "{listing}");
    let listing = hmdb51(&data.path("splits"), 1, HmdbPart::Test, &data.videos()).unwrap();
    assert_eq!(samples(&listing), [own("a&b.mp4", 1)]);
    assert!(listing.entries[0].path.to_string_lossy().contains("wave"));
    says(hmdb51(&data.path("splits"), 4, HmdbPart::Test, &data.videos()), "splits", &["_test_split4.txt"]);
    data.file("splits/wave_test_split1.txt", "a.avi 1\nb.avi 3\n");
    says(
        hmdb51(&data.path("splits"), 1, HmdbPart::Test, &data.videos()),
        "wave_test_split1.txt: line 2",
        &["0, 1 or 2"],
    );
}

#[test]
fn diving48_json() {
    let data = Data::of(&["_8Vy3dlHg2w_00000.mp4"]);
    let vocabulary = data.file("vocab.json", "[[\"Back\", \"15som\", \"NoTwis\", \"PIKE\"], [\"Forward\", \"PIKE\"]]");
    let row = |name: &str, label: i64, end: i64| {
        format!("{{\"vid_name\": \"{name}\", \"label\": {label}, \"start_frame\": 0, \"end_frame\": {end}}}")
    };
    let name = "_8Vy3dlHg2w_00000";
    let read = |rows: &[String]| {
        diving48(&data.file("train.json", format!("[{}]", rows.join(",\n"))), &vocabulary, &data.videos())
    };
    let listing = read(&[row(name, 1, 9), row("gone", 0, 9)]).unwrap();
    assert_eq!(samples(&listing), [own("_8Vy3dlHg2w_00000.mp4", 1)]);
    assert_eq!(listing.classes, ["Back 15som NoTwis PIKE", "Forward PIKE"]);
    assert_eq!(listing.left_out(), 1);
    says(read(&[row("x", 1, 9), row(name, 2, 9)]), "train.json: line 2", &["label 2", "count from 1", "subtract 1"]);
    says(read(&[row("x", 0, 9), row(name, 2, 9)]), "train.json: line 2", &["label 2", "correct it"]);
    says(read(&[row(name, 0, -9)]), "train.json: line 1", &["span from frame 0 to -9"]);
    let missing = "{\"vid_name\": \"v\", \"start_frame\": 0}".to_owned();
    says(read(&[missing]), "train.json: line 1", &["no `label`", "`vid_name`"]);
    says(
        diving48(&data.path("train.json"), &data.file("v.json", "{}"), &data.videos()),
        "v.json",
        &["list of classes"],
    );
}

#[test]
fn ava_boxes() {
    let data = Data::of(&["-5KQ66BBWC4.mkv"]);
    let text = "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\r\n-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1\r\n\
        -5KQ66BBWC4,0902,0.332,0.194,1.001,0.891,12,0\r\nzz_1,904\r\nzz_1,905,0.1,0.1,0.2,0.2,,3\r\n";
    let path = data.file("ava_train_v2.2.csv", format!("\u{feff}{text}"));
    let boxes = ava::read_boxes(&path, None).unwrap();
    let frame = |video: &str, second| ava::KeyFrame { video: video.into(), second };
    let people = &boxes.frames[&frame("-5KQ66BBWC4", 902)];
    assert_eq!((people.len(), &people[0].actions[..], people[1].corners[2]), (2, &[80, 9][..], 1.0));
    assert_eq!((people[1].person, people[1].line, boxes.clipped), (Some(0), 3, 1));
    assert!(boxes.frames[&frame("zz_1", 904)].is_empty());
    assert!(boxes.frames[&frame("zz_1", 905)][0].actions.is_empty());
    let listing = ava::listing(&path, &boxes, &data.videos());
    assert_eq!(samples(&listing), [("-5KQ66BBWC4.mkv".to_owned(), None)]);
    assert_eq!(listing.left_out(), 1);

    let map = data.file(
        "map.pbtxt",
        "item {\n  name: \"bend/bow (at the waist)\"\n  id: 1\n}\nitem {\n  label_id: 80\n  name: \"watch\"\n}\n",
    );
    let actions = ava::read_label_map(&map).unwrap();
    assert_eq!(actions[&1], "bend/bow (at the waist)");
    says(ava::read_boxes(&path, Some(&actions)), "line 2", &["action 9", "up to 80", "count from 1"]);
    let excluded = ava::read_excluded(&data.file("excluded.csv", "a,0902\nb,1798\n")).unwrap();
    assert!(excluded.contains(&frame("b", 1798)));
}

#[test]
fn ava_refuses_what_it_cannot_mean() {
    let data = Data::of(&[]);
    let read = |text: &str| ava::read_boxes(&data.file("ava.csv", text), None);
    let good = "v,902,0.1,0.1,0.2,0.2,1,0\n";
    says(read(&format!("{good}v,902,0.1,0.1,0.2\n")), "ava.csv: line 2", &["5 columns", "video,second"]);
    says(read(&format!("{good}v,902,12,0.1,31,0.2,1,0\n")), "ava.csv: line 2", &["coordinate 12", "divide pixels"]);
    says(read(&format!("{good}v,902,-0.3,0.1,0.2,0.2,1,0\n")), "ava.csv: line 2", &["coordinate -0.3"]);
    says(read(&format!("{good}v,902,0.5,0.1,0.2,0.2,1,0\n")), "ava.csv: line 2", &["reversed", "x1 < x2"]);
    says(read("video_id,second,x1,y1,x2,y2,action,person\n"), "ava.csv: line 1", &["`second`", "no header"]);
    says(read(&format!("{good}v,902,0.1,NaN,0.2,0.2,1,0\n")), "ava.csv: line 2", &["coordinate NaN"]);
    says(read(&format!("{good}v,902,0.1,0.1,0.2,0.2,run,0\n")), "ava.csv: line 2", &["`run`", "an action"]);
    let people = |text: &str| ava::read_people(&data.file("people.csv", text), 0.8);
    let found = people("v,0902,0.1,0.1,0.2,0.2,,0.8\nv,0902,0.1,0.1,0.2,0.2,,0.79\n").unwrap();
    assert_eq!((found.frames.values().map(Vec::len).sum::<usize>(), found.below), (1, 1));
    says(people("v,902,0.1,0.1,0.2,0.2,,80\n"), "people.csv: line 1", &["`80`", "score"]);
    says(people("[{\"image_id\": 1}]"), "people.csv", &["JSON", "pixels"]);
    let map = |text: &str| ava::read_label_map(&data.file("map.pbtxt", text));
    says(map("item {\n  id: 0\n}\n"), "map.pbtxt: line 2", &["`0`", "from 1"]);
    says(map("item {\n  id: 1\n}\n"), "map.pbtxt: line 3", &["`name`"]);
    says(map("item {\n  name: \"a\"\n  id: 1\n}\nitem {\n  name: \"b\"\n  id: 1\n}\n"), "line 8", &["`a`", "id 1"]);
    says(map("label: 3\n"), "map.pbtxt", &["no item"]);
}

#[test]
fn image_folders() {
    let data = Data::of(&[]);
    for name in ["n02/b.JPEG", "n02/sub/a.png", "n01/z.jpg", "n01/x.tif", "n01/notes.txt"] {
        data.file(&format!("train/{name}"), "");
    }
    let listing = image_folder(&data.path("train")).unwrap();
    assert_eq!(samples(&listing), [own("z.jpg", 0), own("b.JPEG", 1), own("a.png", 1)]);
    assert_eq!(listing.classes, ["n01", "n02"]);
    assert_eq!(listing.left_out(), 2);
    assert!(listing.to_string().contains("1 .tif, which is not read"), "{listing}");
    data.file("val/ILSVRC2012_val_00000001.JPEG", "");
    says(image_folder(&data.path("val")), "val", &["1 pictures and no class folder", "wnid"]);
    std::fs::create_dir(data.path("train/n03")).unwrap();
    says(image_folder(&data.path("train")), "n03", &["class folder without pictures"]);
    std::fs::create_dir(data.path("empty")).unwrap();
    says(image_folder(&data.path("empty")), "empty", &["neither class folders nor pictures"]);
}

#[test]
fn listings_are_written_as_plain_lists() {
    let data = Data::of(&["my clips/a_000000_000010.mp4", "b.mp4"]);
    let text = "label,youtube_id,time_start,time_end\nx y,a,0,10\nz,b,0,10\n";
    let listing = kinetics(&data.file("train.csv", text), &data.videos(), None).unwrap();
    let (list, names) = (data.path("list.csv"), data.path("names.txt"));
    listing.write(&list, &names).unwrap();
    let read = read_list(&list).unwrap();
    read.check_found().unwrap();
    assert_eq!(read.entries, listing.entries);
    assert_eq!(Classes::read(&names).unwrap().names, listing.classes);
    let none = Listing { path: "train.csv".into(), ..Listing::default() };
    says(none.write(&list, &names), "train.csv", &["no sample to list"]);
    let nowhere = data.path("no/list.csv");
    says(listing.write(&nowhere, &names), "list.csv", &["cannot be written"]);
}

#[test]
fn labels_that_count_from_one_are_told() {
    let data = Data::of(&[]);
    let list = |text: &str| read_list(&data.file("list.csv", text)).unwrap();
    check_labels(&list("a.mp4 0\nb.mp4 1\nc.mp4\n"), 2).unwrap();
    says(check_labels(&list("a.mp4 1\nb.mp4 2\n"), 2), "list.csv: line 2", &["0 to 1", "subtract 1"]);
    says(check_labels(&list("a.mp4 0\nb.mp4 2\n"), 2), "list.csv: line 2", &["label 2", "correct the label"]);
    says(check_labels(&list("a.mp4 -1\n"), 2), "list.csv: line 1", &["label -1"]);
}

#[test]
fn subsets_are_balanced_nested_and_drawn_by_split() {
    let data = Data::of(&[]);
    let lines: Vec<String> = (0..300).map(|i| format!("{i}.mp4 {}\n", i % 3)).collect();
    let list = read_list(&data.file("list.csv", lines.concat())).unwrap();
    let share = |text: &str| text.parse::<Share>().unwrap();
    let chosen = |text: &str, split| subset(&list, share(text), split).unwrap();
    let five = chosen("5%", 0);
    for label in 0..3 {
        assert_eq!(five.indices.iter().filter(|&&index| index % 3 == label).count(), 5);
    }
    assert_eq!((five.notes.len(), five.indices.len()), (0, 15));
    assert!(five.indices.iter().all(|index| chosen("10%", 0).indices.contains(index)));
    assert_ne!(five.indices, chosen("5%", 1).indices);
    assert_ne!(five.indices, chosen("5%", 2).indices);
    assert_eq!(chosen("100%", 0).indices, (0..300).collect::<Vec<_>>());
    let part = five.of(&list);
    assert_eq!((part.entries.len(), part.lines[0], &part.path), (15, five.indices[0] + 1, &list.path));
    // The same files whatever the order of the list.
    let turned: String = lines.iter().rev().map(String::as_str).collect();
    let turned = read_list(&data.file("turned.csv", turned)).unwrap();
    let files = |list: &crate::VideoList| {
        let part = subset(list, share("5%"), 0).unwrap().of(list);
        part.entries.into_iter().map(|entry| entry.path).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(files(&list), files(&turned));
    for text in ["0", "-5%", "101%", "1.5", "five", "NaN"] {
        assert!(text.parse::<Share>().unwrap_err().contains(&format!("`{text}`")));
    }
    assert_eq!(share("0.05"), share("5 %"));
    assert_eq!(share("5%").fraction(), 0.05);
}

#[test]
fn shares_of_what_has_no_class_are_nested_and_drawn_by_split() {
    let drawn = |count, text: &str, split| share_of(count, text.parse().unwrap(), split);
    let tenth = drawn(200, "10%", 0);
    assert!(tenth.len() == 20 && tenth.iter().all(|number| *number < 200));
    assert!(drawn(200, "5%", 0).is_subset(&tenth));
    assert_ne!(drawn(200, "10%", 1), tenth);
    assert_eq!(drawn(200, "100%", 0), (0..200).collect());
    assert_eq!((drawn(3, "1%", 0).len(), drawn(0, "50%", 0).len()), (1, 0));
    assert!(Share::new(0.0).is_err() && Share::new(f64::NAN).is_err() && Share::new(1.5).is_err());
    assert_eq!(Share::new(0.05).unwrap(), "5%".parse().unwrap());
}

#[test]
fn classes_too_small_for_a_share_are_told() {
    let data = Data::of(&[]);
    let list = read_list(&data.file("few.csv", "a.mp4 0\nb.mp4 0\nc.mp4 1\n")).unwrap();
    let chosen = subset(&list, "5%".parse().unwrap(), 0).unwrap();
    assert_eq!(chosen.indices.len(), 2);
    let notes = chosen.notes.join("\n");
    assert!(notes.contains("2 classes have too few samples for 5 %"), "{notes}");
    assert!(notes.contains("few.csv: line 3: class 1 has this sample alone"), "{notes}");
    let list = read_list(&data.file("none.csv", "a.mp4 0\nb.mp4\n")).unwrap();
    says(subset(&list, "5%".parse().unwrap(), 0), "none.csv: line 2", &["no label"]);
}
