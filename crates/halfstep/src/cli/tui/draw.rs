//! The picture.

use halfstep::evidence::units;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph};

use super::board::Figures;

/// Draws everything, on as little as 80×24.
pub fn draw(figures: &Figures, frame: &mut Frame<'_>) {
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(8),
        Constraint::Length(5),
        Constraint::Length(1),
    ])
    .split(frame.area());
    frame.render_widget(Line::from(figures.title.as_str()).bold(), rows[0]);
    let ratio = figures.done as f64 / figures.steps.max(1) as f64;
    let left = figures.left().map_or("–".into(), |left| units::seconds(left.as_secs_f64()));
    let label = format!("step {} of {}   {left} left", figures.done, figures.steps);
    let gauge = Gauge::default().ratio(ratio.clamp(0.0, 1.0)).label(label).gauge_style(Color::Blue);
    frame.render_widget(gauge, rows[1]);
    let charts = Layout::horizontal([Constraint::Percentage(68), Constraint::Percentage(32)]).split(rows[2]);
    losses(figures, frame, charts[0]);
    scales(figures, frame, charts[1]);
    frame.render_widget(Paragraph::new(numbers(figures)).block(Block::bordered()), rows[3]);
    let foot = match (&figures.note, figures.stopping) {
        (_, true) => Line::from("stopping after this step, with a checkpoint …").yellow(),
        (Some(note), false) => Line::from(note.as_str()).red(),
        (None, false) => Line::from("q stops with a checkpoint").dim(),
    };
    frame.render_widget(foot, rows[4]);
}

/// The smallest and largest of some values, a little apart.
fn bounds(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match (low, high) {
        (low, high) if low > high => [0.0, 1.0],
        (low, high) => {
            let margin = ((high - low) * 0.05).max(1e-3 * high.abs()).max(1e-6);
            [low - margin, high + margin]
        }
    }
}

fn axes<'a>(figures: &Figures, y: [f64; 2], label: impl Fn(f64) -> String) -> (Axis<'a>, Axis<'a>) {
    let steps = [0.0, figures.steps as f64];
    let dim = Style::default().dim();
    let x = Axis::default().bounds(steps).style(dim).labels(["0".to_string(), figures.steps.to_string()]);
    let mut labels = [y[0], (y[0] + y[1]) / 2.0, y[1]].map(label);
    if labels[1] == labels[0] || labels[1] == labels[2] {
        labels[1].clear();
    }
    (x, Axis::default().bounds(y).style(dim).labels(labels))
}

fn losses(figures: &Figures, frame: &mut Frame<'_>, area: Rect) {
    let (train, test) = (figures.train.points(), figures.test.points());
    let y = bounds(train.iter().chain(test).map(|p| p.1));
    let (x, y) = axes(figures, y, |v| format!("{v:.2}"));
    let curve = |name: &'static str, points, colour, marker| {
        Dataset::default().name(name).data(points).marker(marker).graph_type(GraphType::Line).style(colour)
    };
    let curves = vec![
        curve("train", train, Color::Cyan, Marker::Braille),
        curve("test", test, Color::Yellow, Marker::Dot),
    ];
    frame.render_widget(Chart::new(curves).block(Block::bordered().title("loss")).x_axis(x).y_axis(y), area);
}

fn scales(figures: &Figures, frame: &mut Frame<'_>, area: Rect) {
    let points = figures.scales.points();
    let (x, y) = axes(figures, bounds(points.iter().map(|p| p.1)), |v| format!("2^{v:.0}"));
    let curve = Dataset::default().data(points).marker(Marker::Braille).graph_type(GraphType::Line);
    let block = Block::bordered().title("loss scale");
    frame.render_widget(Chart::new(vec![curve.style(Color::Magenta)]).block(block).x_axis(x).y_axis(y), area);
}

