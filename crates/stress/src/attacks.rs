//! Attacks on images with f32 gradients, and one that only asks the model.

use halfstep_evidence::measures::attack::{
    cross_entropy_gradient, dlr, margin, sign_step, square_share, square_side,
};
use halfstep_evidence::robustness::{Attacks, Series};
use halfstep_float::Philox;
use halfstep_graph::precision::Policy;
use halfstep_train::probe::Probe;
use halfstep_train::recipe::EvidenceSettings;
use halfstep_train::session::TrainError;

use crate::inputs::{BATCH, Images, Normaliser, predictions};
use crate::{OnProgress, StressError, Subject, tell};

/// A loss to climb, as its gradient by one row of logits.
type LossGradient = fn(&[f32], u32, &mut [f32]);

/// Share of the image that the first squares cover, as the authors of the attack have it for the
/// maximum norm.
const FIRST_SHARE: f64 = 0.3;

pub(crate) fn measure(
    subject: &Subject<'_>,
    settings: &EvidenceSettings,
    on_progress: OnProgress<'_>,
) -> Result<Attacks, StressError> {
    let images = Images::of_test(subject.data, settings.samples);
    let normaliser = Normaliser::of(subject.data);
    let epsilon = settings.epsilon as f32;
    let names = subject.names();
    const ATTACKS: [&str; 6] = ["none", "FGSM", "PGD", "PGD on DLR", "Square (black box)", "all of them"];
    let mut left: [Vec<f64>; 6] = Default::default();
    let mut zero_images: [Vec<f64>; 2] = Default::default();
    let mut zero_pixels: [Vec<f64>; 2] = Default::default();
    for trained in subject.trained {
        tell(on_progress, &format!("attacks on {} seed {}", trained.policy.name, trained.seed))?;
        let attacked = |policy: &Policy| {
            let probe = subject.probe(policy, &trained.weights)?;
            Ok::<_, TrainError>(Attacked { probe, images: &images, normaliser: &normaliser })
        };
        let (mut wide, mut own) = (attacked(&Policy::named("fp32")?)?, attacked(&trained.policy)?);
        let clean = own.right(&images.pixels)?;
        let step = 2.5 * epsilon / settings.steps as f32;
        let dlr_gradient: LossGradient = |logits, label, out| {
            dlr(logits, label, out);
        };
        let mut survived = clean.clone();
        let mut after = vec![clean.clone()];
        for (loss, steps, step) in [
            (cross_entropy_gradient as LossGradient, 1, epsilon),
            (cross_entropy_gradient, settings.steps, step),
            (dlr_gradient, settings.steps, step),
        ] {
            let adversarial = wide.ascend(loss, steps, step, epsilon)?;
            after.push(own.right(&adversarial)?);
        }
        after.push(own.square(epsilon, settings.queries, trained.seed)?);
        for right in &mut after {
            // What was wrong before is no success of an attack that makes it right.
            right.iter_mut().zip(&clean).for_each(|(r, c)| *r &= c);
            survived.iter_mut().zip(&*right).for_each(|(s, r)| *s &= r);
        }
        after.push(survived);
        let share = |right: &Vec<bool>| right.iter().filter(|r| **r).count() as f64 / right.len() as f64;
        left.iter_mut().zip(&after).for_each(|(all, right)| all.push(share(right)));
        for (i, model) in [&mut wide, &mut own].into_iter().enumerate() {
            let (image, pixel) = model.zeros()?;
            zero_images[i].push(image);
            zero_pixels[i].push(pixel);
        }
    }
    let series = |name: &str, values: &[f64]| Series::new(name, true, &names, values, subject.baseline);
    let zeros = |what: &str, values: &[Vec<f64>; 2]| {
        let name = |i: usize| format!("{what}, {}", ["f32", "own precision"][i]);
        (0..2).map(|i| series(&name(i), &values[i])).collect::<Vec<_>>()
    };
    Ok(Attacks {
        samples: images.labels.len(),
        epsilon: settings.epsilon,
        steps: settings.steps,
        queries: settings.queries,
        series: ATTACKS.iter().zip(&left).map(|(name, values)| series(name, values)).collect(),
        zero_gradients: zeros("images without a gradient", &zero_images),
        zero_pixels: zeros("pixels without a gradient", &zero_pixels),
    })
}

