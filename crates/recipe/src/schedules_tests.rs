use super::*;

fn close(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-12 * want.abs(), "{got} is not {want}");
}

#[test]
fn official_run() {
    let schedule = Schedule::new(&ScheduleConfig::official(300, 300, 40));
    assert_eq!(schedule.wd.total_steps, 112_500);
    close(schedule.at(0).lr, 2.000_354_166_666_666_8e-4);
    close(schedule.at(11_999).lr, 6.25e-4);
    close(schedule.at(89_999).lr, 7.504_222_442_956_086e-5);
    close(schedule.at(0).wd, 0.040_000_000_070_183_84);
    close(schedule.at(0).momentum, 0.998);
    close(schedule.at(89_999).momentum, 0.999_599_982_222_222_2);
}

/// V-JEPA 2's and 2.1's values; warm-up in epochs of 300 steps.
fn later(epochs: u64, warmup_epochs: u64, peak: f64, end: f64, anneal: bool) -> Schedule {
    Schedule::new(&ScheduleConfig {
        lr: [1e-4, peak, end],
        wd: [0.04, 0.04],
        ema: [0.99925, 0.99925],
        clip_from_step: None,
        anneal,
        ..ScheduleConfig::official(300, epochs, warmup_epochs)
    })
}

#[test]
fn later_generations_are_constant_after_the_warm_up() {
    let near = |got: f64, wanted: f64| assert!((got - wanted).abs() <= 5e-12, "{got} is not {wanted}");
    let giant = later(800, 40, 5.25e-4, 5.25e-4, false);
    near(giant.at(0).lr, 1.000_354_2e-4);
    near(giant.at(100).lr, 1.035_770_8e-4);
    near(giant.at(11_998).lr, 5.249_645_8e-4);
    for step in [11_999, 12_000, 100_000, 239_999] {
        let rates = giant.at(step);
        assert_eq!((rates.lr, rates.wd, rates.momentum, rates.clip_active), (5.25e-4, 0.04, 0.99925, false));
    }
    let third = later(1000, 40, 6e-4, 6e-4, false);
    near(third.at(0).lr, 1.000_416_7e-4);
    near(third.at(100).lr, 1.042_083_3e-4);
    assert_eq!((third.at(11_999).lr, third.at(299_999).lr), (6e-4, 6e-4));
    // The released recipes of L and H end inside their warm-up.
    near(later(10, 40, 5.25e-4, 5.25e-4, false).at(2999).lr, 2.062_5e-4);
}

#[test]
fn the_cool_down_is_a_straight_line_that_stops_early() {
    let near = |got: f64, wanted: f64| assert!((got - wanted).abs() <= 5e-12, "{got} is not {wanted}");
    let second = later(40, 0, 5.25e-4, 1e-6, true);
    near(second.at(0).lr, 5.249_650_7e-4);
    near(second.at(11_999).lr, 1.058e-4);
    near(later(40, 0, 6e-4, 1e-6, true).at(11_999).lr, 1.208e-4);
    near(second.at(u64::MAX).lr, 1e-6);
}

