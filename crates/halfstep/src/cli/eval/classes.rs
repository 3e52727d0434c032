//! Scores of each class and the confusion matrix, as wide as the terminal.

use halfstep::data::printable;
use halfstep::evidence::measures::ClassScores;
use halfstep::evidence::measures::confusion::Confused;
use halfstep::evidence::units;
use textwrap::core::display_width;

use crate::cli::output;

/// Most classes whose scores are all shown.
const MOST_SHOWN: usize = 20;
/// Classes and confusions that are shown of more.
const SHOWN: usize = 10;
/// Columns that a name may take.
const WIDEST: usize = 24;

/// Names of classes, each in one line and cut where it is long.
pub fn names(classes: &[String]) -> Vec<String> {
    classes.iter().map(|name| short(name)).collect()
}

fn short(name: &str) -> String {
    let whole = printable(name);
    if display_width(&whole) <= WIDEST {
        return whole.into_owned();
    }
    let mut cut = String::new();
    for c in whole.chars() {
        if display_width(&cut) + display_width(c.encode_utf8(&mut [0; 4])) >= WIDEST {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}

/// The tables of one model, in at most `width` columns where names allow it.
pub fn text(scores: &ClassScores, names: &[String], width: usize) -> String {
    let tables = [by_class(scores, names), confusions(scores, names, width), scores.left_out().map(sentence)];
    tables.into_iter().flatten().map(|table| format!("\n{table}")).collect()
}

fn sentence(text: String) -> String {
    output::bullets(&[text])
}

fn by_class(scores: &ClassScores, names: &[String]) -> Option<String> {
    let all = scores.per_class.as_ref()?;
    let mut order: Vec<usize> = (0..all.len()).collect();
    let mut title = "By class".to_string();
    if all.len() > MOST_SHOWN {
        order.retain(|&c| all[c].f1.is_some());
        order.sort_by(|&a, &b| all[a].f1.unwrap_or(0.0).total_cmp(&all[b].f1.unwrap_or(0.0)));
        order.truncate(SHOWN);
        title = format!("The {} of {} classes with the lowest F1", order.len(), all.len());
    }
    let cell = |x: Option<f64>| x.map_or("–".into(), |x| units::percent(x, None));
    let row = |&c: &usize| {
        let s = &all[c];
        vec![names[c].clone(), units::count(s.support), cell(s.precision), cell(s.recall), cell(s.f1)]
    };
    let rows = output::headed("class | samples | precision | recall | F1", order.iter().map(row));
    Some(format!("{}\n{}", output::bold(&title), aligned(&rows)))
}

/// The matrix where it fits, else the largest confusions.
fn confusions(scores: &ClassScores, names: &[String], width: usize) -> Option<String> {
    let whole = scores.confusion_matrix.as_ref().map(|m| matrix(m, names));
    match whole.filter(|text| text.lines().all(|line| display_width(line) <= width)) {
        Some(text) => {
            let title = "Confusion matrix: a row for each label, a column for each answer";
            Some(format!("{}\n{text}", output::bold(title)))
        }
        None => {
            let largest = scores.largest_confusions.as_ref().filter(|all| !all.is_empty())?;
            let support = scores.per_class.as_ref()?;
            let row = |x: &Confused| {
                let share = f64::from(x.samples) / support[x.label as usize].support as f64;
                vec![
                    names[x.label as usize].clone(),
                    names[x.answer as usize].clone(),
                    units::count(x.samples.into()),
                    units::percent(share, None),
                ]
            };
            let rows = largest.iter().take(SHOWN).map(row);
            let rows = output::headed("label | answer | samples | of its class", rows);
            Some(format!("{}\n{}", output::bold("Largest confusions"), aligned(&rows)))
        }
    }
}

/// Columns are headed by names where these are short, else by the numbers that rows have.
fn matrix(counts: &[Vec<u32>], names: &[String]) -> String {
    let numbered = names.iter().any(|name| display_width(name) > 6);
    let label = |i: usize| if numbered { format!("{i} {}", names[i]) } else { names[i].clone() };
    let head = |i: usize| if numbered { i.to_string() } else { names[i].clone() };
    let cell = |&n: &u32| if n == 0 { "·".to_string() } else { n.to_string() };
    let classes = 0..counts.len();
    let mut rows = vec![std::iter::once(String::new()).chain(classes.clone().map(head)).collect::<Vec<_>>()];
    rows.extend(
        classes.map(|i| std::iter::once(label(i)).chain(counts[i].iter().map(cell)).collect::<Vec<_>>()),
    );
    let lines = output::layout(&rows, |c| c > 0);
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// Rows in columns: words to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let number = |s: &String| s.starts_with(|c: char| c.is_ascii_digit());
    // Names can be numbers too: the head says what a column is.
    let is_name = |c: usize| rows[0][c] == "class" || rows[0][c] == "label" || rows[0][c] == "answer";
    let lines =
        output::layout(rows, |c| !is_name(c) && rows.iter().skip(1).any(|r| r.get(c).is_some_and(number)));
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep::evidence::measures::ConfusionMatrix;

    fn scores(classes: usize) -> ClassScores {
        let mut m = ConfusionMatrix::new(classes);
        for i in 0..10 * classes as u32 {
            let label = i % classes as u32;
            m.push(label, if i % 7 == 0 { 0 } else { label });
        }
        m.scores().unwrap()
    }

    #[test]
    fn the_matrix_is_shown_where_it_fits() {
        let names = names(&["cat", "dog", "bird"].map(String::from));
        let text = text(&scores(3), &names, 80);
        let at = text.lines().position(|l| l.starts_with("Confusion matrix")).unwrap();
        let matrix: Vec<&str> = text.lines().skip(at + 1).collect();
        assert_eq!(
            matrix,
            [
                "        cat  dog  bird",
                "  cat    10    ·     ·",
                "  dog     2    8     ·",
                "  bird    1    ·     9"
            ]
        );
        assert!(text.contains("class  samples  precision"), "{text}");
    }

    #[test]
    fn of_many_classes_the_largest_confusions_are_shown() {
        let names: Vec<String> = (0..60).map(|i| format!("kind {i}")).collect();
        let text = text(&scores(60), &names, 80);
        assert!(text.contains("The 10 of 60 classes with the lowest F1"), "{text}");
        assert!(text.contains("Largest confusions") && !text.contains("Confusion matrix"), "{text}");
        assert!(text.lines().all(|l| display_width(l) <= 80), "{text}");
    }

    #[test]
    fn names_stay_on_their_line() {
        assert_eq!(short("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        let long = short(&"äöü".repeat(20));
        assert!(display_width(&long) == WIDEST && long.ends_with('…'), "{long}");
    }
}
