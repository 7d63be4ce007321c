//! An instance: a thread with one engine that takes batches from the queue and distributes the results.

use crate::error::InferError;
use crate::metrics::Metrics;
use crate::model::{BatchSizes, ServingEngine};
use crate::queue::{Answer, Job, Queue};
use crate::state::without_paths;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vjepa_runtime::{ClipBatch, NamedOutput, caught};

/// An engine with everything it needs.
pub(crate) struct Instance {
    pub engine: Box<dyn ServingEngine>,
    pub sizes: BatchSizes,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
}

impl Instance {
    /// Works until the queue is closed and empty.
    pub fn work(mut self) {
        while let Some(jobs) = self.queue.take() {
            self.run(jobs);
        }
    }

    fn run(&mut self, jobs: Vec<Job>) {
        let began = Instant::now();
        let clips: usize = jobs.iter().map(|job| job.shape.rows).sum();
        let outcome = self.guarded(&jobs, clips);
        let computed = began.elapsed();
        self.metrics.ran(clips, computed, outcome.is_ok());
        match outcome {
            Ok(outputs) => hand_out(jobs, outputs, clips, began, computed),
            Err(reason) => {
                tracing::error!(clips, reason, "run failed");
                let reason = without_paths(&reason);
                // The receiver is gone if its client went away.
                jobs.into_iter().for_each(|job| drop(job.answer.send(Err(InferError::Failed(reason.clone())))));
            }
        }
    }

    /// A panic in a runtime fails its request, not the server.
    fn guarded(&mut self, jobs: &[Job], clips: usize) -> Result<Vec<NamedOutput>, String> {
        caught(|| self.compute(jobs, clips)).unwrap_or_else(|panic| {
            Err(format!("the runtime panicked ({panic}); this request failed, the server keeps running"))
        })
    }

    fn compute(&mut self, jobs: &[Job], clips: usize) -> Result<Vec<NamedOutput>, String> {
        let Some(first) = jobs.first() else { return Ok(Vec::new()) };
        let values = match jobs {
            [only] => only.values.as_floats(),
            several => {
                let mut all = Vec::with_capacity(several.iter().map(|job| job.values.len()).sum());
                several.iter().for_each(|job| job.values.append_to(&mut all));
                Cow::Owned(all)
            }
        };
        let mut results: Vec<NamedOutput> = Vec::new();
        let mut rest = values.as_ref();
        for size in cut(clips, self.sizes) {
            let (part, after) =
                rest.split_at_checked(values.len() / clips * size).ok_or("a request lost its values")?;
            rest = after;
            let batch = ClipBatch::new(first.shape.with_rows(size).batch(), part).map_err(|e| e.to_string())?;
            append(&mut results, self.engine.run(&batch)?, size, clips)?;
        }
        Ok(results)
    }
}

/// The batch sizes that `clips` are split into.
fn cut(clips: usize, sizes: BatchSizes) -> Vec<usize> {
    match sizes {
        BatchSizes::Any => vec![clips],
        BatchSizes::One => vec![1; clips],
    }
}

/// Appends the results of one part.
fn append(all: &mut Vec<NamedOutput>, part: Vec<NamedOutput>, size: usize, clips: usize) -> Result<(), String> {
    if all.is_empty() {
        *all = part;
        return Ok(());
    }
    for (whole, part) in all.iter_mut().zip(part) {
        let (Some(rows), Some(more)) = (whole.shape.first_mut(), part.shape.first()) else {
            return Err(format!("`{}` has no batch; serve the model with --max-batch 1", whole.name));
        };
        if *more != size {
            return Err(format!("`{}` has {more} rows for {size} of {clips} clips", part.name));
        }
        *rows += more;
        whole.data.extend_from_slice(&part.data);
    }
    Ok(())
}

/// Gives each request its rows.
fn hand_out(jobs: Vec<Job>, outputs: Vec<NamedOutput>, clips: usize, began: Instant, computed: Duration) {
    let timed = |job: &Job, outputs| Answer { outputs, queued: began - job.entered, computed, batch: clips };
    let mut jobs = jobs.into_iter();
    if jobs.len() == 1 {
        if let Some(job) = jobs.next() {
            let answer = timed(&job, outputs);
            drop(job.answer.send(Ok(answer)));
        }
        return;
    }
    let mut first = 0;
    for job in jobs {
        let rows = first..first + job.shape.rows;
        first = rows.end;
        let own = outputs.iter().map(|output| rows_of(output, clips, &rows)).collect::<Result<Vec<_>, _>>();
        let answer = own.map(|outputs| timed(&job, outputs)).map_err(InferError::Failed);
        drop(job.answer.send(answer));
    }
}

fn rows_of(output: &NamedOutput, clips: usize, rows: &std::ops::Range<usize>) -> Result<NamedOutput, String> {
    let wrong =
        || format!("`{}` does not have one row per clip ({clips}); serve the model with --max-batch 1", output.name);
    let (all, rest) = output.shape.split_first().filter(|(all, _)| **all == clips).ok_or_else(wrong)?;
    let row = output.data.len() / all;
    let data = output.data.get(rows.start * row..rows.end * row).ok_or_else(wrong)?.to_vec();
    Ok(NamedOutput { name: output.name.clone(), shape: [&[rows.len()], rest].concat(), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_whom_they_belong() {
        let output = NamedOutput { name: "y".to_owned(), shape: vec![3, 2], data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let rows = rows_of(&output, 3, &(1..3)).unwrap();
        assert_eq!((rows.shape, rows.data), (vec![2, 2], vec![3.0, 4.0, 5.0, 6.0]));
        assert!(rows_of(&output, 2, &(0..1)).unwrap_err().contains("does not have one row per clip (2)"));
    }
}
