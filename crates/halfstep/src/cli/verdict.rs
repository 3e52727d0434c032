//! `halfstep verdict`: is a candidate as good as a baseline? From logits of any framework.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use halfstep::evidence::experiment::NoiseFloor;
use halfstep::evidence::logits::Source;
use halfstep::evidence::metric::{Metric, parse_margin};
use halfstep::evidence::noninferiority::{Claim, Question};
use halfstep::evidence::stats::Looks;
use halfstep::evidence::{Assessment, AssessmentError, Protocol, Verdict, assess, assessment_table};

use super::args::{ClaimName, FloorName, Verdict as Asked};
use super::failure::Failure;
#[cfg(feature = "serve")]
use super::signed_pair;
use super::{output, progress};

/// There is no verdict: wrong arguments or files. Other than the verdicts' own codes, so that a
/// gate cannot mistake it.
pub const NO_VERDICT: u8 = 3;

/// Runs the command. Exit codes: 0 pass, 1 fail, 2 inconclusive, 3 no verdict.
pub fn run(args: Asked, threads: NonZeroUsize) -> Result<ExitCode, Failure> {
    let protocol = protocol(&args)?;
    #[cfg(feature = "serve")]
    let signing = signed_pair::Signing::asked(&args)?;
    let result =
        progress::during("measuring", || assess_files(&args.baseline, &args.candidate, protocol, threads));
    let assessment = result.map_err(|e| Failure::asked(e.to_string(), ""))?;
    #[cfg(feature = "serve")]
    let signed = signing.map(|signing| signing.sign(&assessment)).transpose()?;
    if args.json {
        output::json(&assessment)?;
    } else {
        show(&assessment);
        #[cfg(feature = "serve")]
        output::raw(&signed.unwrap_or_default());
    }
    Ok(ExitCode::from(code(assessment.verdict)))
}

/// The assessment of files of logits.
pub fn assess_files(
    baseline: &[PathBuf],
    candidate: &[PathBuf],
    protocol: Protocol,
    threads: NonZeroUsize,
) -> Result<Assessment, AssessmentError> {
    let [baseline, candidate] =
        [baseline, candidate].map(|files| files.iter().map(|f| f as &dyn Source).collect::<Vec<_>>());
    assess(&baseline, &candidate, protocol, threads)
}

/// The exit code of a verdict.
pub fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Fail => 1,
        Verdict::Inconclusive => 2,
    }
}

fn show(a: &Assessment) {
    output::raw(&format!("{}: ", output::bold(&a.verdict.name().to_uppercase())));
    output::raw(&format!("{}\n", assessment_table::text(a, &output::bold)));
    output::raw(&output::bullets(&a.findings));
}

fn protocol(args: &Asked) -> Result<Protocol, Failure> {
    let mut protocol = Protocol {
        diverged: args.diverged,
        baseline_diverged: args.baseline_diverged,
        claim: match args.claim {
            ClaimName::Examples => Claim::Examples,
            ClaimName::Samples => Claim::Samples,
        },
        looks: Looks::of(args.looks),
        floor: match args.floor {
            FloorName::OtherSeed => NoiseFloor::OtherSeed,
            FloorName::None => NoiseFloor::None,
        },
        groups: args.group.clone(),
        ..Protocol::default()
    };
    if let Some(name) = args.group.iter().find(|name| !name.contains('=')) {
        return Err(Failure::asked(format!("--group {name}: no `=`"), "write --group region=west"));
    }
    if args.equivalence {
        protocol.question = Question::Equivalence;
    }
    let mut seen: Vec<Metric> = Vec::new();
    for text in &args.margin {
        let (metric, margin) = margin(text)?;
        if seen.contains(&metric) {
            return Err(Failure::asked(format!("two margins are given for {}", metric.name()), ""));
        }
        seen.push(metric);
        protocol.set(metric, margin);
    }
    if let Some(text) = &args.max_divergence {
        protocol.max_divergence = Some(share(text)?);
    }
    Ok(protocol)
}

fn margin(text: &str) -> Result<(Metric, Option<halfstep::evidence::Margin>), Failure> {
    let names = || format!("the metrics are {}", Metric::ALL.map(Metric::name).join(", "));
    let Some((name, value)) = text.split_once('=') else {
        return Err(Failure::asked(
            format!("--margin {text}: no `=`"),
            "write --margin accuracy=1.0pt, or --margin ece=off",
        ));
    };
    let Some(metric) = Metric::from_name(name.trim()) else {
        return Err(Failure::asked(format!("--margin {text}: there is no metric `{name}`"), names()));
    };
    let margin = parse_margin(metric, value.trim())
        .map_err(|message| Failure::asked(format!("--margin {text}: {message}"), ""))?;
    Ok((metric, margin))
}

/// `5%` or `0.05`.
fn share(text: &str) -> Result<f64, Failure> {
    super::share::parse(text).ok().filter(|s| *s > 0.0 && *s < 1.0).ok_or_else(|| {
        Failure::asked(
            format!("--max-divergence {text}: not a share above 0 and below 1"),
            "write 5% or 0.05",
        )
    })
}
