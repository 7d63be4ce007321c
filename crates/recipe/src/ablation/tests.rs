use super::*;

const BASE: &str = "model: {model_name: vit_tiny}\ndata: {datasets: [a.csv]}\nlogging: {folder: out}\n";

const TABLE: &str = "name: how masks matter\nbase: base.yaml\nset: [optimization.epochs=200]\nseeds: 3\nevaluations: [textures, probe]\n\
    rows:\n  - name: Multi-block\n    reference: {textures: 72.9}\n  - name: ViT, small\n    set: [model.model_name=vit_small]\n\
    orderings:\n  - [Multi-block, 'ViT, small']\n  - {rows: ['ViT, small', Multi-block], by: probe}\n";

fn table() -> Ablation {
    Ablation::from_yaml(TABLE, "table.yaml").unwrap()
}

fn outcome(textures: f64, probe: f64) -> Outcome {
    let figures = BTreeMap::from([("textures".to_owned(), textures), ("probe".to_owned(), probe)]);
    Outcome { figures, seconds: 2.0, config: String::new() }
}

#[test]
fn runs_in_their_order_with_their_settings() {
    let runs = table().runs();
    let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids[..3], ["multi-block-seed0", "vit-small-seed0", "multi-block-seed1"]);
    assert_eq!(runs[1].set, ["optimization.epochs=200", "model.model_name=vit_small", "meta.seed=0"]);
    let config = table().config(BASE, &runs[3]).unwrap();
    assert_eq!((config.meta.seed, config.optimization.epochs), (1, 200));
}

#[test]
fn slips_are_found_before_anything_runs() {
    let says = |from: &str, to: &str, words: &[&str]| {
        assert!(TABLE.contains(from), "{from}");
        let said = Ablation::from_yaml(&TABLE.replacen(from, to, 1), "table.yaml").unwrap_err().to_string();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains('\n'), "{said}");
    };
    says("seeds: 3", "seeds: 0", &["table.yaml, line 4", "`seeds` must be"]);
    says("seeds: 3", "seeds: [1, 1]", &["each once"]);
    says("seeds: 3", "seeds: many", &["line 4", "a number of seeds or a list"]);
    says("base: base.yaml\n", "", &["`base` is missing"]);
    says("evaluations: [textures, probe]", "evaluations: []", &["line 5", "at least one figure"]);
    says("name: Multi-block", "name: vit small", &["has the folder of the row", "rename"]);
    says("name: Multi-block", "name: '!'", &["letters or digits"]);
    says("{textures: 72.9}", "{texture: 72.9}", &["line 8", "`texture` is none of the evaluations"]);
    says("model.model_name=vit_small", "meta.seed=3", &["write them as `seeds`"]);
    says("- [Multi-block,", "- [Multiblock,", &["no row `Multiblock`"]);
    says("by: probe", "by: knn", &["one of the evaluations"]);
    says("evaluations: [textures, probe]", "evaluations: [textures, textures]", &["`textures` stands twice"]);
    says("- [Multi-block, 'ViT, small']", "- [Multi-block]", &["two or more"]);
    says("- [Multi-block, 'ViT, small']", "- {row: Multi, evaluations: [textures, probe]}", &["no row `Multi`"]);
    says("rows:\n", "row:\n", &["did you mean `rows`"]);

    let wrong = TABLE.replace("model.model_name=vit_small", "model.model_nam=vit_small");
    let wrong = Ablation::from_yaml(&wrong, "table.yaml").unwrap();
    let said = wrong.config(BASE, &wrong.runs()[1]).unwrap_err().to_string();
    assert!(said.contains("row `ViT, small`: --set model.model_nam") && said.contains("model_name"), "{said}");
}

