//! Optimiser steps, each one pass over parameter, state and gradient.
//!
//! Formulas are those of torch's `AdamW` and `SGD`, in f32, however parameters and state are
//! [`Kept`].

use halfstep_graph::{AdamWSpec, SgdSpec};

use super::body::fma;
use super::grid::tiles;
use super::kept::{Kept, Part, SharedKept};
use super::storage::{Src, TILE};
use super::{Body, Caps, Grid, RowError, check_len, dispatch};
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

/// p ← p·(1 − lr·wd); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p − lr·m̂ / (√v̂ + eps), with m̂ =
/// m/(1−β₁ᵗ) and v̂ = v/(1−β₂ᵗ).
#[derive(Debug)]
pub struct AdamW<'a> {
    /// Constants.
    pub spec: AdamWSpec,
    /// Learning rate of this step.
    pub lr: f64,
    /// Number of this step, 1 for the first, for the bias corrections.
    pub step: u64,
    /// p.
    pub param: Kept<'a>,
    /// m.
    pub m: Kept<'a>,
    /// v.
    pub v: Kept<'a>,
    /// g before it is multiplied with `grad_scale`.
    pub grad: Src<'a>,
    /// Undoes loss scaling and clips.
    pub grad_scale: f32,
    /// Whether to take the step.
    pub apply: Apply,
}

impl AdamW<'_> {
    /// Takes the step.
    ///
    /// # Errors
    /// If lengths differ.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let AdamW { spec, lr, step, param, m, v, grad, grad_scale, apply } = self;
        let len = param.len();
        param.check("param", len)?;
        m.check("m", len)?;
        v.check("v", len)?;
        check_len("grad", len, grad.len())?;
        if apply == Apply::No {
            return Ok(());
        }
        let t = step as f64;
        let correction = |beta: f64| 1.0 - beta.powf(t);
        let factors = AdamWFactors {
            grad_scale,
            keep: (1.0 - lr * spec.weight_decay) as f32,
            beta1: spec.beta1 as f32,
            one_minus_beta1: (1.0 - spec.beta1) as f32,
            beta2: spec.beta2 as f32,
            one_minus_beta2: (1.0 - spec.beta2) as f32,
            step_size: (lr / correction(spec.beta1)) as f32,
            root: (1.0 / correction(spec.beta2).sqrt()) as f32,
            eps: spec.eps as f32,
        };
        let (param, m, v) = (SharedKept::new(param), SharedKept::new(m), SharedKept::new(v));
        let grid = Grid::new(len, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            // SAFETY: chunks are disjoint, and whole tiles but for the last.
            let (p, m, v) =
                unsafe { (param.part(range.clone()), m.part(range.clone()), v.part(range.clone())) };
            dispatch(isa, AdamWChunk { factors, p, m, v, grad: grad.slice(range) });
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
    p: Part<'a>,
    m: Part<'a>,
    v: Part<'a>,
    grad: Src<'a>,
}

impl Body for AdamWChunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let f = self.factors;
        let [mut of_grad, mut of_p, mut of_m, mut of_v] = [[0.0; TILE]; 4];
        for tile in tiles(self.grad.len(), TILE) {
            let grad = self.grad.view::<C>(tile.clone(), &mut of_grad);
            let p = self.p.load(tile.clone(), &mut of_p);
            let m = self.m.load(tile.clone(), &mut of_m);
            let v = self.v.load(tile.clone(), &mut of_v);
            for ((p, (m, v)), &g) in p.iter_mut().zip(m.iter_mut().zip(v)).zip(grad) {
                let g = g * f.grad_scale;
                *m = fma::<C>(f.one_minus_beta1, g, f.beta1 * *m);
                *v = fma::<C>(f.one_minus_beta2 * g, g, f.beta2 * *v);
                *p = *p * f.keep - f.step_size * *m / fma::<C>(v.sqrt(), f.root, f.eps);
            }
            self.p.store(tile.clone(), &of_p);
            self.m.store(tile.clone(), &of_m);
            self.v.store(tile, &of_v);
        }
    }
}

