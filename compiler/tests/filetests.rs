//! Runs `filetests/*.ir`: a header that says what to do, the graph, and what is expected.
//!
//! ```text
//! ; run: clean-up, dead-code        passes by name, `standard`, `nothing`, or `grad OUTPUT: SOURCE, SOURCE`
//! graph g[B]
//! ...
//! ; expect
//! graph g[B]                        the graph afterwards, or a line `; error: ...`
//! ...
//! ```
//!
//! `UPDATE_FILETESTS=1` writes what came out into the files.

use std::error::Error;
use std::fs;
use std::path::Path;
use vjepa_compiler::grad::differentiate;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::passes::{Pipeline, named};
use vjepa_compiler::text::{parse, print};
use vjepa_compiler::verify::verify;

const EXPECT: &str = "; expect\n";

fn step(graph: Graph, step: &str) -> Result<Graph, Box<dyn Error>> {
    if let Some(what) = step.strip_prefix("grad ") {
        return gradients(graph, what);
    }
    match step {
        "nothing" => Ok(graph),
        "standard" => Ok(Pipeline::standard().with_verify(true).run(&graph)?.graph),
        name => {
            let pass = named(name).ok_or_else(|| format!("there is no pass `{name}`"))?;
            Ok(pass.run(&graph)?.map_or(graph, |changed| changed.graph))
        }
    }
}

/// `OUTPUT: SOURCE SOURCE`: adds outputs `d SOURCE`.
fn gradients(mut graph: Graph, what: &str) -> Result<Graph, Box<dyn Error>> {
    let (output, sources) = what.split_once(':').ok_or("`grad OUTPUT: SOURCE ..` is needed")?;
    let loss = graph.find_output(output).ok_or_else(|| format!("there is no output `{output}`"))?;
    let names: Vec<&str> = sources.split_whitespace().collect();
    let wrt: Option<Vec<_>> = names.iter().map(|name| graph.find(name)).collect();
    let grads = differentiate(&mut graph, loss, &wrt.ok_or("a source does not exist")?)?;
    for (name, gradient) in names.iter().zip(grads) {
        graph.output(&format!("d.{name}"), gradient);
    }
    Ok(graph)
}

fn run(text: &str) -> Result<String, Box<dyn Error>> {
    let header = text.lines().find_map(|line| line.strip_prefix("; run: ")).ok_or("no line `; run: ...`")?;
    let mut graph = parse(text)?;
    for name in header.split(',').map(str::trim) {
        graph = step(graph, name)?;
        verify(&graph)?;
    }
    Ok(print(&graph))
}

#[test]
fn filetests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "ir")) {
        let text = fs::read_to_string(file).unwrap();
        let (input, expected) = text.split_once(EXPECT).unwrap_or((&text, ""));
        let got = run(input).unwrap_or_else(|error| format!("; error: {error}\n"));
        if got == expected {
            continue;
        }
        if std::env::var_os("UPDATE_FILETESTS").is_some() {
            fs::write(file, format!("{input}{EXPECT}{got}")).unwrap();
        } else {
            failures.push(format!("{}\n--- expected\n{expected}--- got\n{got}", file.display()));
        }
    }
    assert!(failures.is_empty(), "set UPDATE_FILETESTS=1 to accept\n{}", failures.join("\n"));
}
