//! Optimiser steps, each one pass over parameter, state and gradient.
//!
//! Formulas are those of torch's `AdamW` and `SGD`. Parameters and state are f32; a copy of the parameter in a lower
//! format can be written in the same pass.

use super::body::fma;
use super::grid::tiles;
use super::storage::{Dst, Src, TILE};
use super::{Body, Caps, Grid, RowError, SharedDst, SharedSlice, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// Whether a step changes anything: a step whose gradients are not finite must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Take the step.
    Yes,
    /// Leave every tensor as it is.
    No,
}

impl From<bool> for Apply {
    fn from(apply: bool) -> Apply {
        if apply { Apply::Yes } else { Apply::No }
    }
}

/// The constants of one AdamW step (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWRule {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay: the parameter is first multiplied with 1 − lr·weight_decay.
    pub weight_decay: f64,
    /// Number of this step, 1 for the first, for the bias corrections.
    pub step: u64,
}

/// p ← p·(1 − lr·wd); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p − lr·m̂ / (√v̂ + eps), with m̂ = m/(1−β₁ᵗ) and
/// v̂ = v/(1−β₂ᵗ).
#[derive(Debug)]
pub struct AdamW<'a> {
    /// Constants.
    pub rule: AdamWRule,
    /// p.
    pub param: &'a mut [f32],
    /// m.
    pub m: &'a mut [f32],
    /// v.
    pub v: &'a mut [f32],
    /// g before it is multiplied with `grad_scale`.
    pub grad: Src<'a>,
    /// Undoes loss scaling and clips.
    pub grad_scale: f32,
    /// Whether to take the step.
    pub apply: Apply,
    /// Where a copy of the new p goes, rounded to its format.
    pub low: Option<Dst<'a>>,
}

impl AdamW<'_> {
    /// Takes the step.
    ///
    /// # Errors
    /// If lengths differ.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let AdamW { rule, param, m, v, grad, grad_scale, apply, low } = self;
        let len = param.len();
        check_len("m", len, m.len())?;
        check_len("v", len, v.len())?;
        check_len("grad", len, grad.len())?;
        if let Some(low) = &low {
            check_len("low", len, low.len())?;
        }
        if apply == Apply::No {
            return Ok(());
        }
        let t = rule.step as f64;
        let correction = |beta: f64| 1.0 - beta.powf(t);
        let factors = AdamWFactors {
            grad_scale,
            keep: (1.0 - rule.lr * rule.weight_decay) as f32,
            beta1: rule.beta1 as f32,
            one_minus_beta1: (1.0 - rule.beta1) as f32,
            beta2: rule.beta2 as f32,
            one_minus_beta2: (1.0 - rule.beta2) as f32,
            step_size: (rule.lr / correction(rule.beta1)) as f32,
            root: (1.0 / correction(rule.beta2).sqrt()) as f32,
            eps: rule.eps as f32,
        };
        let (param, m, v) = (SharedSlice::new(param), SharedSlice::new(m), SharedSlice::new(v));
        let low = low.map(SharedDst::new);
        let grid = Grid::new(len, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            // SAFETY: chunks are disjoint.
            let (p, m, v, low) = unsafe {
                (
                    param.part(range.clone()),
                    m.part(range.clone()),
                    v.part(range.clone()),
                    low.as_ref().map(|low| low.part(range.clone())),
                )
            };
            dispatch(isa, AdamWChunk { factors, p, m, v, grad: grad.slice(range), low });
        });
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct AdamWFactors {
    grad_scale: f32,
    keep: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step_size: f32,
    root: f32,
    eps: f32,
}

struct AdamWChunk<'a> {
    factors: AdamWFactors,
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    grad: Src<'a>,
    low: Option<Dst<'a>>,
}

impl Body for AdamWChunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let f = self.factors;
        let mut buffer = [0.0; TILE];
        for tile in tiles(self.p.len(), TILE) {
            let grad = self.grad.view::<C>(tile.clone(), &mut buffer);
            let p = &mut self.p[tile.clone()];
            let state = self.m[tile.clone()].iter_mut().zip(&mut self.v[tile.clone()]);
            for ((p, (m, v)), &g) in p.iter_mut().zip(state).zip(grad) {
                let g = g * f.grad_scale;
                *m = fma::<C>(f.one_minus_beta1, g, f.beta1 * *m);
                *v = fma::<C>(f.one_minus_beta2 * g, g, f.beta2 * *v);
                *p = *p * f.keep - f.step_size * *m / fma::<C>(v.sqrt(), f.root, f.eps);
            }
            if let Some(low) = &mut self.low {
                low.store::<C>(tile.start, p);
            }
        }
    }
}

