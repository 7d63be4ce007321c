//! The report: one page about one run or several, which needs neither a network nor JavaScript.

mod curves;
mod glance;
mod pictures;
mod settings;

use std::time::SystemTime;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use vjepa_recipe::records::ProbeResult;

use crate::ReportError;
use crate::run::{Run, grouped};
use crate::starts::{COMMIT, now};
use curves::{Curve, curves};

/// Lets the page load nothing, whatever names and messages are in it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
/// Bad videos listed on the page.
const LISTED: usize = 200;

/// A probe of one of the runs, or one given beside them.
#[derive(Clone, Debug)]
pub struct ShownProbe {
    /// The run, or where it was found.
    pub of: String,
    /// Its file.
    pub file: String,
    /// How well it does.
    pub result: ProbeResult,
}

/// The page, as HTML in UTF-8. `others` are probes from elsewhere than the runs' folders; `at` is the time it is made.
///
/// # Errors
/// [`ReportError::Read`] for a picture that cannot be read.
pub fn page(runs: &[Run], others: &[ShownProbe], at: SystemTime) -> Result<String, ReportError> {
    let names: Vec<String> = runs.iter().map(Run::name).collect();
    let title = names.join(", ");
    let curves = curves(runs);
    let shown = pictures::pictures(runs)?;
    let own = runs.iter().flat_map(|run| {
        let probe = |(path, result): &(std::path::PathBuf, ProbeResult)| {
            let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            ShownProbe { of: run.name(), file, result: result.clone() }
        };
        run.probes.iter().map(probe).collect::<Vec<_>>()
    });
    let probes: Vec<ShownProbe> = own.chain(others.iter().cloned()).collect();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) " · vjepa report" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                header {
                    h1 { (title) }
                    p.muted { "vjepa report, " (now()) }
                    @for note in runs.iter().flat_map(|run| &run.notes) { p.warning { (note) } }
                }
                main {
                    (glance::glance(runs, at))
                    (glance::verdicts(runs))
                    (charts(&curves, runs))
                    (shown)
                    (probe_table(&probes))
                    (settings::differences(runs))
                    (bad_videos(runs))
                    (settings::starts(runs))
                }
                footer.muted {
                    p { "Made by vjepa " (env!("CARGO_PKG_VERSION")) @if let Some(commit) = COMMIT { ", commit " (short(commit)) } "." }
                }
            }
        }
    };
    Ok(markup.into_string())
}

/// The first figures of a commit.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn charts(curves: &[Curve], runs: &[Run]) -> Markup {
    let x = (0.0, runs.iter().map(Run::steps_done).max().unwrap_or(0) as f64);
    let names: Vec<String> = runs.iter().map(Run::name).collect();
    html! {
        h2 { "Curves" }
        @if curves.is_empty() { p.muted { "No step has been written yet." } }
        @if names.len() > 1 { (legend(&names)) br; }
        div.curves {
            @for Curve { panel, named } in curves {
                section.card aria-label=(panel.title) {
                    h3 { (panel.title) }
                    p.note { (panel.note) }
                    @if *named { (legend(&panel.series.iter().map(|s| s.name.clone()).collect::<Vec<_>>())) }
                    div role="img" aria-label={ (panel.title) " by step" } { (PreEscaped(panel.svg(Some(x), "step"))) }
                }
            }
        }
    }
}

/// Lines with their names.
fn legend(names: &[String]) -> Markup {
    html! {
        ul.legend {
            @for (number, name) in names.iter().enumerate() {
                li { i style={ "background:var(--line-" (number % 8) ")" } {} (name) }
            }
        }
    }
}

fn probe_table(probes: &[ShownProbe]) -> Markup {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let unknown = || "unknown".to_owned();
    html! {
        @if !probes.is_empty() {
            h2 { "Probes" }
            div.wide.card {
                table {
                    caption { "Accuracy of classifiers on the frozen encoder, and how many clips it had learned from by then" }
                    thead { tr {
                        th { "run" } th { "probe" } th { "kind" } th.number { "clips seen" } th.number { "step" }
                        th.number { "classes" } th.number { "top-1" } th.number { "top-5" } th.number { "videos" }
                        th.number { "top-1, training" }
                    } }
                    tbody {
                        @for ShownProbe { of, file, result } in probes {
                            tr {
                                th { (of) } td.path { (file) } td { (result.kind) }
                                td.number { (result.clips_seen.map_or_else(unknown, grouped)) }
                                td.number { (result.encoder_step.map_or_else(unknown, grouped)) }
                                td.number { (result.classes) }
                                @if let Some(val) = result.val {
                                    td.number { (percent(val.top1)) } td.number { (percent(val.top5)) }
                                    td.number { (val.videos) }
                                } @else { td.number { "no --val" } td {} td {} }
                                td.number { (result.train.map_or_else(|| "not measured".to_owned(), |train| percent(train.top1))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn bad_videos(runs: &[Run]) -> Markup {
    let bad: Vec<_> = runs.iter().flat_map(|run| run.bad.iter().map(move |bad| (run, bad))).collect();
    html! {
        @if !bad.is_empty() {
            h2 { "Videos that could not be read" }
            details.card {
                summary { (bad.len()) @if bad.len() == 1 { " video was" } @else { " videos were" } " skipped" }
                div.wide { table {
                    thead { tr { @if runs.len() > 1 { th { "run" } } th { "video" } th { "why" } } }
                    tbody {
                        @for (run, bad) in bad.iter().take(LISTED) {
                            tr {
                                @if runs.len() > 1 { th { (run.name()) } }
                                td.path { (bad.path.display()) } td.path { (bad.reason) }
                            }
                        }
                    }
                } }
                @if bad.len() > LISTED {
                    p.muted { "and " (bad.len() - LISTED) " more, in *-bad-videos.jsonl" }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
