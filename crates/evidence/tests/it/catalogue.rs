//! The catalogue of sentences about quality: `docs/claims.md` is its table, every test that it
//! names is there, and no such sentence is made anywhere else.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use halfstep_evidence::statements::{
    CommandStatement, RobustnessStatement, StudyStatement, VerdictStatement,
};
use halfstep_train::doctor::LearningStatement;
use halfstep_train::statements::Entry;

/// Each enum with the file that holds it, and what it is about.
const CATALOGUE: [(&str, &str, &str, &[Entry]); 5] = [
    ("Verdicts", "evidence/src/statements/verdict.rs", "VerdictStatement", VerdictStatement::ENTRIES),
    ("Comparisons", "evidence/src/statements/study.rs", "StudyStatement", StudyStatement::ENTRIES),
    ("Stress", "evidence/src/statements/robustness.rs", "RobustnessStatement", RobustnessStatement::ENTRIES),
    ("Other commands", "evidence/src/statements/command.rs", "CommandStatement", CommandStatement::ENTRIES),
    (
        "The doctor, of learning",
        "train/src/doctor/statements.rs",
        "LearningStatement",
        LearningStatement::ENTRIES,
    ),
];

/// What only a sentence about quality says. In small letters.
const VOCABULARY: &[&str] = &[
    "as good as",
    "equivalent to",
    "is worse",
    "are worse",
    "worse than",
    "worse by",
    "is better",
    "better than",
    "better by",
    "no better",
    "not shown",
    "is shown",
    "inconclusive",
    "no verdict",
    "cannot tell",
    "overconfident",
    "underconfident",
    "95 % confidence",
    "oftener",
    "settle it",
    "no faster",
    "the model learns",
    "does not learn",
    "does not train",
    "it worked",
    "clean runs",
    "to judge",
];

/// Literals with such words that are no such sentences: file, what stands in it, and why.
const NO_SENTENCES: &[(&str, &str, &str)] = &[
    ("attest/src/verdict.rs", "inconclusive", "the name of a verdict, in a statement"),
    ("evidence/src/stats.rs", "inconclusive", "the name of a verdict, a cell of tables"),
    ("evidence/src/report/build.rs", "A candidate ", "how a verdict is made"),
    ("evidence/src/report/build.rs", "Margins were stated", "how a verdict is made"),
    ("evidence/src/report/curves.rs", "above 1 the model is overconfident", "how to read a column"),
    ("halfstep/src/cli/args.rs", "Exit codes", "a help text"),
    ("halfstep/src/cli/args/tune.rs", "Exit codes", "a help text"),
    ("train/src/tune/mod.rs", "fp32 itself does not train here", "an error: a loss is not finite"),
    ("halfstep/src/cli/tui/mod.rs", "leave --tui out", "advice of an error"),
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// String literals of Rust code, as they are printed: without what stands behind `#[cfg(test)]
/// mod`.
fn literals(code: &str) -> Vec<String> {
    let end = ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(crate) mod "].iter().filter_map(|mark| {
        let at = code.find(mark)?;
        code[at..].lines().nth(2).is_some_and(|line| line.ends_with('{')).then_some(at)
    });
    let mut rest = &code[..end.min().unwrap_or(code.len())];
    let mut all = Vec::new();
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        rest = match rest.as_bytes()[at] {
            b'/' if after.starts_with('/') => after.split_once('\n').map_or("", |(_, rest)| rest),
            b'\'' if after.starts_with('\\') => &after[2 + after[2..].find('\'').map_or(0, |i| i + 1)..],
            b'\'' if after.chars().nth(1) == Some('\'') => {
                &after[after.chars().next().map_or(0, char::len_utf8) + 1..]
            }
            b'"' if before.ends_with('r') || before.ends_with('#') => {
                let hashes = before.len() - before.trim_end_matches('#').len();
                let close = format!("\"{}", "#".repeat(hashes));
                let (text, rest) = after.split_once(&close).unwrap_or((after, ""));
                all.push(text.to_string());
                rest
            }
            b'"' => {
                let mut escaped = false;
                let end = after.find(|c| {
                    let is_end = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    is_end
                });
                let (text, rest) = after.split_at(end.unwrap_or(after.len()));
                let mut lines = text.split("\\\n");
                let first = lines.next().unwrap_or_default().to_string();
                all.push(lines.fold(first, |text, line| text + line.trim_start()));
                rest.strip_prefix('"').unwrap_or(rest)
            }
            _ => after,
        };
    }
    all
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_sentence_about_quality_is_made_outside_the_catalogue() {
    let (crates, mut files) = (crates(), Vec::new());
    for entry in std::fs::read_dir(&crates).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut files);
    }
    assert!(files.len() > 300, "{}", files.len());
    let mut outside = Vec::new();
    let mut inside = 0;
    for file in files {
        let name = file.strip_prefix(&crates).unwrap().to_string_lossy().replace('\\', "/");
        let is_catalogue = CATALOGUE.iter().any(|(_, path, ..)| *path == name);
        for literal in literals(&read(&file)) {
            let small = literal.to_lowercase();
            if !VOCABULARY.iter().any(|word| small.contains(word)) {
                continue;
            }
            inside += usize::from(is_catalogue);
            let allowed =
                NO_SENTENCES.iter().any(|(path, part, _)| name.starts_with(path) && literal.contains(part));
            if !is_catalogue && !allowed {
                outside.push(format!("{name}: {literal}"));
            }
        }
    }
    assert!(inside > 50, "{inside}: the literals of the catalogue itself were not read");
    assert!(outside.is_empty(), "make these in the catalogue (docs/claims.md):\n{}", outside.join("\n"));
}

