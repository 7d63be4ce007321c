use super::*;
use std::path::Path;
use vjepa_recipe::config::{AugmentConfig, DataConfig};
use vjepa_video::Decoder;

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../video/tests/clips").join(name)
}

fn ask(line: &str) -> Vec<serde_json::Value> {
    let mut said = Vec::new();
    serve(Decoder::Pure, line.as_bytes(), &mut said).unwrap();
    String::from_utf8(said).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn means_over_blocks() {
    // Green rises from left to right; the other channels do not count.
    let (height, width) = (20, 32);
    let rgb: Vec<u8> = (0..height * width).flat_map(|i| [255, (i % width) as u8, 9]).collect();
    let means = describe(&rgb, height, width);
    assert_eq!(means.len(), 160);
    assert_eq!(means[..3], [1, 3, 5]);
    assert_eq!(means[16..19], means[..3]);
    // No multiples: blocks share columns.
    assert_eq!(describe(&[0, 7, 0, 0, 9, 0], 1, 2)[7..9], [7, 9]);
}

#[test]
fn requests_are_answered_one_by_one() {
    let pick = Pick { frames: vec![0, 4, 19], crop: [10, 20, 100, 90], flip: true };
    let request = |task, path: &str| {
        let request = Request { path: clip(path), task, size: 32, clips: vec![pick.clone(); 2] };
        serde_json::to_string(&request).unwrap()
    };
    let lines = [
        request(FrameTask::Look, "short_20f.mp4"),
        request(FrameTask::Clip, "short_20f.mp4"),
        request(FrameTask::Rgb, "text.mp4"),
        "nonsense".to_owned(),
        request(FrameTask::Rgb, "short_20f.mp4"),
    ];
    let answers = ask(&lines.join("\n"));
    assert_eq!(answers.len(), 6);
    assert!(answers[0]["ready"].as_str().unwrap().starts_with("vjepa"));
    let looks = answers[1]["looks"].as_array().unwrap();
    // The barcode in the top tenth: white, black, the number with its least significant bit first, white, black.
    let bits = |look: &serde_json::Value| -> String {
        look.as_array().unwrap()[..16].iter().map(|mean| if mean.as_i64() > Some(128) { '1' } else { '0' }).collect()
    };
    assert_eq!(looks.len(), 6);
    assert_eq!([bits(&looks[1]), bits(&looks[5])], ["1000100000000010", "1011001000000010"]);
    assert!(answers[2]["seconds"].as_f64() > Some(0.0) && answers[5]["seconds"].as_f64() > Some(0.0));
    assert!(answers[3]["error"].as_str().unwrap().contains("text.mp4") && answers[4]["error"].is_string());
}

/// A process that greets like a library that is not installed, and one that says something else.
#[test]
fn contenders_may_be_missing() {
    let start = |words: &str| Contender::start("other", std::process::Command::new("echo").arg(words));
    match start(r#"{"missing": "ModuleNotFoundError: No module named 'decord'"}"#).unwrap() {
        Started::Missing(why) => assert!(why.contains("decord")),
        Started::Ready(_) => panic!("it is missing"),
    }
    assert!(start("hello").unwrap_err().to_string().contains("hello"));
    let error = Contender::start("other", &mut std::process::Command::new("/no/such/python")).unwrap_err();
    assert!(error.to_string().contains("/no/such/python"), "{error}");
}

#[test]
fn loader_and_plain_decoding_make_the_same_clips() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.csv");
    std::fs::write(&list, format!("{} 0\n", clip("short_20f.mp4").display())).unwrap();
    let data = DataConfig {
        datasets: vec![list.display().to_string()],
        batch_size: 2,
        num_frames: 4,
        crop_size: 32,
        ..DataConfig::default()
    };
    let settings = LoaderSettings { rounds: 2, batches: 1, workers: 2, seed: 0 };
    let mut told = 0;
    let report = loader(&data, &AugmentConfig::default(), settings, |_| told += 1).unwrap();
    assert_eq!((report.rounds.len(), report.batch, told), (2, 2, 3));
    let [median, low, high] = report.ratio;
    assert!(low > 0.0 && low <= median && median <= high, "{:?}", report.ratio);
    let error =
        loader(&data, &AugmentConfig { reprob: 0.5, ..AugmentConfig::default() }, settings, |_| ()).unwrap_err();
    assert!(error.to_string().contains("data_aug.reprob"), "{error}");
}
