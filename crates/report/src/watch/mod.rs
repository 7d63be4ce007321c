//! A run that goes on elsewhere, in this terminal.

mod screen;
mod snapshot;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

pub use screen::draw;
pub use snapshot::{snapshot, summary};

use crate::ReportError;
use crate::run::Run;

/// How often keys are looked at.
const TICK: Duration = Duration::from_millis(200);

/// Shows a run until `q` or Ctrl-C, reading its folder anew every `every`; the terminal is left as it was. Returns the run
/// as it was read last.
///
/// # Errors
/// [`ReportError`] where there is no run to begin with, and [`ReportError::Terminal`] without a terminal. A folder that
/// cannot be read later on is said on the screen.
pub fn watch(path: &Path, every: Duration) -> Result<Run, ReportError> {
    let run = Run::read(path)?;
    if !std::io::stdout().is_terminal() {
        return Err(ReportError::Terminal(std::io::Error::other("standard output is none")));
    }
    let ended = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(ReportError::Terminal)?;
    }
    // From here on a panic restores the terminal, too.
    let mut terminal = ratatui::try_init().map_err(ReportError::Terminal)?;
    let shown = show(&mut terminal, path, run, every, &ended);
    ratatui::try_restore().map_err(ReportError::Terminal)?;
    shown
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    path: &Path,
    mut run: Run,
    every: Duration,
    ended: &AtomicBool,
) -> Result<Run, ReportError> {
    let (mut trouble, mut read) = (None, Instant::now());
    while !ended.load(Ordering::Relaxed) {
        if read.elapsed() >= every {
            match Run::read(path) {
                Ok(now) => (run, trouble) = (now, None),
                Err(error) => trouble = Some(error.to_string()),
            }
            read = Instant::now();
        }
        let now = SystemTime::now();
        terminal.draw(|frame| draw(frame, &run, trouble.as_deref(), now)).map_err(ReportError::Terminal)?;
        if event::poll(TICK).map_err(ReportError::Terminal)? && quits(&event::read().map_err(ReportError::Terminal)?) {
            break;
        }
    }
    Ok(run)
}

/// Whether an event asks for the end. In a terminal that is drawn on, Ctrl-C is a key like others.
fn quits(event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return false };
    match code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_ctrl_c_quit() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert!(quits(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(quits(&key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(quits(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!quits(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!quits(&Event::Resize(80, 24)));
    }
}
