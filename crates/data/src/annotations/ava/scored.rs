//! What the evaluation of detections reads and writes: the official CSV files, row by row in their order, which decides who
//! takes a box.
//!
//! Reversed and empty boxes are kept here; [`vjepa_metrics::ava::evaluate`] leaves them out as the official codes do, and
//! counts them.

use std::io::Write;
use std::path::Path;

use vjepa_metrics::ava::{GroundTruth, KeyFrame, Row as Scored};

use super::Row;
use crate::annotations::error::{AnnotationError, lines, read};

/// Reads ground truth, `video,second,x1,y1,x2,y2,action[,person]`. A row without an action, or of two columns, is a frame without
/// labels.
///
/// # Errors
/// [`AnnotationError`] naming the line: columns missing, boxes outside the frame, seconds and actions that are no numbers.
pub fn read_truth(path: &Path) -> Result<GroundTruth, AnnotationError> {
    let text = read(path)?;
    let mut truth = GroundTruth::default();
    for (line, text) in lines(&text) {
        let row = Row::of(path, line, text);
        row.columns(&[2, 7, 8], "video,second,x1,y1,x2,y2,action,person")?;
        let frame = row.key()?;
        truth.frames.insert(frame.clone());
        if row.fields.len() == 2 {
            continue;
        }
        let corners = row.coordinates()?;
        if let Some(action) = row.number(6, "an action")? {
            truth.rows.push(Scored { frame, corners, action, score: 1.0 });
            truth.lines.push(line);
        }
    }
    Ok(truth)
}

/// Reads detections, `video,second,x1,y1,x2,y2,action,score`.
///
/// # Errors
/// As [`read_truth`]; rows without an action; scores outside 0 to 1.
pub fn read_detections(path: &Path) -> Result<Vec<Scored>, AnnotationError> {
    let text = read(path)?;
    let mut rows = Vec::new();
    for (line, text) in lines(&text) {
        let row = Row::of(path, line, text);
        row.columns(&[8], "video,second,x1,y1,x2,y2,action,score")?;
        let (frame, corners) = (row.key()?, row.coordinates()?);
        let Some(action) = row.number(6, "an action")? else {
            return Err(row.fail("has no action: a detection is of one action, write its id into the seventh column"));
        };
        rows.push(Scored { frame, corners, action, score: row.score()? });
    }
    Ok(rows)
}

/// Writes detections in their order. Numbers are written so that they read back exactly; `rounded` writes three decimals for
/// boxes and four for scores, as SlowFast does, which makes ties of near scores.
///
/// # Errors
/// Those of `out`.
pub fn write_detections(rows: &[Scored], rounded: bool, mut out: impl Write) -> std::io::Result<()> {
    for Scored { frame: KeyFrame { video, second }, corners: [x1, y1, x2, y2], action, score } in rows {
        match rounded {
            true => writeln!(out, "{video},{second:04},{x1:.3},{y1:.3},{x2:.3},{y2:.3},{action},{score:.4}")?,
            false => writeln!(out, "{video},{second:04},{x1},{y1},{x2},{y2},{action},{score}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
