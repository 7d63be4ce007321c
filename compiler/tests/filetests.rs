//! Runs `filetests/*.ir`: a header that says what to do, the graph, and what is expected.
//!
//! ```text
//! ; run: sink-tokens, recompute(what=blocks)
//! graph g[B]
//! ...
//! ; expect
//! graph g[B]                        the graph afterwards, or a line `; error: ...`
//! ...
//! ```
//!
//! The steps after `run:` are passes with their parameters (`passes/registry.rs`), the pipelines `standard`, `forward` and
//! `training(loss=OUTPUT, recompute=elementwise|blocks, products=bf16)`, `grad(output=OUTPUT, wrt=SOURCE SOURCE ..)`, which
//! adds the outputs `d.SOURCE`, and `nothing`. Values may be named (`%scores`), and passes keep the names.
//!
//! `UPDATE_FILETESTS=1` rewrites the expectations. Without Burn, in seconds:
//! `cargo test -p vjepa-compiler --no-default-features --test filetests`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use vjepa_compiler::grad::differentiate;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::passes::{Pipeline, Recomputed, Spec, all};
use vjepa_compiler::text::{parse, print};
use vjepa_compiler::verify::verify;

const EXPECT: &str = "; expect\n";
const RUN: &str = "; run: ";

fn step(graph: Graph, mut spec: Spec) -> Result<Graph, Box<dyn Error>> {
    let pipeline = match spec.name.as_str() {
        "nothing" => {
            spec.finish()?;
            return Ok(graph);
        }
        "grad" => return gradients(graph, spec),
        "standard" => Pipeline::standard(),
        "forward" => Pipeline::forward(),
        "training" => training(&mut spec)?,
        _ => {
            let pass = spec.pass()?;
            return Ok(pass.run(&graph)?.map_or(graph, |changed| changed.graph));
        }
    };
    spec.finish()?;
    Ok(pipeline.with_verify(true).run(&graph)?.graph)
}

fn training(spec: &mut Spec) -> Result<Pipeline, Box<dyn Error>> {
    let loss = spec.take("loss").unwrap_or_else(|| "loss".to_owned());
    let recompute = match spec.take("recompute").as_deref() {
        None => None,
        Some("elementwise") => Some(Recomputed::Elementwise),
        Some("blocks") => Some(Recomputed::Blocks),
        Some(other) => return Err(format!("`recompute` must be elementwise or blocks, got `{other}`").into()),
    };
    let narrow = match spec.take("products").as_deref() {
        None | Some("f32") => false,
        Some("bf16") => true,
        Some(other) => return Err(format!("`products` must be f32 or bf16, got `{other}`").into()),
    };
    Ok(Pipeline::training(&loss, recompute, narrow))
}

fn gradients(mut graph: Graph, mut spec: Spec) -> Result<Graph, Box<dyn Error>> {
    let output = spec.take("output").ok_or("`grad` needs `output`")?;
    let sources = spec.take("wrt").ok_or("`grad` needs `wrt`")?;
    spec.finish()?;
    let loss = graph.find_output(&output).ok_or_else(|| format!("there is no output `{output}`"))?;
    let names: Vec<&str> = sources.split_whitespace().collect();
    let wrt: Option<Vec<_>> = names.iter().map(|name| graph.find(name)).collect();
    let grads = differentiate(&mut graph, loss, &wrt.ok_or("a source does not exist")?)?;
    for (name, gradient) in names.iter().zip(grads) {
        graph.output(&format!("d.{name}"), gradient);
    }
    Ok(graph)
}

/// The steps of a file.
fn steps(text: &str) -> Result<Vec<Spec>, Box<dyn Error>> {
    let header = text.lines().find_map(|line| line.strip_prefix(RUN)).ok_or("there is no line `; run: ..`")?;
    Ok(Spec::list(header)?)
}

fn run(text: &str) -> Result<String, Box<dyn Error>> {
    let mut graph = parse(text)?;
    for spec in steps(text)? {
        graph = step(graph, spec)?;
        verify(&graph)?;
    }
    Ok(print(&graph))
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests");
    let all = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|file| file.extension().is_some_and(|e| e == "ir")).collect();
    files.sort();
    files
}

#[test]
fn filetests() {
    assert!(!files().is_empty());
    let mut failures = Vec::new();
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let (input, expected) = text.split_once(EXPECT).unwrap_or((&text, ""));
        let got = run(input).unwrap_or_else(|error| format!("; error: {error}\n"));
        if got == expected {
            continue;
        }
        if std::env::var_os("UPDATE_FILETESTS").is_some() {
            fs::write(&file, format!("{input}{EXPECT}{got}")).unwrap();
        } else {
            failures.push(format!("{}\n--- expected\n{expected}--- got\n{got}", file.display()));
        }
    }
    assert!(failures.is_empty(), "set UPDATE_FILETESTS=1 to accept\n{}", failures.join("\n"));
}

/// Each pass by its own name: a pipeline that contains it tells less.
#[test]
fn every_pass_has_a_filetest() {
    let texts = files().into_iter().map(|file| fs::read_to_string(file).unwrap());
    let named: BTreeSet<String> = texts.flat_map(|text| steps(&text).unwrap()).map(|spec| spec.name).collect();
    let missing: Vec<&str> = all().iter().map(|pass| pass.name()).filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "no filetest runs {}", missing.join(", "));
}
