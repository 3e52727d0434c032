#!/usr/bin/env python3
"""Breaks what each sentence of docs/claims.md rests on, and demands that the test it names then fails.

    scripts/mutate_claims.py                 # all: in a copy of the last commit, removed at the end
    scripts/mutate_claims.py ID...           # those
    scripts/mutate_claims.py --here [ID...]  # in this tree, whose files are put back at the end

All mutations are compiled into one program, each behind its name in the variable MUTANT ("mutant schemata", Untch, Offutt and
Harrold 1993): expressions `old` become `if MUTANT is the name { new } else { old }`. Every test runs once without a mutant, when it
must pass, and once with each of its own, when it must fail. Prints the table, and ends with 1 if one did not.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

E, T, H = "crates/evidence/src/", "crates/train/src/", "crates/halfstep/src/cli/"
FALSE, TRUE = "false", "true"

# Of each sentence: the file, a text that stands there once, the expression in it, what it becomes.
MUTATIONS = {
    "VerdictStatement": {
        "AsGoodOnExamples": (E + "noninferiority.rs", "Some(Tail::of_parts(mean, &parts, asked.looks))", "&parts", "&parts[..1]"),
        "AsGoodOnSamples": (E + "noninferiority.rs", "few.filter(|_| sd.is_some())", "sd.is_some()", FALSE),
        "AsGoodOnSamplesOnly": (E + "findings.rs", "if a.on_samples == Verdict::Pass", "a.on_samples == Verdict::Pass", FALSE),
        "WorseThanAllowed": (E + "noninferiority.rs", "over_adjusted(tests, &holm(&p), looks)", "holm(&p)", "p.clone()"),
        "NothingJudged": (E + "findings.rs", "if margins == 0 &&", "margins == 0", FALSE),
        "CannotTell": (E + "answers.rs", "=> b.cdf(self.losses)", "b.cdf(self.losses)", "0.0"),
        "ElsewhereToo": (E + "judge.rs", "a.tests_by(|r| r.on_examples)", "r.on_examples", "r.on_samples"),
        "ElsewhereNot": (E + "noninferiority.rs", "Some(Tail::of_parts(mean, &parts, asked.looks))", "mean", "mean + 0.5 * margin"),
        "SamplesNeeded": (E + "judge.rs", "harm: test.harm.max(0.0)", "test.harm.max(0.0)", "0.0"),
        "ElsewhereOpen": (E + "judge.rs", "test(r).map_or(open, of)", "test(r)", "test(r).or(r.test)"),
        "ReferenceNotFinite": (E + "reference.rs", "!m.quality.nll.is_finite()", "!m.quality.nll.is_finite()", FALSE),
        "ReferenceWorthless": (E + "measures/constant.rs", "*p <= ALPHA / TESTS", "*p <= ALPHA / TESTS", FALSE),
        "ReferenceAccuracyOfMajority": (E + "reference.rs", "!m.beside_constant.is_accuracy_shown_better()", "!m.beside_constant.is_accuracy_shown_better()", TRUE),
        "WorseByAtLeast": (E + "noninferiority.rs", "harm_at_least: excess.at_least.map(|e| e + margin_mean)", "e + margin_mean", "e + 1.1 * margin_mean"),
        "BetterThanAllowed": (E + "noninferiority.rs", "(2.0 * a.min(b)).min(1.0)", "(2.0 * a.min(b)).min(1.0)", "a"),
        "Miscalibrated": (E + "findings.rs", "let over = temperature > baseline;", "temperature > baseline", "temperature < baseline"),
        "RightMadeWrong": (E + "findings.rs", "let accuracy_holds = accuracy != Some(Verdict::Fail);", "accuracy != Some(Verdict::Fail)", FALSE),
        "HarmOnGroups": (E + "findings.rs", "groups.len() < all_groups", "groups.len() < all_groups", FALSE),
        "BeyondBeforeAdjustment": (E + "judge.rs", "row.fails_after_holm = a.protocol.looks.reject(*p);", "a.protocol.looks.reject(*p)", TRUE),
        "NotJudged": (E + "judge.rs", "let gates = asked_for || seeds.len() > 1;", "asked_for || seeds.len() > 1", FALSE),
        "NotPartOfVerdict": (E + "judge.rs", "least.filter(|least| each < *least)", "each < *least", FALSE),
        "OnePairOfFiles": (E + "findings.rs", "any(|r| r.unit == Unit::Examples)", "r.unit == Unit::Examples", FALSE),
        "DivergenceJudged": (E + "exact.rs", "} else if at_most <= most {", "at_most <= most", "0.9 * at_most <= most"),
        "DivergenceSeen": (E + "exact.rs", "b.inverse_cdf(1.0 - alpha)", "alpha", "2.0 * alpha"),
        "DivergesOftener": (E + "exact.rs", "Ok(h)) => h.sf(diverged - 1)", "diverged - 1", "diverged"),
        "DivergenceNotTold": (E + "exact.rs", "let at_most = upper_bound(diverged, runs, ALPHA / 2.0) - at_least;", "upper_bound(diverged, runs, ALPHA / 2.0) - at_least", "0.0"),
        "LossNotRuledOut": (E + "noninferiority.rs", "harm_at_most: excess.at_most.map(|e| e + margin_mean)", "e + margin_mean", "e + 0.9 * margin_mean"),
        "NoSpread": (E + "tail.rs", "let half = error.map(|e|", "error", "error.or(Some(0.0))"),
        "SeedsNeeded": (E + "power.rs", "self.power(seeds, examples) >= goal", "goal", "goal - 0.2"),
        "LooksSpent": (E + "stats.rs", "p < self.alpha() && !self.are_spent()", "!self.are_spent()", TRUE),
        "SeedsEnough": (E + "power.rs", "self.power(seeds, examples) >= goal", "goal", "goal + 0.05"),
        "LosesAtMost": (E + "noninferiority.rs", "harm_at_most: excess.at_most.map(|e| e + margin_mean)", "e + margin_mean", "e"),
    },
    "StudyStatement": {
        "IsWorse": (E + "study.rs", "is_none_or(|a| a.verdict == Verdict::Fail)", "a.verdict == Verdict::Fail", FALSE),
        "IsAsGoodOnExamples": (E + "comparison.rs", "if pairs > 1 && missing == 0 => a.verdict", "missing == 0", TRUE),
        "IsAsGoodOnSamples": (E + "study.rs", "x.assessment.as_ref().map(findings::on_new_examples)", "x.assessment.as_ref().map(findings::on_new_examples)", "None"),
        "IsAsGoodOnSamplesOnly": (E + "study.rs", "if on_samples && x.missing == 0", "on_samples", FALSE),
        "CannotTell": (E + "comparison.rs", "if pairs > 1 && missing == 0 => a.verdict", "pairs > 1", TRUE),
        "OnePrecision": (E + "study.rs", "if answers.is_empty()", "answers.is_empty()", TRUE),
        "LossStillFalling": (T + "metrics.rs", "-self.change > 3.0 * self.error", "-self.change > 3.0 * self.error", TRUE),
        "Faster": (E + "comparison.rs", "runs.iter().filter(|r| r.way == *way).filter_map(|r| r.record.median_ms())", "r.way == *way", TRUE),
        "Slower": (E + "comparison.rs", "if ratio < 0.95", "ratio < 0.95", FALSE),
        "LessMemory": (E + "comparison.rs", "if saved >= 0.05", "saved >= 0.05", "saved >= 0.5"),
        "MoreMemory": (E + "comparison.rs", "if saved <= -0.05", "saved <= -0.05", "saved <= -0.5"),
        "NothingGained": (E + "comparison.rs", "if ratio > 1.05", "ratio > 1.05", "ratio > 1.0"),
        "NoLessMemory": (E + "study.rs", "let timed = row.is_some_and(|r| r.speed_ratio.is_some());", "r.speed_ratio.is_some()", TRUE),
        "NoSpeedClaimed": (E + "comparison.rs", "&& !(row.is_emulated() || base.is_emulated())", "row.is_emulated() || base.is_emulated()", FALSE),
        "NothingShownLost": (E + "study.rs", "if lost.is_empty() &&", "lost.is_empty()", FALSE),
        "OtherSamples": (E + "study.rs", "a.examples == crate::buckets::TestSets::OfEachSeed", "a.examples == crate::buckets::TestSets::OfEachSeed", TRUE),
        "NoSeedFinished": (E + "run.rs", "filter(|_| self.record.outcome == Outcome::Finished)", "self.record.outcome == Outcome::Finished", TRUE),
        "SeedsMissing": (E + "comparison.rs", "let missing = setup.seeds.len() - setup.seeds.iter().filter(both).count();", "setup.seeds.len() - setup.seeds.iter().filter(both).count()", "0"),
        "OnePairOfModels": (E + "comparison.rs", "if pairs > 1 && missing == 0 => a.verdict", "pairs > 1", TRUE),
        "HowOftenItDiverges": (E + "exact.rs", "(alpha.ln() / (-chance).ln_1p()).ceil()", "(alpha.ln() / (-chance).ln_1p()).ceil()", "(alpha.ln() / (-chance).ln_1p()).floor()"),
        "RepairTheRecipe": (E + "study.rs", "is_some_and(|r| r.diverged > 0)", "r.diverged > 0", FALSE),
        "TrainInIt": (E + "study.rs", "Verdict::Pass => StudyStatement::TrainInIt { policy }", "StudyStatement::TrainInIt { policy }", "StudyStatement::StayWithReference { reference }"),
        "StayWithReference": (E + "study.rs", "Verdict::Fail => StudyStatement::StayWithReference { reference }", "StudyStatement::StayWithReference { reference }", "StudyStatement::TrainInIt { policy }"),
        "GoOn": (E + "study.rs", "Verdict::Inconclusive if candidate.missing > 0", "candidate.missing > 0", FALSE),
        "TrainTheReference": (E + "study.rs", "|a: &Assessment| !a.reference_check.is_worth_comparing_with()", "!a.reference_check.is_worth_comparing_with()", FALSE),
        "SeedsWouldSettle": (E + "study.rs", "(*first, seeds - have)", "seeds - have", "seeds"),
        "TakeTwoSeeds": (E + "study.rs", "None if c.setup.seeds.len() < 2", "c.setup.seeds.len() < 2", FALSE),
        "MoreTestData": (E + "power.rs", "self.power(seeds, examples as f64) >= goal", "self.power(seeds, examples as f64) >= goal", TRUE),
        "MoreSeedsTell": (E + "study.rs", "candidate.assessment.as_ref().and_then(examples_needed)", "candidate.assessment.as_ref().and_then(examples_needed)", "Some(1)"),
        "LooksUsedUp": (H + "compare/looks.rs", "let note = looks.are_spent().then(||", "looks.are_spent()", FALSE),
        "NotSplit": (H + "compare.rs", "described.arithmetic != Arithmetic::Split", "described.arithmetic != Arithmetic::Split", FALSE),
        "Emulated": (E + "comparison.rs", "self.arithmetic == Some(Arithmetic::Emulated)", "self.arithmetic == Some(Arithmetic::Emulated)", TRUE),
        "WithoutTheGpu": (H + "compare.rs", "gpus::is_gpu(engine).then_some", "gpus::is_gpu(engine)", TRUE),
    },
    "RobustnessStatement": {
        "ServedAlike": (E + "robustness_findings.rs", "said.push(if share < FLIPS {", "share < FLIPS", "share > FLIPS"),
        "ServedOtherwise": (E + "robustness_findings.rs", "made_wrong: worst.negative_flips", "worst.negative_flips", "worst.flips"),
        "WorseForGroups": (E + "robustness_findings.rs", "&& *adjusted < ALPHA", "*adjusted < ALPHA", TRUE),
        "NoGroupLargeEnough": (E + "robustness_findings.rs", "true if judged == 0", "judged == 0", FALSE),
        "AsGoodInGroups": (E + "robustness_findings.rs", "let passed = g.rows.iter().filter(|r| r.verdict() == Some(Verdict::Pass))", "r.verdict() == Some(Verdict::Pass)", "r.verdict().is_some()"),
        "StoredSmaller": (E + "answers.rs", "self.score(margin, 0.5)", "0.5", "0.0"),
        "Differs": (E + "robustness_findings.rs", "if p < ALPHA {", "p < ALPHA", "p < 0.5"),
        "NoneDiffers": (E + "robustness_findings.rs", "if any && said.len() == before", "any", FALSE),
        "BlindGradients": (E + "robustness_findings.rs", "own > wide + BLIND", "own > wide + BLIND", "own > wide"),
        "GradientsFindLess": (E + "robustness_findings.rs", "black_box < by_gradients - MASKED", "black_box < by_gradients - MASKED", "black_box < by_gradients"),
        "TriggerWakes": (E + "robustness_findings.rs", "row.trained == first.trained", "row.trained == first.trained", TRUE),
        "TriggerSucceeds": (E + "robustness_findings.rs", "most > base + TRIGGER_WAKES", "most > base + TRIGGER_WAKES", "most > base"),
        "TriggerNotTried": (E + "robustness_findings.rs", "return RobustnessStatement::TriggerNotTried { what }", "RobustnessStatement::TriggerNotTried { what }", "RobustnessStatement::TriggerSucceeds { what, base: 0.0, served: String::new(), most: 0.0 }"),
        "SuspectsRemoved": (E + "robustness_findings.rs", "b.accuracy_after - b.accuracy", "b.accuracy_after - b.accuracy", "b.accuracy - b.accuracy_after"),
        "NotApplicable": (E + "robustness_findings.rs", "reason: n.reason.clone()", "n.reason.clone()", "String::new()"),
    },
    "CommandStatement": {
        "NotShownBetter": (H + "eval.rs", "!constant.shown_better", "!constant.shown_better", "constant.shown_better"),
        "CannotBeChecked": (H + "open.rs", "warn(CommandStatement::CannotBeChecked { run })", "CommandStatement::CannotBeChecked { run }", "CommandStatement::NoneTrainedOn { run, samples: 0 }"),
        "NoneTrainedOn": (H + "open.rs", "samples: measured", "measured", "measured + 1"),
        "PredictionsCannotBeChecked": (H + "predict/known.rs", "if !self.checked", "!self.checked", FALSE),
        "PredictionsTrainedOn": (H + "predict/known.rs", "run.is_some_and(|run| run.trained_on(sample_hash(x)))", "run.is_some_and(|run| run.trained_on(sample_hash(x)))", FALSE),
        "StoppedNoBetter": (T + "train_loop.rs", "(evaluations.len() - 1 - i) as u64 >= patience", "patience", "patience - 1"),
        "RunFails": (T + "examination/course.rs", "&& !recovers(&session, &replayed, scale)?", "!recovers(&session, &replayed, scale)?", FALSE),
        "TooEarlyToSay": (H + "doctor.rs", "match (found.is_bad(), found.learning.learns)", "found.learning.learns", "Learns::Yes"),
        "NothingWrong": (H + "doctor.rs", "match (found.is_bad(), found.learning.learns)", "found.learning.learns", "Learns::Begins"),
        "SomethingWrong": (H + "doctor.rs", "match (found.is_bad(), found.learning.learns)", "found.is_bad()", "found.failed"),
        "BestPlan": (T + "tune/mod.rs", "tried[i].within && cost(&tried[i]) < cost(&tried[0])", "cost(&tried[i]) < cost(&tried[0])", "cost(&tried[i]) >= cost(&tried[0])"),
        "PlanMeasured": (T + "tune/mod.rs", "tried[i].within && cost(&tried[i]) < cost(&tried[0])", "cost(&tried[i]) < cost(&tried[0])", "i == 0"),
        "NoPlan": (T + "tune/mod.rs", "outcome.time_at_most <= 1.0 + self.max_slowdown", "outcome.time_at_most <= 1.0 + self.max_slowdown", TRUE),
        "WhatAPassTakes": (E + "power.rs", "self.power(seeds, examples) >= goal", "goal", "goal - 0.2"),
        "SpreadUnknown": (E + "power.rs", "self.power(seeds, examples) >= goal", "goal", "goal - 0.05"),
        "PassesAsStated": (E + "power.rs", "each.into_iter().map(|p| 1.0 - p).sum::<f64>()", "1.0 - p", "(1.0 - p) / 2.0"),
        "CleanRunsNeeded": (E + "exact.rs", "(alpha.ln() / (-chance).ln_1p()).ceil()", "(alpha.ln() / (-chance).ln_1p()).ceil()", "(alpha.ln() / (-chance).ln_1p()).floor()"),
    },
    "LearningStatement": {
        "Learns": (T + "examination/probe.rs", "() if is_below(after, &self.constant)", "is_below(after, &self.constant)", TRUE),
        "BeginsToLearn": (T + "examination/probe.rs", "at_end < constant", "at_end < constant", FALSE),
        "DoesNotLearn": (T + "examination/probe.rs", "            () => Learns::No,", "Learns::No", "Learns::Begins"),
        "DoesNotLearnInRange": (T + "examination/mod.rs", "if diagnosis.cause == Cause::Nothing {\n            let Learning", "diagnosis.cause == Cause::Nothing", FALSE),
        "FixWorked": (T + "examination/trial.rs", "self.changed(&fix.changes).map_err", "self.changed(&fix.changes)", "self.changed(&[])"),
        "FixFinite": (T + "doctor/fix.rs", "LearningStatement::FixFinite { steps, loss, constant, without }.fmt(f)", "LearningStatement::FixFinite { steps, loss, constant, without }", "LearningStatement::FixWorked { steps, loss, constant }"),
        "FixNoHelp": (T + "examination/trial.rs", "loss.is_finite() && steps < FEW", "steps < FEW", TRUE),
        "FirstFixHolds": (T + "examination/mod.rs", "LearningStatement::FirstFixHolds.to_string()", "LearningStatement::FirstFixHolds", "LearningStatement::NotAtThisRate { lr: String::new() }"),
        "LearnsLessWithExceptions": (T + "examination/suspects.rs", "if !policy.overrides.is_empty()", "!policy.overrides.is_empty()", FALSE),
        "PrecisionDoesNotTrainIt": (T + "examination/mod.rs", "learning.loss > HARMED * fp32.loss", "learning.loss > HARMED * fp32.loss", FALSE),
        "NotAtThisRate": (T + "examination/probe.rs", "            () => Learns::No,", "Learns::No", "Learns::Yes"),
        "TooLittleMoves": (T + "examination/suspects.rs", "any(|group| group.frozen || group.lr != 1.0)", "group.frozen || group.lr != 1.0", FALSE),
    },
}


def catalogue():
    """Of each sentence, `Enum::Variant`, the test that docs/claims.md names: crate, target, path."""
    found, enum = {}, None
    for line in (ROOT / "docs/claims.md").read_text().splitlines():
        if head := re.match(r"\[`(\w+)`\]\(", line):
            enum = head[1]
        if row := re.match(r"\| `(\w+)` \|.*\| `(\w+ \w+ [\w:]+)` \|$", line):
            found[f"{enum}::{row[1]}"] = tuple(row[2].split())
    return found


def planted(tree, names):
    """Compiles the mutations in, and returns the files as they were."""
    places = {}
    for name in names:
        enum, variant = name.split("::")
        file, context, old, new = MUTATIONS[enum][variant]
        places.setdefault((file, context, old), []).append((name, new))
    before, wrapped = {}, {}
    for (file, context, old), mutants in places.items():
        text = before.setdefault(file, (tree / file).read_text())
        at = text.find(context)
        assert at >= 0 and text.count(context) == 1, f"{file}: `{context}` stands there {text.count(context)} times"
        assert context.count(old) >= 1, f"`{old}` is not in `{context}`"
        start = at + context.rindex(old)
        chain = "".join(
            f'if std::env::var_os("MUTANT").is_some_and(|m| m == "{name}") {{ {new} }} else ' for name, new in mutants)
        wrapped.setdefault(file, []).append((start, old, f"({chain}{{ {old} }})"))
    for file, all_of in wrapped.items():
        text = before[file]
        for start, old, new in sorted(all_of, reverse=True):
            assert text[start:start + len(old)] == old, f"{file}: mutations overlap at `{old}`"
            text = text[:start] + new + text[start + len(old):]
        (tree / file).write_text(text)
    return before


def programs(tree, wanted):
    """The test programs of (crate, target), built."""
    built = {}
    flags = {"lib": ["--lib"], "bin": ["--bins"], "it": ["--test", "it"]}
    for of, target in sorted(wanted):
        command = ["cargo", "test", "-q", "-p", f"halfstep-{of}" if of != "halfstep" else of, *flags[target], "--no-run", "--message-format=json"]
        output = subprocess.run(command, cwd=tree, text=True, stdout=subprocess.PIPE)
        if output.returncode:
            messages = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
            errors = [m["message"]["rendered"] for m in messages if m.get("message", {}).get("level") == "error"]
            raise RuntimeError(f"{' '.join(command)}\n" + "\n".join(errors))
        for line in output.stdout.splitlines():
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("executable") and message.get("profile", {}).get("test"):
                built[of, target] = (message["executable"], Path(message["manifest_path"]).parent)
    return built


def passes(program, path, mutant):
    executable, folder = program
    env = {**os.environ, "MUTANT": mutant, "CARGO_MANIFEST_DIR": str(folder)}
    try:
        run = subprocess.run([executable, path, "--exact"], cwd=folder, env=env, text=True, capture_output=True, timeout=600)
    except subprocess.TimeoutExpired:
        return False
    assert "running 1 test" in run.stdout, f"{path}: there is no such test\n{run.stdout}{run.stderr}"
    return run.returncode == 0


def proof(tree, names, tests):
    before = planted(tree, names)
    try:
        built = programs(tree, {tests[name][:2] for name in names})
        sound, wrong = {}, []
        for name in names:
            test = of, target, path = tests[name]
            if test not in sound:
                sound[test] = passes(built[of, target], path, "")
            outcome = "not sound without it" if not sound[test] else "passes" if passes(built[of, target], path, name) else "fails"
            print(f"{name:<46} {' '.join(test):<110} {outcome}", flush=True)
            if outcome != "fails":
                wrong.append(name)
        return wrong
    finally:
        for file, text in before.items():
            (tree / file).write_text(text)


def main():
    arguments = sys.argv[1:]
    here = "--here" in arguments
    tests = catalogue()
    known = [f"{enum}::{variant}" for enum, all_of in MUTATIONS.items() for variant in all_of]
    if missing := sorted(set(tests) ^ set(known)):
        sys.exit("in docs/claims.md or here alone: " + ", ".join(missing))
    names = [a for a in arguments if a != "--here"] or known
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no such sentence: {', '.join(unknown)}")
    if here:
        wrong = proof(ROOT, names, tests)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            subprocess.run(["git", "worktree", "add", "--detach", "-q", str(tree)], cwd=ROOT, check=True)
            try:
                wrong = proof(tree, names, tests)
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    print(f"{len(names) - len(wrong)} of {len(names)} fail as they should" + (f"; not: {', '.join(wrong)}" if wrong else ""))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
