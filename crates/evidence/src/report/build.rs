//! From a study to its report.

use serde::{Deserialize, Serialize, Serializer};

use super::classes::by_class;
use super::curves::{losses, reliability};
use super::parts::{assessed, section, strings, table};
use super::{Answer, Block, Report, Section, Table};
use crate::arithmetic::{self, PolicyArithmetic};
use crate::assessment::MetricRow;
use crate::assessment_table;
use crate::comparison::{Candidate, Comparison, PolicyRow};
use crate::cost::{Amounts, Energy, PolicyCost};
use crate::group_table;
use crate::noninferiority::{Claim, Question};
use crate::run::RunResult;
use crate::statements::StudyStatement;
use crate::study::{Floor, Study};
use crate::table::{lines, speed};
use crate::units;
use halfstep_train::metrics::Outcome;

/// The section that tells how numbers were made; it stands last.
pub(super) const HOW: &str = "how";

/// An example to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// The bytes of a PNG file; in the report's JSON, base64.
    #[serde(serialize_with = "as_base64", deserialize_with = "from_base64")]
    pub png: Vec<u8>,
    /// What it is, what it was taken for, and how surely.
    pub caption: String,
}

/// Examples to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pictures {
    /// What they have in common.
    pub caption: String,
    /// The pictures.
    pub pictures: Vec<Picture>,
}

fn as_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&data_encoding::BASE64.encode(bytes))
}

fn from_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    data_encoding::BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

impl Report {
    /// The report of a study. `examples` are pictures of the first arm's mistakes, by candidate.
    pub fn of(study: &Study, examples: Vec<(String, Vec<Picture>)>) -> Report {
        let summary = &study.summary;
        let answer = |question: &str, lines: &[StudyStatement]| Answer {
            question: question.into(),
            lines: lines.iter().map(ToString::to_string).collect(),
        };
        let answers = vec![
            answer("What was gained", &summary.gained),
            answer("What was lost", &summary.lost),
            answer("What is still unknown", &summary.unknown),
            answer("What to do next", &summary.next),
        ];
        let mut sections = Vec::new();
        let several = study.arms.len() > 1;
        if several {
            sections.push(verdicts(study));
        }
        let mut examples = Some(examples);
        for c in &study.arms {
            let mut of_arm = vec![side_by_side(c)];
            of_arm.extend(by_metric(c));
            of_arm.extend(losses(c));
            of_arm.extend(reliability(c));
            of_arm.extend(by_class(c));
            of_arm.extend(groups(c));
            // Pictures are of the first arm.
            of_arm.extend(examples.take().and_then(worst));
            of_arm.push(floor(c));
            of_arm.push(runs(c));
            if several {
                of_arm.iter_mut().for_each(|section| section.of_arm(&c.setup.name));
            }
            sections.extend(of_arm);
        }
        sections.push(cost(study));
        sections.push(how(study));
        let setup = study.arms.first().map(|c| &c.setup);
        let policies = setup.map_or(String::new(), |s| s.policies.join(", "));
        let fingerprints: Vec<&str> = study.arms.iter().map(|c| c.setup.fingerprint.as_str()).collect();
        Report {
            title: format!("{}: {policies} side by side", study.name),
            about: study.arms.iter().map(about).collect(),
            verdict: study.verdict,
            headline: summary.headline.to_string(),
            answers: answers.into_iter().filter(|a| !a.lines.is_empty()).collect(),
            sections,
            footer: format!(
                "Data fingerprint (SHA-256) {} · halfstep {} · {}",
                fingerprints.join(", "),
                setup.map_or("", |s| s.version.as_str()),
                study.command
            ),
        }
    }
}

fn about(c: &Comparison) -> String {
    let s = &c.setup;
    let seeds: Vec<String> = s.seeds.iter().map(u64::to_string).collect();
    format!(
        "{} ({} parameters) on {}; {} steps of {} samples; seeds {}. Measured on the {}: {} ({}).",
        s.model,
        units::count(s.parameters as u64),
        s.data,
        units::count(s.steps),
        s.batch,
        seeds.join(", "),
        s.device,
        s.processor,
        s.engine
    )
}

fn verdicts(study: &Study) -> Section {
    let rows = study.arms.iter().flat_map(|c| {
        c.candidates.iter().map(|x| {
            let difference = x.accuracy.map_or("–".into(), |a| units::points(a.mean));
            let worst = x.accuracy.and_then(|a| a.lower).map_or("–".into(), units::points);
            vec![
                c.setup.name.clone(),
                c.setup.model.clone(),
                x.policy.clone(),
                difference,
                worst,
                c.row(&x.policy).and_then(|r| speed(c, r)).unwrap_or_else(|| "–".into()),
                x.verdict.name().into(),
            ]
        })
    });
    let table = Table {
        caption: "Verdict of every model and precision; accuracy against the reference".into(),
        head: strings(["arm", "model", "precision", "accuracy", "95 % bound", "speed", "verdict"]),
        rows: rows.collect(),
        words: vec![1, 2],
    };
    section("verdicts", "Verdicts", vec![Block::Table(table)])
}