/// Whether momentum looks ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesterov {
    /// g + μ·buf is the direction.
    Yes,
    /// buf is the direction.
    No,
}

/// The constants of one SGD step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdRule {
    /// Learning rate of this step.
    pub lr: f64,
    /// μ; without a momentum buffer it is not used.
    pub momentum: f64,
    /// Coupled weight decay: added to the gradient, times p.
    pub weight_decay: f64,
    /// Whether momentum looks ahead.
    pub nesterov: Nesterov,
}

/// g ← g + wd·p; buf ← μ·buf + g; p ← p − lr·buf, or p − lr·(g + μ·buf) with Nesterov.
///
/// The buffer starts at zero, so the first step's buf is g, as in torch.
#[derive(Debug)]
pub struct Sgd<'a> {
    /// Constants.
    pub rule: SgdRule,
    /// p.
    pub param: &'a mut [f32],
    /// buf; without it p ← p − lr·g.
    pub momentum: Option<&'a mut [f32]>,
    /// g before it is multiplied with `grad_scale`.
    pub grad: Src<'a>,
    /// Undoes loss scaling and clips.
    pub grad_scale: f32,
    /// Whether to take the step.
    pub apply: Apply,
    /// Where a copy of the new p goes, rounded to its format.
    pub low: Option<Dst<'a>>,
}

impl Sgd<'_> {
    /// Takes the step.
    ///
    /// # Errors
    /// If lengths differ.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let Sgd { rule, param, momentum, grad, grad_scale, apply, low } = self;
        let len = param.len();
        check_len("grad", len, grad.len())?;
        if let Some(momentum) = &momentum {
            check_len("momentum", len, momentum.len())?;
        }
        if let Some(low) = &low {
            check_len("low", len, low.len())?;
        }
        if apply == Apply::No {
            return Ok(());
        }
        let factors = SgdFactors {
            grad_scale,
            lr: rule.lr as f32,
            mu: rule.momentum as f32,
            weight_decay: rule.weight_decay as f32,
            nesterov: rule.nesterov,
        };
        let (param, momentum) = (SharedSlice::new(param), momentum.map(SharedSlice::new));
        let low = low.map(SharedDst::new);
        let grid = Grid::new(len, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            // SAFETY: chunks are disjoint.
            let (p, momentum, low) = unsafe {
                (
                    param.part(range.clone()),
                    momentum.as_ref().map(|m| m.part(range.clone())),
                    low.as_ref().map(|low| low.part(range.clone())),
                )
            };
            dispatch(isa, SgdChunk { factors, p, momentum, grad: grad.slice(range), low });
        });
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct SgdFactors {
    grad_scale: f32,
    lr: f32,
    mu: f32,
    weight_decay: f32,
    nesterov: Nesterov,
}

/// The gradient with weight decay added.
#[inline(always)]
fn decayed<C: Caps>(f: SgdFactors, p: f32, g: f32) -> f32 {
    fma::<C>(f.weight_decay, p, g * f.grad_scale)
}

struct SgdChunk<'a> {
    factors: SgdFactors,
    p: &'a mut [f32],
    momentum: Option<&'a mut [f32]>,
    grad: Src<'a>,
    low: Option<Dst<'a>>,
}

impl Body for SgdChunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let f = self.factors;
        let mut buffer = [0.0; TILE];
        for tile in tiles(self.p.len(), TILE) {
            let grad = self.grad.view::<C>(tile.clone(), &mut buffer);
            let p = &mut self.p[tile.clone()];
            match &mut self.momentum {
                Some(momentum) => {
                    let momentum = momentum[tile.clone()].iter_mut();
                    match f.nesterov {
                        Nesterov::No => {
                            for ((p, m), &g) in p.iter_mut().zip(momentum).zip(grad) {
                                *m = fma::<C>(f.mu, *m, decayed::<C>(f, *p, g));
                                *p = fma::<C>(-f.lr, *m, *p);
                            }
                        }
                        Nesterov::Yes => {
                            for ((p, m), &g) in p.iter_mut().zip(momentum).zip(grad) {
                                let g = decayed::<C>(f, *p, g);
                                *m = fma::<C>(f.mu, *m, g);
                                *p = fma::<C>(-f.lr, fma::<C>(f.mu, *m, g), *p);
                            }
                        }
                    }
                }
                None => {
                    for (p, &g) in p.iter_mut().zip(grad) {
                        *p = fma::<C>(-f.lr, decayed::<C>(f, *p, g), *p);
                    }
                }
            }
            if let Some(low) = &mut self.low {
                low.store::<C>(tile.start, p);
            }
        }
    }
}
