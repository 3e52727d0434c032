//! Which trackers a run has: by the command line, else the recipe, else the environment.

use halfstep::train::recipe::{TrackSettings, check_url};

use crate::cli::args::Track;
use crate::cli::failure::Failure;
use crate::cli::output;

/// Trackers, by their URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trackers {
    /// An MLflow server.
    pub mlflow: Option<String>,
    /// The experiment there.
    pub experiment: Option<String>,
    /// An OpenTelemetry collector.
    pub otlp: Option<String>,
}

impl Trackers {
    /// Those that are asked for.
    pub fn of(args: &Track, recipe: &TrackSettings) -> Result<Trackers, Failure> {
        let choose = |field, arg: &Option<String>, recipe: &Option<String>, variable: &str, built: bool| {
            let asked = arg.clone().or_else(|| recipe.clone());
            if let Some(url) = &asked {
                check_url(field, url).map_err(|e| {
                    Failure::asked(format!("--{field}: {e}"), "give a URL such as http://127.0.0.1:5000")
                })?;
                if !built {
                    let message = format!("this build of halfstep has no support for {field}");
                    let feature = if field == "mlflow" { "mlflow" } else { "otel" };
                    return Err(Failure::asked(message, format!("build it with --features {feature}")));
                }
                return Ok(asked);
            }
            // What the environment says is meant for other programs as well: what cannot be used is
            // passed over.
            let there = std::env::var(variable).ok().filter(|url| !url.is_empty());
            Ok(match there {
                Some(url) if !built || check_url(field, &url).is_err() => {
                    output::warning(format!(
                        "{variable} is ignored: this build of halfstep cannot send to `{}`",
                        url.rsplit('@').next().unwrap_or(&url)
                    ));
                    None
                }
                there => there,
            })
        };
        let mlflow =
            choose("mlflow", &args.mlflow, &recipe.mlflow, "MLFLOW_TRACKING_URI", cfg!(feature = "mlflow"))?;
        let otlp =
            choose("otlp", &args.otlp, &recipe.otlp, "OTEL_EXPORTER_OTLP_ENDPOINT", cfg!(feature = "otel"))?;
        let name = || std::env::var("MLFLOW_EXPERIMENT_NAME").ok().filter(|name| !name.is_empty());
        let experiment = args.experiment.clone().or_else(|| recipe.experiment.clone()).or_else(name);
        Ok(Trackers { mlflow, experiment, otlp })
    }
}