fn side_by_side(c: &Comparison) -> Section {
    let policies: Vec<String> = c.rows.iter().map(|r| r.policy.clone()).collect();
    let mut rows = Vec::new();
    for (title, lines) in lines(c) {
        rows.push(vec![title]);
        rows.extend(lines);
    }
    rows.push(vec!["Cost of a run that finished".into()]);
    let currency = &c.setup.rates.currency;
    let cost = |label: String, of: &dyn Fn(&Amounts) -> Option<String>| {
        let cell = |r: &PolicyRow| r.cost.per_accepted.as_ref().and_then(of).unwrap_or_else(|| "–".into());
        std::iter::once(label).chain(c.rows.iter().map(cell)).collect::<Vec<String>>()
    };
    rows.push(cost("core-hours".into(), &|a| Some(units::significant(a.core_hours))));
    let estimated = c.rows.iter().any(|r| r.cost.energy == Energy::Estimated);
    let energy = if estimated { "kWh (estimated)" } else { "kWh (counted by the processor)" };
    rows.push(cost(energy.into(), &|a| Some(units::significant(a.kwh))));
    if c.setup.rates.rate_per_core_hour.is_some() {
        rows.push(cost(currency.clone(), &|a| a.price.map(units::significant)));
    }
    let head = std::iter::once(String::new()).chain(policies).collect();
    let table = table("Speed, memory, quality and cost of each precision", head, rows);
    let blocks = std::iter::once(table).chain(products(c)).collect();
    section("side-by-side", "Side by side", blocks)
}

/// How the engine computes the products of each precision, where that is known.
fn products(c: &Comparison) -> Option<Block> {
    let row = |r: &PolicyRow| {
        let PolicyArithmetic { arithmetic, runs_on } = c.setup.arithmetic.get(&r.policy)?;
        Some(vec![r.policy.clone(), arithmetic::name(*arithmetic).into(), runs_on.clone()])
    };
    let rows: Vec<_> = c.rows.iter().filter_map(row).collect();
    let table = Table {
        caption: format!("How products are computed ({})", c.setup.engine),
        head: strings(["precision", "products", "how"]),
        words: vec![1, 2],
        rows,
    };
    (!table.rows.is_empty()).then_some(Block::Table(table))
}

/// The head over [`assessment_table::cells`], whose rows are each a metric or a group.
fn verdict_head(of: &str, c: &Comparison, candidate: &Candidate) -> Vec<String> {
    strings([of, &c.setup.reference, &candidate.policy, "difference", "95 % bound", "margin", "verdict"])
}

fn by_metric(c: &Comparison) -> Option<Section> {
    let mut blocks = Vec::new();
    for (candidate, a) in assessed(c) {
        let row = |r: &MetricRow| assessment_table::cells(r);
        let of = |f: &dyn Fn(&MetricRow) -> bool| a.rows.iter().filter(|r| f(r)).map(row).collect::<Vec<_>>();
        let mut rows = of(&|r| r.group.is_none() && !r.metric.is_beside_floor());
        let beside_floor = of(&|r| r.group.is_none() && r.metric.is_beside_floor());
        if !beside_floor.is_empty() {
            rows.push(vec![format!(
                "Changed answers, beside those that another seed of {} changes",
                c.setup.reference
            )]);
            rows.extend(beside_floor);
        }
        let how = if candidate.pairs == 1 { "one pair judged by its examples" } else { "by metric" };
        let caption = format!("{} against {}, {how}", candidate.policy, c.setup.reference);
        blocks.push(table(caption, verdict_head("metric", c, candidate), rows));
    }
    if c.setup.targets_measured < c.setup.targets {
        blocks.push(Block::text(format!(
            "Measured on {} of {} test targets, evenly spaced, to bound the size of what is kept.",
            units::count(c.setup.targets_measured as u64),
            units::count(c.setup.targets as u64)
        )));
    }
    (!blocks.is_empty()).then(|| section("metrics", "Verdict by metric", blocks))
}

