//! What a recipe states before the runs, as the verdict takes it.

use halfstep::evidence::metric::{Metric, parse_margin};
use halfstep::evidence::noninferiority::{Claim, Question};
use halfstep::evidence::stats::Looks;
use halfstep::evidence::{Margin, Protocol, Rates};
use halfstep::train::recipe::ClaimSetting;
use halfstep::train::recipe::Recipe;

use crate::cli::failure::Failure;

/// Margins and limits of `[compare]`.
///
/// # Errors
/// A metric that does not exist, or a margin that makes no sense, at its place in the recipe.
pub fn of(recipe: &Recipe) -> Result<Protocol, Failure> {
    let settings = &recipe.compare;
    let mut protocol = Protocol {
        claim: match settings.claim {
            ClaimSetting::Examples => Claim::Examples,
            ClaimSetting::Samples => Claim::Samples,
        },
        looks: Looks::of(settings.looks),
        groups: settings.groups.clone(),
        max_divergence: settings.max_divergence,
        power: settings.power,
        ..Protocol::default()
    };
    if settings.equivalence {
        protocol.question = Question::Equivalence;
    }
    protocol.set(Metric::Accuracy, Some(Margin::Absolute(settings.margin)));
    for (name, margin) in &settings.margins {
        let key = format!("margins.{name}");
        let Some(metric) = Metric::from_name(name) else {
            let names = Metric::ALL.map(Metric::name).join(", ");
            let message = format!("there is no metric `{name}`");
            return Err(recipe
                .mistake("compare", &key, &message, &format!("expected one of {names}"))
                .into());
        };
        let margin = parse_margin(metric, &margin.to_string())
            .map_err(|message| recipe.mistake("compare", &key, &message, "here"))?;
        protocol.set(metric, margin);
    }
    Ok(protocol)
}

/// Rates of `[cost]`.
pub fn rates(recipe: &Recipe) -> Rates {
    let c = &recipe.cost;
    Rates {
        rate_per_core_hour: c.rate_per_core_hour,
        currency: c.currency.clone(),
        watts_per_core: c.watts_per_core,
        grams_co2_per_kwh: c.grams_co2_per_kwh,
    }
}
