//! The view in the terminal.

use std::time::SystemTime;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Wrap};

use crate::run::{Points, Run, State, figures};

/// Below this width there is one column.
const NARROW: u16 = 72;

/// Draws a run; `trouble` is why it could not be read again.
pub fn draw(frame: &mut Frame<'_>, run: &Run, trouble: Option<&str>, now: SystemTime) {
    let [head, bar, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(6), Constraint::Length(1)])
            .areas(frame.area());
    let state = run.state(now);
    let style = Style::new().fg(colour(&state)).add_modifier(Modifier::BOLD);
    let title = Line::from(vec![Span::raw(format!("{}  ", run.name())), Span::styled(state.in_words(), style)]);
    frame.render_widget(Paragraph::new(title), head);
    let ratio = run.steps().map_or(0.0, |all| (run.steps_done() as f64 / all.max(1) as f64).clamp(0.0, 1.0));
    let label = figures(run).into_iter().find_map(|(name, value)| value.filter(|_| name == "steps"));
    let gauge = Gauge::default().ratio(ratio).label(label.unwrap_or_default());
    frame.render_widget(gauge.gauge_style(Style::new().fg(Color::Blue)), bar);
    if body.width < NARROW {
        let [above, below] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(body);
        curve(frame, above, "loss", &[run.metrics.points("loss")]);
        numbers(frame, below, run);
    } else {
        let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(body);
        let [upper, lower] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(left);
        let held_out = run.measured(|report| Some(report.loss));
        curve(frame, upper, "loss (held out: yellow)", &[run.metrics.points("loss"), held_out]);
        let [gap, rank] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(lower);
        curve(frame, gap, "context gap, %", &[run.measured(|report| Some(100.0 * report.context_gap))]);
        curve(frame, rank, "effective rank", &[run.measured(|report| Some(report.effective_rank))]);
        numbers(frame, right, run);
    }
    let foot_line = trouble.map_or_else(
        || Line::styled("q quits; the run goes on", Style::new().fg(Color::DarkGray)),
        |trouble| Line::styled(trouble.to_owned(), Style::new().fg(Color::Red)),
    );
    frame.render_widget(Paragraph::new(foot_line), foot);
}

fn colour(state: &State) -> Color {
    match state.word() {
        "running" | "done" => Color::Green,
        "stalled" | "stopped" => Color::Yellow,
        _ => Color::Red,
    }
}

/// The figures, one a line.
fn numbers(frame: &mut Frame<'_>, area: Rect, run: &Run) {
    let muted = Style::new().fg(Color::DarkGray);
    let line = |(name, value): (&'static str, Option<String>)| {
        value.map(|value| Line::from(vec![Span::styled(format!("{name}  "), muted), Span::raw(value)]))
    };
    let mut lines: Vec<Line<'_>> =
        figures(run).into_iter().filter(|(name, _)| *name != "steps").filter_map(line).collect();
    lines.extend(run.notes.iter().map(|note| Line::styled(note.clone(), Style::new().fg(Color::Yellow))));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(Block::bordered()), area);
}

/// Lines over steps.
fn curve(frame: &mut Frame<'_>, area: Rect, title: &str, lines: &[Points]) {
    let block = Block::bordered().title(title.to_owned());
    let all = || lines.iter().flatten().filter(|point| point.1.is_finite());
    if all().next().is_none() {
        frame.render_widget(Paragraph::new("nothing yet").block(block), area);
        return;
    }
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if high > low { [low, high] } else { [low - 0.5, high + 0.5] }
    };
    let (x, y) = (range(|point| point.0), range(|point| point.1));
    let colours = [Color::Cyan, Color::Yellow].into_iter().cycle();
    let datasets = lines.iter().zip(colours).map(|(points, colour)| {
        let line = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line);
        line.style(Style::new().fg(colour)).data(points)
    });
    let muted = Style::new().fg(Color::DarkGray);
    let axis = |bounds: [f64; 2], decimals: usize| {
        let labels = bounds.map(|value| format!("{value:.decimals$}"));
        Axis::default().style(muted).bounds(bounds).labels(labels)
    };
    let decimals = if y[1] - y[0] < 0.1 {
        4
    } else if y[1] - y[0] < 10.0 {
        2
    } else {
        0
    };
    let chart = Chart::new(datasets.collect()).block(block).x_axis(axis(x, 0)).y_axis(axis(y, decimals));
    frame.render_widget(chart.legend_position(None), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;
    use crate::starts::RunRecord;
    use crate::starts::tests::start;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn drawn(run: &Run, size: (u16, u16), trouble: Option<&str>, after: u64) -> String {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        let now = run.written + Duration::from_secs(after);
        terminal.draw(|frame| draw(frame, run, trouble, now)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_curves_figures_and_the_state() {
        let folder = sample(200);
        RunRecord::begin(folder.path(), start(0)).unwrap();
        let run = Run::read(folder.path()).unwrap();
        let text = drawn(&run, (100, 30), None, 1);
        for wanted in
            ["running", "191 of 400", "loss", "context gap, %", "effective rank", "clips seen  3,056", "q quits"]
        {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{text}");
        let text = drawn(&run, (100, 30), Some("cannot read it"), 600);
        assert!(text.contains("stalled: nothing written for 10 min 0 s") && text.contains("cannot read it"), "{text}");
    }

    #[test]
    fn any_size_and_an_empty_run_can_be_drawn() {
        let folder = sample(100);
        let run = Run::read(folder.path()).unwrap();
        assert!(drawn(&run, (50, 24), None, 1).contains("clips seen"));
        for size in [(1, 1), (10, 3), (72, 8), (300, 90)] {
            drawn(&run, size, None, 1);
        }
        std::fs::write(folder.path().join("jepa-metrics.csv"), "step,loss\n").unwrap();
        std::fs::remove_file(folder.path().join("jepa-diagnostics.jsonl")).unwrap();
        assert!(drawn(&Run::read(folder.path()).unwrap(), (100, 30), None, 1).contains("nothing yet"));
    }
}