/// Accuracy and negative flips by group, where the data have groups.
fn groups(c: &Comparison) -> Option<Section> {
    let mut blocks = Vec::new();
    for (candidate, a) in assessed(c) {
        let rows: Vec<Vec<String>> =
            a.rows.iter().filter(|r| r.group.is_some()).map(assessment_table::cells).collect();
        if !rows.is_empty() {
            let caption = format!("Accuracy of {} against {} by group", candidate.policy, c.setup.reference);
            blocks.push(table(caption, verdict_head("group", c, candidate), rows));
        }
        let (base, policy) = (&c.setup.reference, &candidate.policy);
        for (caption, lines) in [
            ("Expected calibration error by group", group_table::calibration(&a.seeds)),
            ("Gaps between groups", group_table::gaps(&a.seeds)),
        ] {
            if !lines.is_empty() {
                let rows = lines.iter().map(|line| line.cells().to_vec()).collect();
                let head = strings(["", base, policy, "difference"]);
                blocks.push(table(format!("{caption}, {policy} against {base}"), head, rows));
            }
        }
    }
    (!blocks.is_empty()).then(|| section("groups", "By group", blocks))
}

fn worst(examples: Vec<(String, Vec<Picture>)>) -> Option<Section> {
    let blocks: Vec<Block> = examples
        .into_iter()
        .filter(|(_, pictures)| !pictures.is_empty())
        .map(|(policy, pictures)| {
            let caption = format!("Mistakes of {policy} in the first seed, of which it is surest.");
            Block::Pictures(Pictures { caption, pictures })
        })
        .collect();
    (!blocks.is_empty()).then(|| section("worst", "Worst examples", blocks))
}

fn floor(c: &Comparison) -> Section {
    let reference = &c.setup.reference;
    let share = |x: Option<f64>| x.map_or("–".into(), |x| units::percent(x, None));
    let points = |x: Option<f64>| x.map_or("–".into(), |x| format!("{:.2} pt", x * 100.0));
    let row = |x: &Candidate| {
        let f = Floor::of(c, x);
        vec![
            x.policy.clone(),
            points(f.seed_sd),
            points(f.paired_sd),
            f.correlation.map_or("–".into(), |r| format!("{r:.2}")),
            share(f.flips),
            share(f.candidate_flips),
        ]
    };
    let caption = format!("What another seed of {reference} alone does, and what the precision does");
    let head = strings([
        "precision",
        &format!("accuracy over seeds of {reference} (SD)"),
        "paired differences (SD)",
        "correlation of pairs",
        "answers that another seed changes",
        "answers that the precision changes",
    ]);
    let table = table(caption, head, c.candidates.iter().map(row).collect());
    let text = format!(
        "Seeds are paired: both precisions start from the same weights and see the same batches. Pairing helps as far as the \
         paired differences scatter less than two independent runs would (√2 times the spread over seeds); the correlation \
         says how much it found. A precision that changes no more answers than another seed of {reference} does is within the \
         noise of training."
    );
    section("floor", "Noise floor", vec![table, Block::text(text)])
}

fn runs(c: &Comparison) -> Section {
    let none = || "–".to_string();
    let row = |r: &RunResult| {
        let last = r.record.evaluations.last();
        let outcome = match &r.record.outcome {
            Outcome::Finished if r.cached => "finished, from the cache".into(),
            Outcome::Finished => "finished".into(),
            Outcome::Interrupted => "stopped by hand".into(),
            Outcome::Diverged { reason } => reason.clone(),
        };
        vec![
            format!("{} seed {}", r.record.policy, r.record.seed),
            last.map_or_else(none, |e| units::percent(e.accuracy, None)),
            last.map_or_else(none, |e| format!("{:.4}", e.loss)),
            r.record.median_ms().map_or_else(none, units::milliseconds),
            units::seconds(r.record.wall_seconds),
            r.record.skipped.to_string(),
            r.way.words(),
            outcome,
        ]
    };
    let table = Table {
        caption: "Every run that was begun".into(),
        head: strings([
            "run",
            "test accuracy",
            "test loss",
            "step",
            "whole run",
            "skipped",
            "ran with",
            "outcome",
        ]),
        rows: c.runs.iter().map(row).collect(),
        words: vec![6, 7],
    };
    section("runs", "Runs", vec![Block::Table(table)])
}

