//! Pictures on the page: masks, features over training, neighbours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::ReportError;
use crate::run::Run;

/// Pictures of one kind on a page, spread over training.
const SHOWN: usize = 6;

/// All pictures of the runs; nothing where there are none.
///
/// # Errors
/// [`ReportError::Read`].
pub(super) fn pictures(runs: &[Run]) -> Result<Markup, ReportError> {
    let mut parts = Vec::new();
    for run in runs {
        for (name, steps) in &run.pictures {
            let title = if runs.len() > 1 { format!("{name}, {}", run.name()) } else { name.clone() };
            parts.push(strip(&title, steps)?);
        }
    }
    Ok(html! {
        @if !parts.is_empty() { h2 { "Pictures" } @for part in &parts { (part) } }
    })
}

fn strip(title: &str, steps: &BTreeMap<u64, PathBuf>) -> Result<Markup, ReportError> {
    let chosen = spread(&steps.iter().collect::<Vec<_>>(), SHOWN);
    let left_out = steps.len() - chosen.len();
    let mut figures = Vec::new();
    for (step, path) in chosen {
        let caption = if *step == u64::MAX { String::new() } else { format!("step {step}") };
        figures.push((caption, data_uri(path)?));
    }
    Ok(html! {
        section.card style="margin-bottom:.75rem" {
            h3 { (title) }
            @if left_out > 0 { p.note { (left_out) " more are in the folder" } }
            div.strip {
                @for (caption, picture) in &figures {
                    figure { figcaption { (caption) } img src=(picture) alt={ (title) " " (caption) }; }
                }
            }
        }
    })
}

/// At most `most` of them, from the first to the last.
fn spread<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    if all.len() <= most || most < 2 {
        return all.to_vec();
    }
    (0..most).filter_map(|place| all.get(place * (all.len() - 1) / (most - 1)).copied()).collect()
}

fn data_uri(path: &Path) -> Result<String, ReportError> {
    let bytes = std::fs::read(path).map_err(|source| ReportError::read(path, source))?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_are_always_shown() {
        let all: Vec<usize> = (0..100).collect();
        let chosen = spread(&all, 6);
        assert_eq!((chosen.len(), chosen[0], chosen[5]), (6, 0, 99));
        assert_eq!(spread(&all[..4], 6), [0, 1, 2, 3]);
        assert!(spread(&all[..0], 6).is_empty());
    }
}
