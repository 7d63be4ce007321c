//! The rates of the official pre-training recipes beside those of a script that knows the official formulas and not this code
//! (`tests/recipes/rates.py`, itself compared with rows that the official code recorded).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use vjepa_recipe::config::Config;

#[derive(Deserialize)]
struct Recipe {
    steps: u64,
    clips_per_step: u64,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    itr: u64,
    lr: f64,
    wd: f64,
    momentum: f64,
}

#[test]
fn official_recipes_have_the_rates_of_an_independent_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("tests/recipes/rates.json")).unwrap();
    let recipes: BTreeMap<String, Recipe> = serde_json::from_str(&text).unwrap();
    assert_eq!(recipes.keys().collect::<Vec<_>>(), ["vith16", "vith16_384", "vitl16"]);
    for (name, recipe) in &recipes {
        let config = Config::from_file(&root.join("configs").join(format!("{name}.yaml")), &[]).unwrap();
        let plan = config.optimization.plan(None).unwrap();
        let clips = config.optimization.groups() * config.data.batch_size as u64;
        assert_eq!((plan.steps, clips), (recipe.steps, recipe.clips_per_step), "{name}");
        let schedule = config.schedule(&plan);
        assert_eq!(recipe.rows.len(), 13);
        for row in &recipe.rows {
            let rates = schedule.at(row.itr);
            for (what, got, expected) in
                [("lr", rates.lr, row.lr), ("wd", rates.wd, row.wd), ("momentum", rates.momentum, row.momentum)]
            {
                assert!(
                    (got / expected - 1.0).abs() < 1e-12,
                    "{name}, {what} of step {}: {got}, not {expected}",
                    row.itr
                );
            }
        }
    }
}