fn cost(study: &Study) -> Section {
    let mut rows = Vec::new();
    let several = study.arms.len() > 1;
    let rates = study.arms.first().map(|c| c.setup.rates.clone()).unwrap_or_default();
    let priced = rates.rate_per_core_hour.is_some();
    let mut head = strings(["", "accepted", "time", "core-hours", "kWh", "kg CO₂"]);
    if priced {
        head.push(rates.currency.clone());
    }
    let cells = |label: String, accepted: String, a: &Amounts| {
        let mut cells = vec![
            label,
            accepted,
            units::seconds(a.wall_seconds),
            units::significant(a.core_hours),
            units::significant(a.kwh),
            units::significant(a.kg_co2),
        ];
        cells.extend(a.price.map(units::significant));
        cells
    };
    let mut measured = true;
    for c in &study.arms {
        for row in &c.rows {
            let cost: &PolicyCost = &row.cost;
            measured &= cost.energy == Energy::Measured;
            let arm = if several { format!("{}, ", c.setup.name) } else { String::new() };
            rows.push(vec![format!("{arm}{}", row.policy)]);
            let of = format!("{} of {}", cost.accepted, cost.runs);
            rows.push(cells("all its runs".into(), of, &cost.all));
            if cost.wasted.wall_seconds > 0.0 {
                rows.push(cells("of these, failed or repeated".into(), "–".into(), &cost.wasted));
            }
            if let Some(a) = &cost.per_accepted {
                rows.push(cells("per run that finished".into(), "1".into(), a));
            }
            if let Some(a) = &cost.per_million_predictions {
                rows.push(cells("a million predictions".into(), "–".into(), a));
            }
        }
    }
    let caption =
        "What training and predicting cost; failed and repeated runs are charged to those that finished";
    let energy = if measured {
        "Energy is what the processor counted (RAPL), shared out by core-seconds among runs side by side."
            .to_string()
    } else {
        format!(
            "Energy is an estimate: core-seconds at an assumed {} W per busy core, because this system does not let the \
             processor's counters be read for all runs.",
            rates.watts_per_core
        )
    };
    let money = match rates.rate_per_core_hour {
        Some(rate) => format!(" Money is {rate} {} per core-hour, as the recipe states.", rates.currency),
        None => " No price was stated (`rate_per_core_hour` in [cost]).".into(),
    };
    let text = format!(
        "{energy} Carbon is reckoned from an assumed {} g of CO₂ per kWh.{money} Core-hours are hours by the clock times \
         threads. Runs taken from the cache are charged what they cost when they were made.",
        rates.grams_co2_per_kwh
    );
    section("cost", "Cost", vec![table(caption, head, rows), Block::text(text)])
}

fn how(study: &Study) -> Section {
    let Some(c) = study.arms.first() else { return section(HOW, "How each number was made", Vec::new()) };
    let s = &c.setup;
    let margins: Vec<String> = s
        .protocol
        .margins
        .iter()
        .map(|(metric, margin)| format!("{} {}", metric.name(), metric.show_margin(*margin)))
        .collect();
    let details =
        |title: &str, text: String| Block::Details { title: title.into(), blocks: vec![Block::text(text)] };
    let sides = match s.protocol.question {
        Question::NonInferiority => "A candidate may be better by any amount.",
        Question::Equivalence => "A candidate that is better by more than a margin fails too.",
    };
    let decides = match s.protocol.claim {
        Claim::Examples => "that on examples like these decides",
        Claim::Samples => "that on these samples decides",
    };
    section(
        HOW,
        "How each number was made",
        vec![
            details(
                "Verdict",
                format!(
                    "Margins were stated before the runs: {}. Each metric has two one-sided tests. On these samples: a paired t-test \
                     over seeds. On examples like these: the scatter over examples is added to that over seeds. Here {decides}. \
                     Pass if the 95 % upper bound of the mean harm lies within the margin, fail if the lower bound lies beyond \
                     it, else inconclusive. Over all, pass needs every metric to pass; fail needs one that fails after Holm's adjustment \
                     for their number, and only such metrics are named. {sides}",
                    margins.join(", ")
                ),
            ),
            details(
                "Seeds needed",
                format!(
                    "The fewest seeds with which a candidate without any difference passes with a chance of {:.0} %, from the \
                     noncentral t distribution and the spread of the paired differences seen here.",
                    s.protocol.power * 100.0
                ),
            ),
            details(
                "Speed",
                format!(
                    "The median over runs of each run's median time of a step, without drawing the batch, of runs with {} on \
                     this processor. Precisions take turns in going first, so that what else the machine does falls on all of \
                     them alike.",
                    c.timed.words()
                ),
            ),
            details(
                "Memory",
                "Scratch memory and state are the planned bytes, which are those that are allocated. Peak resident memory is what \
                 the system reports for the process during a run; it is left out where runs ran side by side. 1 MB is 10⁶ bytes."
                    .into(),
            ),
            details(
                "Quality",
                "Measures are computed in f64 from the f32 logits of the test data after the last step. ECE has 15 bins of equal \
                 width. Accuracy and loss of the table are of all test data; ± is the standard deviation over seeds."
                    .into(),
            ),
            details(
                "Divergence",
                "The exact (Clopper–Pearson) one-sided 95 % bound of the chance that a run diverges. It gates only where \
                 `max_divergence` is stated."
                    .into(),
            ),
        ],
    )
}
