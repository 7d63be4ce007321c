//! What a run records beside its checkpoints and metrics: `run.json`, an event file, pictures.

use std::path::{Path, PathBuf};

use vjepa_view::Canvas;

use crate::ReportError;
use crate::events::EventWriter;
use crate::run::{PICTURES, drawn};
use crate::starts::{How, RunRecord, RunStart, Said};

/// Records a run. A failure never ends it: a run of weeks is worth more than its curves. What failed is to be asked for by
/// [`Recorder::trouble`], and said.
#[derive(Default)]
pub struct Recorder {
    folder: PathBuf,
    every: u64,
    record: Option<RunRecord>,
    events: Option<EventWriter>,
    pending: Option<(u64, Vec<(String, f64)>)>,
    trouble: Option<String>,
    failing: bool,
}

impl Recorder {
    /// Begins to record in a run's folder: adds the start to `run.json` and opens an event file with the configuration as
    /// text. The numbers of every `every`-th step are kept, and those of the last.
    pub fn begin(folder: &Path, start: RunStart, config: &str, every: u64) -> Self {
        let mut recorder = Self { folder: folder.to_owned(), every: every.max(1), ..Self::default() };
        let (from, command) = (start.from, start.command.join(" "));
        let forgotten = forget_pictures(folder, from);
        recorder.noted(forgotten);
        let record = RunRecord::begin(folder, start);
        recorder.record = recorder.noted(record);
        let events = EventWriter::create(folder, from).and_then(|mut events| {
            // Four spaces make it Markdown's verbatim text.
            let verbatim = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
            events.text(from, "config", &verbatim(config))?;
            events.text(from, "command", &verbatim(&command))?;
            Ok(events)
        });
        recorder.events = recorder.noted(events);
        recorder
    }

    /// The numbers of a step, by the names TensorBoard shows.
    pub fn step(&mut self, step: u64, values: Vec<(String, f64)>) {
        self.pending = Some((step, values));
        if step.is_multiple_of(self.every) {
            self.flush();
        }
    }

    /// Numbers measured after `done` steps, which are always kept. In the event file they stand at the last of these steps: a
    /// run resumed from here makes readers forget everything from step `done` on.
    pub fn scalars(&mut self, done: u64, values: &[(&str, f64)]) {
        let Some(events) = &mut self.events else { return };
        let written = events.scalars(done.saturating_sub(1), values);
        self.noted(written);
    }

    /// A verdict on the features after `done` steps: in the record, and as text in the event file.
    pub fn verdict(&mut self, done: u64, sentence: &str) {
        if let Some(record) = &mut self.record {
            let noted = record.say(Said { step: done, sentence: sentence.to_owned() });
            self.noted(noted);
        }
        let Some(events) = &mut self.events else { return };
        let written = events.text(done.saturating_sub(1), "verdict", sentence);
        self.noted(written);
    }

    /// A picture after `done` steps: as a file of the folder's `pictures`, and in the event file as numbers are.
    pub fn picture(&mut self, done: u64, name: &str, picture: &Canvas) {
        let path = self.folder.join(PICTURES).join(format!("{name}-{done:07}.png"));
        let Some(png) = self.noted(picture.png(&path).map_err(ReportError::from)) else { return };
        let saved = Canvas::save_bytes(&path, &png).map_err(ReportError::from);
        self.noted(saved);
        let Some(events) = &mut self.events else { return };
        let written = events.image_png(done.saturating_sub(1), name, (picture.width(), picture.height()), png);
        self.noted(written);
    }

    /// The run has ended.
    pub fn end(&mut self, steps: u64, how: How) {
        self.flush();
        let Some(record) = &mut self.record else { return };
        let noted = record.end(steps, how);
        self.noted(noted);
    }

