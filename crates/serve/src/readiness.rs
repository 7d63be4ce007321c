//! Whether requests can be served: what they will need is tried at the start, and again when readiness is asked for.

use crate::error::InferError;
use crate::queue::{Job, Values};
use crate::state::Core;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, oneshot};

/// For how long a finding holds: many probes cost as much as one.
const HOLDS: Duration = Duration::from_millis(500);

/// How long a run that is tried may take.
const TRIAL: Duration = Duration::from_secs(10);

/// What was found last.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Core {
    /// Whether a request could be served now, or a sentence why not.
    ///
    /// # Errors
    /// The sentence.
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
                return Err("videos cannot be stored for reading; the server's log says why".to_owned());
            }
        }
        // A run that failed may have been that request's fault: the next one decides.
        if self.metrics.is_failing() { self.run_once().await } else { Ok(()) }
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
            _ => Err("the last run failed, and another one was not done in time".to_owned()),
        }
    }
}

/// Puts a file into a folder, with as much in it as shows that there is room, and takes it away again.
///
/// # Errors
/// Why that cannot be.
pub(crate) fn store(folder: &Path) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix("vjepa-video-").tempfile_in(folder).map_err(bare)?;
    file.write_all(&[0; 1 << 16]).map_err(bare)
}

/// The system's own words, without the path that `tempfile` adds.
pub(crate) fn bare(error: std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error)
}