#[test]
fn a_table_goes_on_where_it_was_stopped() {
    let folder = std::env::temp_dir().join(format!("vjepa-ablation-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (path, table) = (folder.join("runs.json"), table());
    let runs = table.runs();
    let config = table.config(BASE, &runs[0]).unwrap();
    let mut state = AblationState::read(&path).unwrap();
    assert!(!state.finished(&table, &runs[0], &config).unwrap());
    state.finish(&runs[0], &config, outcome(0.5, 0.25).figures, 3.0).unwrap();
    state.write(&path).unwrap();
    let state = AblationState::read(&path).unwrap();
    assert!(state.finished(&table, &runs[0], &config).unwrap());
    // One more evaluation makes it unfinished, other settings an error.
    let more = Ablation { evaluations: vec!["textures".into(), "knn".into()], ..table.clone() };
    assert!(!more_finished(&more, &state, &runs[0], &config));
    let other = table.config(&BASE.replace("a.csv", "b.csv"), &runs[0]).unwrap();
    let said = state.finished(&table, &runs[0], &other).unwrap_err().to_string();
    assert!(said.contains("multi-block-seed0") && said.contains("another configuration"), "{said}");
    std::fs::write(&path, "{").unwrap();
    assert!(AblationState::read(&path).unwrap_err().to_string().contains("move it away"));
    std::fs::remove_dir_all(&folder).unwrap();
}

fn more_finished(table: &Ablation, state: &AblationState, run: &AblationRun, config: &Config) -> bool {
    state.finished(table, run, config).unwrap()
}

#[test]
fn means_errors_and_orderings() {
    let table = table();
    let mut state = AblationState::default();
    assert!(AblationTable::of(&table, &state).orderings.iter().all(|pair| pair.verdict == Verdict::Open));
    for (run, (textures, probe)) in
        table.runs().iter().zip([(0.7, 0.1), (0.5, 0.1), (0.72, 0.3), (0.48, 0.2), (0.71, 0.2), (0.49, 0.3)])
    {
        state.runs.insert(run.id.clone(), outcome(textures, probe));
    }
    let result = AblationTable::of(&table, &state);
    let figure = result.rows[0].figures[0].unwrap();
    assert!((figure.mean - 0.71).abs() < 1e-12 && (figure.se - 0.01 / 3f64.sqrt()).abs() < 1e-12);
    let verdicts: Vec<Verdict> = result.orderings.iter().map(|pair| pair.verdict).collect();
    assert_eq!(verdicts, [Verdict::Shows, Verdict::Unclear]);
    let text = result.to_markdown();
    assert!(text.contains("| Multi-block | 3/3 | 0.710 ± 0.006 | 72.9 | 0.200 ± 0.058 |  |"), "{text}");
    assert!(text.contains("- Multi-block > ViT, small (textures): shows by 0.220"), "{text}");
    assert!(text.contains("does not show at this size"), "{text}");
    let csv = result.to_csv();
    assert!(csv.contains("\"ViT, small\",textures,3,") && csv.lines().count() == 5, "{csv}");
    for run in table.runs().iter().filter(|run| run.row == "Multi-block") {
        state.runs.insert(run.id.clone(), outcome(0.1, 0.1));
    }
    assert_eq!(AblationTable::of(&table, &state).orderings[0].verdict, Verdict::Reversed);
}

#[test]
fn evaluations_with_words_of_their_own_and_rows_that_nothing_trains() {
    let text = TABLE
        .replace("[textures, probe]", "[motion attentive, {name: probe, run: [probe, --data, 'a b.csv']}]")
        .replace("name: Multi-block\n    reference: {textures: 72.9}", "name: Multi-block\n    untrained: true")
        .replace("- [Multi-block, 'ViT, small']", "- {row: 'ViT, small', evaluations: [motion attentive, probe]}");
    let table = Ablation::from_yaml(&text, "table.yaml").unwrap();
    assert_eq!(table.evaluations, ["motion attentive", "probe"]);
    assert_eq!(table.commands["motion attentive"], ["motion", "attentive"]);
    assert_eq!(table.commands["probe"], ["probe", "--data", "a b.csv"]);
    let runs = table.runs();
    assert_eq!(runs.iter().map(|run| run.untrained).collect::<Vec<_>>()[..2], [true, false]);
    let mut state = AblationState::default();
    for (run, probe) in runs.iter().zip([0.1, 0.2, 0.1, 0.21, 0.1, 0.19]) {
        let figures = BTreeMap::from([("motion attentive".to_owned(), 0.5), ("probe".to_owned(), probe)]);
        state.runs.insert(run.id.clone(), Outcome { figures, seconds: 1.0, config: String::new() });
    }
    let first = &AblationTable::of(&table, &state).orderings[0];
    assert_eq!((first.verdict, first.by.as_str()), (Verdict::Shows, "ViT, small"));
    assert!((first.difference.unwrap().mean - 0.3).abs() < 1e-9);
}

#[test]
fn what_would_be_run() {
    let table = table();
    let mut state = AblationState::default();
    state.runs.insert("multi-block-seed0".into(), outcome(0.5, 0.5));
    let text = table.dry_run(&state, |run| (run.seed == 1).then(|| "3 GiB".to_owned()));
    assert!(text.starts_with("how masks matter: 6 runs, 1 finished, evaluated by textures, probe\n"), "{text}");
    assert!(text.contains("done   multi-block-seed0  optimization.epochs=200 meta.seed=0\n"), "{text}");
    assert!(
        text.contains(
            "to run vit-small-seed1  optimization.epochs=200 model.model_name=vit_small meta.seed=1  [3 GiB]"
        )
    );
}