/// Where a test stands: `evidence it claims::name` or `train lib doctor::tests::name`.
fn test_file(test: &str) -> (PathBuf, String) {
    let [of, target, path] = test.split(' ').collect::<Vec<_>>()[..] else { panic!("{test}") };
    let mut modules: Vec<&str> = path.split("::").collect();
    let name = modules.pop().unwrap();
    let root = crates().join(of).join(if target == "it" { "tests/it" } else { "src" });
    while !modules.is_empty() {
        let folder = root.join(modules.join("/"));
        for file in [folder.with_extension("rs"), folder.join("mod.rs")] {
            if file.is_file() {
                return (file, name.to_string());
            }
        }
        modules.pop();
    }
    panic!("{test}: no such file")
}

#[test]
fn every_test_that_an_entry_names_is_there() {
    let mut ids = Vec::new();
    for entry in CATALOGUE.iter().flat_map(|(.., entries)| *entries) {
        let (file, name) = test_file(entry.test);
        let text = read(&file);
        let at = text.find(&format!("fn {name}()"));
        let is_test = at.is_some_and(|at| text[..at].trim_end().ends_with("#[test]"));
        assert!(is_test, "{}: {} has no test `{name}`", entry.id, file.display());
        assert!(!entry.said_when.trim().is_empty() && !entry.rests_on.is_empty(), "{}", entry.id);
        ids.push(entry.id);
    }
    assert!(ids.len() > 80, "{}", ids.len());
}

/// What a variant says, from the arm of `Display` that says it: its literals.
fn says(code: &str, of: &str, id: &str) -> String {
    let (_, text) = code.split_once(&format!("impl fmt::Display for {of} ")).unwrap();
    let starts =
        |line: &str| line.strip_prefix("            ").is_some_and(|l| l.starts_with(char::is_uppercase));
    let is_own = |line: &str| {
        let rest = line.trim_start().strip_prefix(id);
        starts(line) && rest.is_some_and(|rest| rest.starts_with(' '))
    };
    let own = text.lines().skip_while(|line| !is_own(line));
    let arm: Vec<&str> = own.enumerate().take_while(|(i, l)| *i == 0 || !starts(l)).map(|(_, l)| l).collect();
    let mut all = literals(&arm.join("\n"));
    // Parts of sentences are filled in.
    all.retain(|literal| literal.len() > 15 && !literal.starts_with([' ', ',', ';']));
    all.join(" / ").replace('|', "\\|").replace("\\n", " ").replace("\\\"", "\"")
}

fn table() -> String {
    let mut out = String::new();
    for (title, file, of, entries) in CATALOGUE {
        let code = read(&crates().join(file));
        write!(out, "\n## {title}\n\n[`{of}`](../crates/{file})\n\n").unwrap();
        out += "| sentence | says | is said when | rests on | test |\n|---|---|---|---|---|\n";
        for Entry { id, said_when, rests_on, test } in entries {
            let (said_when, says) = (said_when.trim(), says(&code, of, id));
            assert!(!says.is_empty(), "{id} says nothing");
            writeln!(out, "| `{id}` | {says} | {said_when} | {rests_on} | `{test}` |").unwrap();
        }
    }
    out + "\n"
}

/// What stands before and behind the table.
const MARKS: [&str; 2] = ["<!-- the catalogue -->\n", "<!-- the end of the catalogue -->\n"];

/// `UPDATE_CLAIMS=1` writes the table anew.
#[test]
fn the_page_of_claims_is_the_table_of_the_catalogue() {
    let page = crates().parent().unwrap().join("docs/claims.md");
    let text = read(&page);
    let (before, rest) = text.split_once(MARKS[0]).unwrap();
    let (_, after) = rest.split_once(MARKS[1]).unwrap();
    let right = [before, MARKS[0], &table(), MARKS[1], after].concat();
    if std::env::var_os("UPDATE_CLAIMS").is_some() {
        std::fs::write(&page, &right).unwrap();
    }
    assert!(read(&page) == right, "run this test with UPDATE_CLAIMS=1, and look at what changes");
}
