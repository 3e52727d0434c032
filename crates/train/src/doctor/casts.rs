//! Casts to codes of 8 or 4 bits: whether a tensor fits the scale it is given, and why it does not.

use halfstep_graph::precision::Scaling;
use halfstep_graph::{Blocks, Op, Quantise, ValueId};

use super::diagnosis::{Cause, CodeCast, Finding};
use super::observe::Observed;
use super::replays::{Doctor, LOST, Range};
use crate::session::TrainError;

/// How far beyond the room its scale leaves a tensor may reach. Under delayed scaling the largest
/// elements of a tensor that grows saturate in every step; from here on they lose more than half of
/// what they were.
const CLIPPED: f64 = 2.0;

/// Layer and operand in the name of a cast, such as `blocks.0.qkv.input`, or `….input.2` where
/// several products read it.
fn layer_and_operand(name: &str) -> (String, String) {
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let is_role = |s: &str| matches!(s, "input" | "weight" | "gradient");
    let split = |name: &str| name.rsplit_once('.').map(|(layer, last)| (layer.to_string(), last.to_string()));
    match split(name) {
        Some((rest, last)) if is_number(&last) && split(&rest).is_some_and(|(_, role)| is_role(&role)) => {
            split(&rest).unwrap_or((rest, last))
        }
        Some((layer, role)) if is_role(&role) => (layer, role),
        _ => (name.to_string(), "input".to_string()),
    }
}