fn numbers(figures: &Figures) -> Vec<Line<'_>> {
    let none = || "–".to_string();
    let item =
        |label: &'static str, value: String| [Span::from(label).dim(), Span::from(format!(" {value}   "))];
    let (last, test) = (figures.last.as_ref(), figures.evaluation.as_ref());
    let checkpoints = match figures.checkpoints.as_slice() {
        [] => "none yet".to_string(),
        // All are of one size, and three of them share a line of 80.
        [.., (_, bytes)] => {
            let names: Vec<&str> = figures.checkpoints.iter().map(|(name, _)| name.as_str()).collect();
            format!("{} ({})", names.join(", "), units::bytes(*bytes as usize))
        }
    };
    let losses = [
        item("train loss", figures.running.value().map_or(none(), |loss| format!("{loss:.4}"))),
        item("test loss", test.map_or(none(), |e| format!("{:.4}", e.loss))),
        item("accuracy", test.map_or(none(), |e| units::percent(e.accuracy, None))),
        item("lr", last.map_or(none(), |s| format!("{:.2e}", s.lr))),
    ];
    let state = [
        item("speed", format!("{} samples/s", units::three(figures.throughput()))),
        item("scale", last.map_or(none(), |s| units::scale(f64::from(s.scale)))),
        item("skipped", figures.running.skipped.to_string()),
        item("memory", figures.memory.map_or(none(), units::bytes)),
    ];
    [losses.concat(), state.concat(), item("checkpoints", checkpoints).to_vec()].map(Line::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep::train::metrics::{EvaluationMetrics, StepMetrics};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn picture(figures: &Figures, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(figures, frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cell = |x, y| buffer[(x, y)].symbol().to_string();
        (0..height).map(|y| (0..width).map(|x| cell(x, y)).collect()).collect()
    }

    #[test]
    fn everything_is_seen_on_a_small_terminal() {
        let mut figures = Figures::new("digits-mlp  mlp 128  fp16".into(), 1000, 0, 32);
        for attempt in 0..500u64 {
            let (loss, committed) = (4.0 / (1.0 + attempt as f32 / 50.0), attempt % 100 != 7);
            let scale = if attempt < 250 { 65536.0 } else { 32768.0 };
            let (lr, grad_norm, ms, cause) = (1e-3, 1.0, 2.0, None);
            figures.step(&StepMetrics { attempt, loss, lr, grad_norm, scale, committed, ms, cause });
        }
        for attempt in [0, 100, 200, 300, 400] {
            let loss = 4.2 / (1.0 + attempt as f64 / 50.0);
            figures.evaluation(&EvaluationMetrics { attempt, loss, accuracy: 0.875, validation: None });
        }
        (1..6).for_each(|n| figures.checkpoint(&format!("step-000{n}00"), 1_500_000));
        figures.memory = Some(123_000_000);
        let lines = picture(&figures, 80, 24);
        let text = lines.join("\n");
        eprintln!("{text}");
        for seen in [
            "digits-mlp  mlp 128  fp16",
            "step 500 of 1000",
            "left",
            "train",
            "test",
            "2^15",
            "2^16",
            "skipped 5",
            "scale 2^15",
            "accuracy 87.50 %",
            "memory 123 MB",
            "samples/s",
            "step-000500 (1.50 MB)",
            "q stops",
        ] {
            assert!(text.contains(seen), "no `{seen}` in\n{text}");
        }
        let curve =
            lines[2..18].iter().flat_map(|l| l.chars()).filter(|c| ('\u{2801}'..='\u{28ff}').contains(c));
        assert!(curve.count() > 30, "no curve is drawn:\n{text}");
        figures.stopping = true;
        assert!(picture(&figures, 80, 24).join("\n").contains("stopping after this step"));
        // Nothing measured yet, and hardly any room: no panic.
        for (width, height) in [(80, 24), (20, 5), (1, 1)] {
            picture(&Figures::new(String::new(), 0, 0, 1), width, height);
        }
    }
}
