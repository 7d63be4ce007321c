//! Readiness: whatever a request will need is tried at the start, and again whenever readiness is queried.

use crate::error::InferError;
use crate::queue::{Job, Values};
use crate::state::Core;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, oneshot};

/// How long a result is reused, so that many probes cost as much as one.
const HOLDS: Duration = Duration::from_millis(500);

/// How long a trial run may take.
const TRIAL: Duration = Duration::from_secs(10);

/// The last result.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Core {
    /// Whether a request could be served now.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn ready(self: &Arc<Self>) -> Result<(), String> {
        if !self.is_open() {
            return Err(InferError::Draining.to_string());
        }
        let mut found = self.readiness.0.lock().await;
        if let Some((_, outcome)) = found.as_ref().filter(|(when, _)| when.elapsed() < HOLDS) {
            return outcome.clone();
        }
        let outcome = self.tried().await;
        if let Err(reason) = &outcome {
            tracing::warn!(reason, "not ready");
        }
        *found = Some((Instant::now(), outcome.clone()));
        outcome
    }

    async fn tried(self: &Arc<Self>) -> Result<(), String> {
        if self.video.is_some() {
            let folder = self.settings.temporary();
            let stored = tokio::task::spawn_blocking(move || store(&folder).map_err(|error| (folder, error)));
            if let Ok(Err((folder, error))) = stored.await {
                tracing::warn!(folder = %folder.display(), %error, "the temporary folder cannot be written to");
                return Err("videos cannot be stored; the server's log says why".to_owned());
            }
        }
        if let Some(reason) = self.short_of_memory(vjepa_runtime::available_memory()) {
            return Err(reason);
        }
        // A failed run may have been that request's fault: another one decides.
        if self.metrics.is_failing() { self.run_once().await } else { Ok(()) }
    }

    /// Why even the smallest request would not fit in the `available` bytes, if so: its clips are in memory twice, as its
    /// body and as the values that are run. What a run itself needs is left over from the warm-up.
    fn short_of_memory(&self, available: Option<u64>) -> Option<String> {
        let (row, available) = (self.info.row()?, available?);
        let values = row.with_rows(self.info.fixed_batch().unwrap_or(1)).values();
        let bytes = values.and_then(|values| u64::try_from(values).ok()?.checked_mul(2 * size_of::<f32>() as u64));
        if bytes.is_some_and(|bytes| bytes <= available) {
            return None;
        }
        let needed = bytes.map_or_else(|| "more memory than there can be".to_owned(), mebibytes);
        Some(format!("a request needs {needed}, and {} of memory are available", mebibytes(available)))
    }

    /// Runs a clip of zeros, as a request would.
    async fn run_once(&self) -> Result<(), String> {
        let Some(row) = self.info.row() else { return Ok(()) };
        let shape = row.with_rows(self.info.fixed_batch().unwrap_or(1));
        let values = Values::Floats(vec![0.0; shape.values().unwrap_or_default()]);
        let (answer, receiver) = oneshot::channel();
        let entered = Instant::now();
        let deadline = entered + TRIAL.min(self.settings.limits.request);
        let failed = |error: InferError| format!("the last run failed, and so did another one: {error}");
        self.queue.push(Job { shape, values, entered, deadline, answer, held: None }).map_err(failed)?;
        match tokio::time::timeout_at(deadline.into(), receiver).await {
            Ok(Ok(outcome)) => outcome.map(drop).map_err(failed),
            _ => Err("the last run failed, and another one timed out".to_owned()),
        }
    }
}

/// An amount of memory, in words.
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Writes a file of some size to a folder, to see that there is space, and deletes it.
///
/// # Errors
/// Whatever the system reports.
pub(crate) fn store(folder: &Path) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix("vjepa-video-").tempfile_in(folder).map_err(bare)?;
    file.write_all(&[0; 1 << 16]).map_err(bare)
}

/// The system's own message, without the path that `tempfile` adds.
pub(crate) fn bare(error: std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error)
}