impl Doctor<'_, '_, '_> {
    /// If `value` is the codes of a tensor that does not fit them: which, and why.
    pub(super) fn cast_out_of_range(
        &mut self,
        low: &Observed,
        reference: &mut Observed,
        value: ValueId,
    ) -> Result<Option<(Option<Finding>, Cause)>, TrainError> {
        let node = low.node(value).clone();
        let Op::Quantise(quantise) = node.op else { return Ok(None) };
        let Some(held) = self.numbers(low, node.inputs[0])? else { return Ok(None) };
        let range = Range::of(&held);
        // What is not finite before the cast is no fault of the cast.
        if !range.finite {
            return Ok(None);
        }
        let scale = match (quantise.blocks, node.inputs.get(1)) {
            (Blocks::Tensor { .. }, Some(&scale)) => {
                self.numbers(low, scale)?.and_then(|s| s.first().copied())
            }
            _ => None,
        };
        let codes = low.read(value)?;
        let largest = quantise.format.info().max_finite;
        let beyond = |scale: f32| held.iter().filter(|v| f64::from((**v * scale).abs()) > largest).count();
        let saturated = scale.map_or(0, beyond) as u64;
        let flushed = range.nonzero.saturating_sub(codes.iter().filter(|c| **c != 0.0).count() as u64);
        let room = scale.map(|s| largest / f64::from(s));
        let clips =
            codes.iter().any(|c| !c.is_finite()) || room.is_some_and(|room| range.largest > CLIPPED * room);
        let vanishes = range.nonzero > 0 && flushed as f64 >= LOST * range.nonzero as f64;
        if !clips && !vanishes {
            return Ok(None);
        }
        let (layer, operand) = layer_and_operand(&node.name);
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let cast = CodeCast {
            layer,
            operand,
            codes: quantise.format.python_name().into(),
            scale: scale.map(f64::from),
            room,
            amax: range.largest,
            saturated: share(saturated, range.count),
            flushed: share(flushed, range.nonzero),
        };
        let why = self.why_not(&node.name, &quantise, (&held, &range), scale, clips)?;
        let Some(mut cause) = why else { return Ok(None) };
        if clips {
            let format = low.graph.dtype(value);
            let outlier = match cast.operand.as_str() {
                "weight" => None,
                _ => self.input_beyond(low, value, format, true)?,
            };
            cause = match outlier {
                Some(outlier) => outlier,
                None => self.exploded(reference)?.unwrap_or(cause),
            };
        }
        let bad = if clips { saturated } else { flushed };
        let mut finding = self.finding(low, value, Some(&range), bad);
        finding.cast = Some(cast);
        Ok(Some((Some(finding), cause)))
    }

    /// Why a tensor that holds these numbers does not fit its codes. None if that is as it must be:
    /// the first step of delayed scaling has no scale that would keep small gradients.
    fn why_not(
        &mut self,
        name: &str,
        quantise: &Quantise,
        (held, range): (&[f32], &Range),
        scale: Option<f32>,
        clips: bool,
    ) -> Result<Option<Cause>, TrainError> {
        let info = quantise.format.info();
        let amax = range.largest;
        let too_wide = Cause::TooWide { smallest: range.smallest.unwrap_or(0.0), largest: amax };
        let scaling = self.session.policy().narrow.map(|n| n.scaling);
        let zero = info.min_subnormal / 2.0;
        let lost = |scale: f64| {
            let lost = held.iter().filter(|v| **v != 0.0 && f64::from(v.abs()) * scale <= zero).count();
            lost as f64 >= LOST * range.nonzero as f64
        };
        if let Some(Scaling::Delayed { margin, .. } | Scaling::Current { margin }) = scaling
            && scale.is_some()
            && lost(info.max_finite / (f64::from(margin).exp2() * amax))
            && !lost(info.max_finite / amax)
        {
            return Ok(Some(Cause::Setting {
                section: format!("precision.{}", self.session.policy().name),
                key: "margin".into(),
                why: format!(
                    "it leaves {margin} powers of two free above the largest magnitude, and what is small becomes zero"
                ),
            }));
        }
        let (Some(scale), Some(Scaling::Delayed { history: steps, margin, .. })) = (scale, scaling) else {
            return Ok(Some(too_wide));
        };
        let seen = self.remembered(name)?;
        let made_for = |scale: f64| info.max_finite / (f64::from(margin).exp2() * scale);
        // What the scale was made of may be forgotten by now; it is 1 until there is something.
        let recorded = (!seen.is_empty() || scale != 1.0).then(|| made_for(f64::from(scale)));
        let fits = made_for(amax);
        let stale = Cause::StaleScale { scale: f64::from(scale), fits, recorded, amax };
        let Some(recorded) = recorded else {
            let why = "no step before recorded a magnitude of it; the next step's scale fits";
            self.evidence.extend(clips.then(|| why.to_string()));
            return Ok(clips.then_some(stale));
        };
        if clips {
            let least = seen.iter().copied().fold(recorded, f64::min);
            // This step's own magnitude takes the place of the oldest.
            let is_full = seen.len() + 1 >= steps && seen.len() > 1;
            if is_full && amax / recorded <= recorded / least {
                return Ok(Some(Cause::ShortHistory { steps, recorded, least, amax }));
            }
            return Ok(Some(stale));
        }
        Ok(Some(if lost(fits) { too_wide } else { stale }))
    }

    /// The magnitudes above zero that the scale of the step was made of, as far as they are not
    /// forgotten, the latest first.
    fn remembered(&self, name: &str) -> Result<Vec<f64>, TrainError> {
        let history = self.session.download(&format!("{name}.amax_history"))?;
        // A step that is done has put its own magnitude in front.
        let own = usize::from(self.session.progress().attempts > self.batch.attempt);
        Ok(history.f32().iter().skip(own).map(|&m| f64::from(m)).filter(|m| *m > 0.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::layer_and_operand;

    #[test]
    fn names_of_casts_are_layer_and_operand() {
        for (name, layer, operand) in [
            ("blocks.0.qkv.input", "blocks.0.qkv", "input"),
            ("layers.1.weight", "layers.1", "weight"),
            ("layers.1.gradient.2", "layers.1", "gradient"),
            ("layers.1", "layers.1", "input"),
        ] {
            assert_eq!(layer_and_operand(name), (layer.into(), operand.into()), "{name}");
        }
    }
}