    /// What could not be recorded, if anything since the last time it was asked; while writing goes on to fail, only once.
    pub fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    fn flush(&mut self) {
        let (Some((step, values)), Some(events)) = (self.pending.take(), &mut self.events) else { return };
        let written = events.scalars(step, &values);
        self.noted(written);
    }

    fn noted<T>(&mut self, result: Result<T, ReportError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.failing = false;
                Some(value)
            }
            Err(error) => {
                if !self.failing {
                    self.trouble = Some(error.to_string());
                }
                self.failing = true;
                None
            }
        }
    }
}

/// Removes pictures of steps that are done again; all of them where a run begins afresh.
fn forget_pictures(folder: &Path, from: u64) -> Result<(), ReportError> {
    let again = drawn(folder).into_iter().filter(|(_, step, _)| from == 0 || *step > from);
    let remove = |path: PathBuf| std::fs::remove_file(&path).map_err(|source| ReportError::write(&path, source));
    again.map(|(_, _, path)| path).try_for_each(remove)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;
    use crate::run::tests::sample;
    use crate::starts::tests::start;

    fn recorded(folder: &Path, from: u64) -> Recorder {
        Recorder::begin(folder, start(from), "data:\n  batch_size: 16\n", 10)
    }

    #[test]
    fn a_run_leaves_its_record_events_and_pictures() {
        let folder = sample(20);
        let mut recorder = recorded(folder.path(), 0);
        (0..25).for_each(|step| recorder.step(step, vec![("loss".into(), 0.5), ("rates/lr".into(), 1e-3)]));
        recorder.picture(20, "masks", &Canvas::new(30, 20));
        recorder.verdict(20, "verdict after step 20: no sign of collapse");
        recorder.end(25, How::Done);
        assert_eq!(recorder.trouble(), None);
        let run = Run::read(folder.path()).unwrap();
        assert_eq!(run.verdicts().map(|said| said.step).collect::<Vec<_>>(), [20]);
        assert_eq!(run.starts[0].ended.as_ref().map(|ended| (ended.steps, &ended.how)), Some((25, &How::Done)));
        assert!(run.pictures["masks"].contains_key(&20));
        let files = || {
            let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.to_string_lossy().contains("tfevents")).collect::<Vec<_>>()
        };
        let bytes = std::fs::read(&files()[0]).unwrap();
        let count = |word: &[u8]| bytes.windows(word.len()).filter(|part| *part == word).count();
        // Steps 0, 10, 20, and the last.
        assert_eq!((count(b"rates/lr"), count(b"batch_size: 16"), count(b"IHDR")), (4, 1, 1));
        // A resumed run goes on in a file of its own, and draws anew what it does again.
        let mut recorder = recorded(folder.path(), 20);
        recorder.picture(25, "masks", &Canvas::new(30, 20));
        let steps = || drawn(folder.path()).iter().map(|(_, step, _)| *step).collect::<Vec<_>>();
        assert_eq!(steps(), [20, 25]);
        drop(recorded(folder.path(), 20));
        assert_eq!((files().len(), steps()), (3, vec![20]));
        assert_eq!(Run::read(folder.path()).unwrap().starts.len(), 3);
        drop(recorded(folder.path(), 0));
        assert!(steps().is_empty());
    }

    #[test]
    fn what_fails_is_said_once_and_ends_nothing() {
        let folder = sample(20);
        std::fs::write(folder.path().join("run.json"), "{").unwrap();
        let mut recorder = recorded(folder.path(), 10);
        assert!(recorder.trouble().unwrap().contains("run.json"));
        // The event file is written all the same.
        recorder.step(10, vec![("loss".into(), 0.5)]);
        assert_eq!(recorder.trouble(), None);
        std::fs::write(folder.path().join(PICTURES), "a file where the folder should be").unwrap();
        recorder.picture(10, "masks", &Canvas::new(3, 2));
        assert!(recorder.trouble().unwrap().contains("masks-0000010.png"));
        recorder.end(11, How::Done);
    }
}