/// A model in one precision, and the images it is attacked with.
struct Attacked<'a> {
    probe: Probe<'a>,
    images: &'a Images,
    normaliser: &'a Normaliser,
}

impl Attacked<'_> {
    fn logits(&mut self, pixels: &[f32]) -> Result<Vec<f32>, TrainError> {
        crate::inputs::logits_of(pixels, self.images.size, &mut self.probe, self.normaliser)
    }

    /// Which images are classified right.
    fn right(&mut self, pixels: &[f32]) -> Result<Vec<bool>, TrainError> {
        let logits = self.logits(pixels)?;
        let labels = &self.images.labels;
        Ok(predictions(&logits, logits.len() / labels.len())
            .iter()
            .zip(labels)
            .map(|(p, l)| p == l)
            .collect())
    }

    /// The gradient of a loss by the pixels, up to the factor 1/std of each channel, which is above
    /// zero.
    fn gradient(&mut self, pixels: &[f32], loss: LossGradient) -> Result<Vec<f32>, TrainError> {
        let logits = self.logits(pixels)?;
        let classes = logits.len() / self.images.labels.len();
        let mut cotangent = vec![0.0; logits.len()];
        let rows = logits.chunks_exact(classes).zip(cotangent.chunks_exact_mut(classes));
        for ((logits, out), &label) in rows.zip(&self.images.labels) {
            loss(logits, label, out);
        }
        let mut gradient = Vec::with_capacity(pixels.len());
        let batches = pixels.chunks(BATCH * self.images.size.count()).zip(cotangent.chunks(BATCH * classes));
        for (pixels, cotangent) in batches {
            gradient.extend(self.probe.input_gradient(&self.normaliser.apply(pixels), cotangent)?);
        }
        Ok(gradient)
    }

    /// The projected gradient method from the images themselves; one step is the fast gradient sign
    /// method.
    fn ascend(
        &mut self,
        loss: LossGradient,
        steps: usize,
        step: f32,
        epsilon: f32,
    ) -> Result<Vec<f32>, TrainError> {
        let clean = &self.images.pixels;
        let mut x = clean.clone();
        for _ in 0..steps {
            let gradient = self.gradient(&x, loss)?;
            sign_step(&mut x, &gradient, step, clean, epsilon);
        }
        Ok(x)
    }

    /// Shares of images, and of pixels, whose gradient of the cross-entropy is zero.
    fn zeros(&mut self) -> Result<(f64, f64), TrainError> {
        let pixels = self.images.pixels.clone();
        let gradient = self.gradient(&pixels, cross_entropy_gradient)?;
        let share = |zero: usize, of: usize| zero as f64 / of.max(1) as f64;
        let images = gradient.chunks_exact(self.images.size.count());
        let blind = images.filter(|g| g.iter().all(|g| *g == 0.0)).count();
        let pixels = gradient.iter().filter(|g| **g == 0.0).count();
        Ok((share(blind, self.images.labels.len()), share(pixels, gradient.len())))
    }

    /// Which images are still classified right after the Square attack.
    fn square(&mut self, epsilon: f32, queries: usize, seed: u64) -> Result<Vec<bool>, TrainError> {
        let best = self.squares(epsilon, queries, seed)?;
        // As the others are judged: a tie is a wrong answer or a right one by the order of classes.
        self.right(&best)
    }

    /// The Square attack in the maximum norm (arXiv 1912.00049): stripes, then squares of ±ε at
    /// random places, kept where the margin falls.
    fn squares(&mut self, epsilon: f32, queries: usize, seed: u64) -> Result<Vec<f32>, TrainError> {
        let size = self.images.size;
        let clean = self.images.pixels.clone();
        let (generator, per_image) = (Philox::new(seed), size.count() as u64 + 2);
        let draw = |query: usize, image: usize, place: usize| {
            generator.word(query as u64, image as u64 * per_image + place as u64)
        };
        let sign = |word: u32| if word & 1 == 0 { epsilon } else { -epsilon };
        let put = |x: &mut f32, clean: f32, delta: f32| *x = (clean + delta).clamp(0.0, 1.0);
        let mut best = clean.clone();
        for (i, image) in best.chunks_exact_mut(size.count()).enumerate() {
            for (at, x) in image.iter_mut().enumerate() {
                let stripe = at % (size.width * size.channels);
                put(x, clean[i * size.count() + at], sign(draw(0, i, stripe)));
            }
        }
        let mut margins = self.margins(&best)?;
        for query in 1..queries {
            let side = square_side(square_share(FIRST_SHARE, query, queries), size.height, size.width);
            let mut tried = best.clone();
            for (i, image) in
                tried.chunks_exact_mut(size.count()).enumerate().filter(|(i, _)| margins[*i] > 0.0)
            {
                let below = |n: usize, word: u32| ((u64::from(word) * n as u64) >> 32) as usize;
                let top = below(size.height - side + 1, draw(query, i, 0));
                let left = below(size.width - side + 1, draw(query, i, 1));
                for c in 0..size.channels {
                    let delta = sign(draw(query, i, 2 + c));
                    for y in top..top + side {
                        for x in left..left + side {
                            let at = (y * size.width + x) * size.channels + c;
                            put(&mut image[at], clean[i * size.count() + at], delta);
                        }
                    }
                }
            }
            let new = self.margins(&tried)?;
            for (i, (old, new)) in margins.iter_mut().zip(new).enumerate() {
                if new < *old {
                    *old = new;
                    let image = i * size.count()..(i + 1) * size.count();
                    best[image.clone()].copy_from_slice(&tried[image]);
                }
            }
        }
        Ok(best)
    }

    fn margins(&mut self, pixels: &[f32]) -> Result<Vec<f64>, TrainError> {
        let logits = self.logits(pixels)?;
        let classes = logits.len() / self.images.labels.len();
        Ok(logits
            .chunks_exact(classes)
            .zip(&self.images.labels)
            .map(|(row, &label)| margin(row, label))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Normaliser;
    use halfstep_cpu::CpuEngine;
    use halfstep_cpu::isa::Isa;
    use halfstep_evidence::measures::corruption::ImageSize;
    use halfstep_graph::engine::{Engine, HostSlice};
    use halfstep_nn::{InputSpec, MlpSpec, Model, ModelSpec};
    use halfstep_train::probe::Weights;
    use halfstep_train::session::{Session, SessionSpec};
    use serde_json::Value;
    use std::num::NonZeroUsize;

    const INPUT: InputSpec = InputSpec::Image { height: 2, width: 3, channels: 1 };

    fn numbers(v: &Value) -> Vec<f32> {
        v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    }

    /// The net, images and results of `scripts/golden_robustness.py`.
    struct Golden {
        engine: Box<dyn Engine>,
        model: Box<dyn Model>,
        images: Images,
        normaliser: Normaliser,
        json: Value,
    }

    fn golden() -> Golden {
        let json: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
        let labels = json["labels"].as_array().unwrap().iter().map(|l| l.as_u64().unwrap() as u32).collect();
        let size = ImageSize { height: 2, width: 3, channels: 1 };
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Golden {
            engine: Box::new(CpuEngine::new(Isa::from_env().unwrap(), threads)),
            model: ModelSpec::Mlp(MlpSpec { hidden: vec![5] }).build(&INPUT, 4).unwrap(),
            images: Images { size, pixels: numbers(&json["pixels"]), labels },
            normaliser: Normaliser::new(json["mean"].as_f64().unwrap(), json["std"].as_f64().unwrap()),
            json,
        }
    }

    impl Golden {
        fn attacked(&self, policy: &str) -> Attacked<'_> {
            let policy = Policy::named(policy).unwrap();
            let spec = SessionSpec::new(&policy, 2, 0);
            let mut session =
                Session::new(self.engine.as_ref(), self.model.as_ref(), &INPUT, &policy, &spec).unwrap();
            for (name, values) in self.json["weights"].as_object().unwrap() {
                session.upload(name, HostSlice::F32(&numbers(values))).unwrap();
            }
            let weights = Weights::of(&session).unwrap();
            let probe =
                Probe::new(self.engine.as_ref(), self.model.as_ref(), &INPUT, &policy, &weights).unwrap();
            Attacked { probe, images: &self.images, normaliser: &self.normaliser }
        }
    }

    #[test]
    fn gradients_and_steps_are_those_of_torch() {
        let g = golden();
        let mut model = g.attacked("fp32");
        let theirs: Vec<f64> =
            g.json["gradient"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let ours = model.gradient(&g.images.pixels, cross_entropy_gradient).unwrap();
        // At most ten products in each of four sums one after another, with weights and gradients
        // below 3.
        let scale = theirs.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        let tolerance = 40.0 * 3.0 * scale * 2f64.powi(-24);
        assert!(
            ours.iter().zip(&theirs).all(|(a, b)| (f64::from(*a) - b).abs() <= tolerance),
            "{ours:?} {theirs:?}"
        );

        let epsilon = g.json["epsilon"].as_f64().unwrap() as f32;
        let steps = g.json["steps"].as_u64().unwrap() as usize;
        let dlr_gradient: LossGradient = |logits, label, out| {
            dlr(logits, label, out);
        };
        for (name, loss, steps, step) in [
            ("fgsm", cross_entropy_gradient as LossGradient, 1, epsilon),
            ("pgd", cross_entropy_gradient, steps, 2.5 * epsilon / steps as f32),
            ("dlr", dlr_gradient, steps, 2.5 * epsilon / steps as f32),
        ] {
            let ours = model.ascend(loss, steps, step, epsilon).unwrap();
            // Pixels below 1 are moved by five roundings of half a unit in the last place.
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 5.0 * f32::EPSILON / 2.0;
            assert!(ours.iter().zip(&numbers(&g.json[name])).all(near), "{name}: {ours:?}");
        }
    }

    #[test]
    fn the_black_box_attack_stays_in_its_ball_and_gets_stronger() {
        let g = golden();
        for policy in ["fp32", "bf16"] {
            let mut model = g.attacked(policy);
            let count = |right: Vec<bool>| right.iter().filter(|r| **r).count();
            let clean = g.images.pixels.clone();
            let before = model.margins(&clean).unwrap();
            let left: Vec<usize> =
                [1, 20, 200].iter().map(|&q| count(model.square(0.2, q, 0).unwrap())).collect();
            assert!(left[0] >= left[1] && left[1] >= left[2], "{left:?}");
            assert!(left[2] < before.iter().filter(|m| **m > 0.0).count(), "{left:?} {before:?}");
            let attacked = model.squares(0.2, 50, 0).unwrap();
            let inside =
                |(a, c): (&f32, &f32)| (a - c).abs() <= 0.2 + f32::EPSILON && (0.0..=1.0).contains(a);
            assert!(attacked.iter().zip(&clean).all(inside));
        }
    }

    #[test]
    fn a_gradient_that_rounds_to_zero_is_counted() {
        let g = golden();
        let (images, pixels) = g.attacked("fp32").zeros().unwrap();
        assert_eq!((images, pixels), (0.0, 0.0));
        // Logits 32 times as large: where the margin is, the gradient of the cross-entropy is below
        // f16's smallest number and not below f32's.
        let mut weights = g.json["weights"].clone();
        for name in ["layers.1.weight", "layers.1.bias"] {
            weights[name]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|x| *x = (x.as_f64().unwrap() * 32.0).into());
        }
        let large = Golden { json: serde_json::json!({ "weights": weights }), ..golden() };
        let wide = large.attacked("fp32").zeros().unwrap().0;
        let low = large.attacked("fp16").zeros().unwrap().0;
        assert!(low > wide, "{low} {wide}");
    }
}