#[test]
fn recorded_runs_have_these_rates() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = [root.join("tests/golden/vjepa2_train"), root.join("../shared/golden/vjepa2_train")];
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = &recorded["hparams"];
        let schedule = |own: &serde_json::Value| {
            let value = |key: &str| own.get(key).unwrap_or(&all[key]).clone();
            let [real, count] = [|value: serde_json::Value| value.as_f64().unwrap(); 2];
            let ema: [f64; 2] = serde_json::from_value(value("ema")).unwrap();
            let steps_per_epoch = count(value("ipe")) as u64;
            Schedule::new(&ScheduleConfig {
                steps_per_epoch,
                epochs: count(value("epochs")) as u64,
                ipe_scale: real(value("ipe_scale")),
                warmup_steps: (real(value("warmup")) * steps_per_epoch as f64) as u64,
                lr: [real(value("start_lr")), real(value("lr")), real(value("final_lr"))],
                wd: [real(value("wd")), real(value("final_wd"))],
                ema,
                clip_from_step: None,
                anneal: own.get("is_anneal").is_some(),
            })
        };
        let (first, second) = (schedule(all), schedule(&all["cooldown"]));
        let mut seen = [0, 0];
        for row in recorded["steps"].as_array().unwrap() {
            let cooldown = row["stage"] == "cooldown";
            let (schedule, step) = if cooldown { (second, &mut seen[1]) } else { (first, &mut seen[0]) };
            let rates = schedule.at(*step);
            *step += 1;
            for (got, key) in [(rates.lr, "lr"), (rates.wd, "wd"), (rates.momentum, "momentum")] {
                let wanted = row[key].as_f64().unwrap();
                assert!((got - wanted).abs() <= 1e-12 * wanted, "{row}: {key} is {got}");
            }
        }
        assert_eq!(seen, [10, 5]);
    }
}

#[test]
fn the_context_weight_grows_between_two_constants() {
    // Recorded from the official code.
    let weight = ContextWeight { value: 0.5, progressive: true };
    for (step, wanted) in [
        (0, 0.0),
        (14_999, 0.0),
        (15_000, 0.0),
        (15_001, 3.333_333_333_333_333_5e-5),
        (20_000, 0.166_666_666_666_666_66),
        (22_500, 0.25),
        (29_999, 0.499_966_666_666_666_67),
        (30_000, 0.5),
        (300_000, 0.5),
    ] {
        assert!((weight.at(step) - wanted).abs() <= 1e-12 * wanted, "{step}: {}", weight.at(step));
    }
    assert_eq!(ContextWeight { progressive: false, ..weight }.at(0), 0.5);
}

#[test]
fn clipping_starts_one_epoch_after_the_warm_up() {
    let schedule = Schedule::new(&ScheduleConfig::official(300, 300, 40));
    assert!(!schedule.at(41 * 300 - 1).clip_active);
    assert!(schedule.at(41 * 300).clip_active);
}

#[test]
fn recipe_of_the_drifting_textures() {
    let schedule = Schedule::new(&ScheduleConfig {
        steps_per_epoch: 750,
        epochs: 1,
        ipe_scale: 1.25,
        warmup_steps: 75,
        lr: [2e-4, 2e-3, 0.0],
        wd: [0.04, 0.4],
        ema: [0.996, 1.0],
        clip_from_step: Some(0),
        anneal: false,
    });
    assert!(schedule.at(0).clip_active);
    close(schedule.at(74).lr, 2e-3);
    close(schedule.at(375).momentum, 0.996 + 0.004 * 375.0 / 937.5);
    assert!(schedule.at(749).lr > 0.0);
}

#[test]
fn past_the_end_every_schedule_holds_its_end_value() {
    let mut config = ScheduleConfig::official(2, 5, 1);
    config.clip_from_step = None;
    let rates = Schedule::new(&config).at(u64::MAX);
    close(rates.lr, 1e-6);
    close(rates.wd, 0.4);
    close(rates.momentum, 1.0);
    assert!(!rates.clip_active);
}

#[test]
fn probe_decays_both() {
    let schedule = ProbeSchedule::new(100, 0, 1e-3, 1e-3, 0.01);
    close(schedule.at(0).0, 9.997_532_801_828_658e-4);
    close(schedule.at(0).1, 0.009_997_533_048_548_475);
    assert_eq!(schedule.at(99).0, 0.0);
    close(schedule.at(99).1, 1e-6);
}

#[test]
fn empty_runs_do_not_divide_by_zero() {
    let rates = Schedule::new(&ScheduleConfig::official(0, 0, 0)).at(0);
    assert!(rates.lr.is_finite() && rates.wd.is_finite() && rates.momentum.is_finite());
}