/// g ← g + wd·p; buf ← μ·buf + g; p ← p − lr·buf, or p − lr·(g + μ·buf) with Nesterov.
///
/// The buffer starts at zero, so the first step's buf is g, as in torch.
#[derive(Debug)]
pub struct Sgd<'a> {
    /// Constants; without a momentum buffer, momentum is not used.
    pub spec: SgdSpec,
    /// Learning rate of this step.
    pub lr: f64,
    /// p.
    pub param: Kept<'a>,
    /// buf; without it p ← p − lr·g.
    pub momentum: Option<Kept<'a>>,
    /// g before it is multiplied with `grad_scale`.
    pub grad: Src<'a>,
    /// Undoes loss scaling and clips.
    pub grad_scale: f32,
    /// Whether to take the step.
    pub apply: Apply,
}

impl Sgd<'_> {
    /// Takes the step.
    ///
    /// # Errors
    /// If lengths differ.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let Sgd { spec, lr, param, momentum, grad, grad_scale, apply } = self;
        let len = param.len();
        param.check("param", len)?;
        check_len("grad", len, grad.len())?;
        if let Some(momentum) = &momentum {
            momentum.check("momentum", len)?;
        }
        if apply == Apply::No {
            return Ok(());
        }
        let factors = SgdFactors {
            grad_scale,
            lr: lr as f32,
            mu: spec.momentum as f32,
            weight_decay: spec.weight_decay as f32,
            nesterov: spec.nesterov,
        };
        let (param, momentum) = (SharedKept::new(param), momentum.map(SharedKept::new));
        let grid = Grid::new(len, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            // SAFETY: chunks are disjoint, and whole tiles but for the last.
            let (p, momentum) =
                unsafe { (param.part(range.clone()), momentum.as_ref().map(|m| m.part(range.clone()))) };
            dispatch(isa, SgdChunk { factors, p, momentum, grad: grad.slice(range) });
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
    nesterov: bool,
}

/// The gradient with weight decay added.
#[inline(always)]
fn decayed<C: Caps>(f: SgdFactors, p: f32, g: f32) -> f32 {
    fma::<C>(f.weight_decay, p, g * f.grad_scale)
}

struct SgdChunk<'a> {
    factors: SgdFactors,
    p: Part<'a>,
    momentum: Option<Part<'a>>,
    grad: Src<'a>,
}

impl Body for SgdChunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let f = self.factors;
        let [mut of_grad, mut of_p, mut of_m] = [[0.0; TILE]; 3];
        for tile in tiles(self.grad.len(), TILE) {
            let grad = self.grad.view::<C>(tile.clone(), &mut of_grad);
            let p = self.p.load(tile.clone(), &mut of_p);
            match &mut self.momentum {
                Some(momentum) => {
                    let m = momentum.load(tile.clone(), &mut of_m).iter_mut();
                    if f.nesterov {
                        for ((p, m), &g) in p.iter_mut().zip(m).zip(grad) {
                            let g = decayed::<C>(f, *p, g);
                            *m = fma::<C>(f.mu, *m, g);
                            *p = fma::<C>(-f.lr, fma::<C>(f.mu, *m, g), *p);
                        }
                    } else {
                        for ((p, m), &g) in p.iter_mut().zip(m).zip(grad) {
                            *m = fma::<C>(f.mu, *m, decayed::<C>(f, *p, g));
                            *p = fma::<C>(-f.lr, *m, *p);
                        }
                    }
                    momentum.store(tile.clone(), &of_m);
                }
                None => {
                    for (p, &g) in p.iter_mut().zip(grad) {
                        *p = fma::<C>(-f.lr, decayed::<C>(f, *p, g), *p);
                    }
                }
            }
            self.p.store(tile, &of_p);
        }
    }
}
