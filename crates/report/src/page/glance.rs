//! The figures at the top: a tile each, or of several runs one column a run.

use std::time::SystemTime;

use maud::{Markup, html};

use crate::run::{Figure, Run, State, figures};

/// The table of figures, without rows that no run has.
pub(super) fn glance(runs: &[Run], at: SystemTime) -> Markup {
    let states: Vec<State> = runs.iter().map(|run| run.state(at)).collect();
    if let ([run], [state]) = (runs, states.as_slice()) {
        return tiles(run, state);
    }
    let columns: Vec<Vec<Figure>> = runs.iter().map(figures).collect();
    let names = columns.first().into_iter().flatten().map(|(name, _)| *name).enumerate();
    let row = |(place, name): (usize, &'static str)| {
        let cell = |column: &Vec<Figure>| column.get(place).and_then(|(_, value)| value.clone());
        (name, columns.iter().map(cell).collect::<Vec<_>>())
    };
    let rows = names.map(row).filter(|(_, cells)| cells.iter().any(Option::is_some));
    html! {
        h2 { "At a glance" }
        div.wide.card {
            table {
                thead { tr { th {} @for run in runs { th { (run.name()) } } } }
                tbody {
                    tr {
                        th { "state" }
                        @for state in &states { td { span class={ "state " (state.word()) } { (state.in_words()) } } }
                    }
                    @for (name, cells) in rows {
                        tr { th { (name) } @for cell in &cells { td { (cell.as_deref().unwrap_or("–")) } } }
                    }
                }
            }
        }
    }
}

/// The figures of a single run, as many in a row as fit.
fn tiles(run: &Run, state: &State) -> Markup {
    html! {
        h2 { "At a glance" }
        dl.tiles {
            div.card { dt { "state" } dd class={ "state " (state.word()) } { (state.in_words()) } }
            @for (name, value) in figures(run) {
                @if let Some(value) = value { div.card { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// What was said of the features of each run, first to last.
pub(super) fn verdicts(runs: &[Run]) -> Markup {
    let said = |run: &Run| -> Vec<String> {
        let name = if runs.len() > 1 { format!("{}: ", run.name()) } else { String::new() };
        run.verdicts().map(|said| format!("{name}{}", said.sentence)).collect()
    };
    html! { @for sentence in runs.iter().flat_map(said) { p.note.verdict { (sentence) } } }
}
