//! In what order a file's tensors have their dimensions. Where sizes alone do not tell, and neither
//! the map nor another tensor of the file does, the tensor is not taken.

use halfstep_graph::{Shape, Slot};
use halfstep_nn::InputSpec;

use super::{ImportRule, Misfit};
use crate::checkpoint::belongs_to_model;

/// What is known of the order of dimensions in a file.
pub(super) struct Layouts {
    /// The matrix whose columns are the pixels of an image, and the channels of those.
    pixels: Option<(String, usize)>,
    /// Kernels lie as the model has them: one of them fits in no other way.
    kernels_fit: bool,
    /// So do matrices.
    matrices_fit: bool,
    unsaid: Vec<Unsaid>,
}

/// A tensor that fits in more than one order, of which its rule says none.
struct Unsaid {
    from: String,
    to: String,
    shape: Vec<usize>,
    what: What,
}

enum What {
    /// Of equal height, width and channels.
    Kernel,
    SquareMatrix,
    /// Of pixels of so many channels.
    Pixels(usize),
}

impl Layouts {
    pub(super) fn of(slots: &[Slot], input: &InputSpec) -> Layouts {
        let mut channels = match *input {
            InputSpec::Image { channels, .. } => channels,
            InputSpec::Features { .. } | InputSpec::Tokens { .. } => 0,
        };
        let mut pixels = None;
        for slot in slots.iter().filter(|slot| belongs_to_model(slot.kind)) {
            match slot.ty.shape[..] {
                [outputs, _, _, _] => channels = outputs,
                [_, columns] => {
                    if channels > 1 && columns > channels && columns.is_multiple_of(channels) {
                        pixels = Some((slot.name.clone(), channels));
                    }
                    break;
                }
                _ => {}
            }
        }
        Layouts { pixels, kernels_fit: false, matrices_fit: false, unsaid: Vec::new() }
    }

    /// Takes note of a tensor that fits, of this shape in the file and in the model.
    pub(super) fn see(
        &mut self,
        (from, to): (&str, &str),
        rule: &ImportRule,
        (there, here): (&[usize], &[usize]),
    ) {
        if rule.permute.is_some() {
            return;
        }
        let mut unsaid = |what| {
            self.unsaid.push(Unsaid { from: from.into(), to: to.into(), shape: there.to_vec(), what });
        };
        if let Some((_, channels)) = self.pixels.as_ref().filter(|(name, _)| name == to) {
            unsaid(What::Pixels(*channels));
        }
        match *here {
            // [out, in, height, width] is [out, height, width, in] then.
            [_, height, width, channels] if height == width && width == channels && channels > 1 => {
                unsaid(What::Kernel);
            }
            [_, height, width, channels] => self.kernels_fit |= height * width * channels > 1,
            [rows, columns] if rule.transpose.is_none() && rows > 1 => match rows == columns {
                true => unsaid(What::SquareMatrix),
                false => self.matrices_fit = true,
            },
            _ => {}
        }
    }

    /// Those of which nothing says how they lie, and what to write.
    pub(super) fn ambiguous(self) -> impl Iterator<Item = Misfit> {
        let (kernels_fit, matrices_fit) = (self.kernels_fit, self.matrices_fit);
        self.unsaid.into_iter().filter_map(move |Unsaid { from, to, shape, what }| {
            let reason = match what {
                What::Kernel if !kernels_fit => format!(
                    "it is {shape:?}, which may be [out, in, height, width] or [out, height, width, in], and no other \
                     kernel of the file shows which: write `permute = [0, 2, 3, 1]` (PyTorch) or `permute = [0, 1, 2, 3]` \
                     (as it is) in its rule of a map"
                ),
                What::SquareMatrix if !matrices_fit => format!(
                    "it is {shape:?}, which may be [out, in] or [in, out], and no other matrix of the file shows which: \
                     write `transpose = false` (PyTorch) or `transpose = true` (Keras) in its rule of a map"
                ),
                What::Pixels(channels) if !kernels_fit => {
                    let (rows, pixels) = (shape.first().unwrap_or(&0), shape.last().unwrap_or(&0) / channels);
                    let side = pixels.isqrt();
                    let sides = match side * side == pixels {
                        true => format!("{side}, {side}"),
                        false => format!("height, width (of {pixels} pixels)"),
                    };
                    format!(
                        "its columns are pixels, and nothing shows whether they are in the order channel, height, width \
                         or height, width, channel: write `view = [{rows}, {channels}, {sides}]` and `permute = [0, 2, 3, \
                         1]` (PyTorch), or `permute = [0, 1]` (as they are) in its rule of a map"
                    )
                }
                What::Kernel | What::SquareMatrix | What::Pixels(_) => return None,
            };
            Some(Misfit { from, to, reason })
        })
    }
}

/// What may be wrong with the order of dimensions, where another one would fit.
pub(super) fn advice(shape: &[usize], expected: &Shape) -> &'static str {
    match (shape, &expected[..]) {
        (&[o, c, h, w], &[outputs, height, width, channels])
            if [o, h, w, c] == [outputs, height, width, channels] =>
        {
            "; as [out, in, height, width], the order of PyTorch, it fits: write `permute = [0, 2, 3, 1]` in its rule of \
             a map"
        }
        (&[inputs, outputs], &[rows, columns]) if (outputs, inputs) == (rows, columns) => {
            "; the other way round it fits: write `transpose = true` in its rule of a map"
        }
        _ => "",
    }
}

/// Values with their dimensions in another order, and the sizes of those.
pub(super) fn permuted(values: &[f32], shape: &[usize], order: &[usize]) -> (Vec<f32>, Vec<usize>) {
    let sizes: Vec<usize> = order.iter().map(|&d| shape[d]).collect();
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    let from = |mut at: usize| {
        let mut place = 0;
        for (size, &d) in sizes.iter().zip(order).rev() {
            place += at % size * strides[d];
            at /= size;
        }
        place
    };
    ((0..values.len()).map(|at| values[from(at)]).collect(), sizes)
}

/// The index of an element in each dimension.
pub(super) fn index(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut found: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let i = at % size.max(1);
            at /= size.max(1);
            i
        })
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_change_places() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let (turned, sizes) = permuted(&values, &[2, 3, 4], &[1, 2, 0]);
        assert_eq!(sizes, [3, 4, 2]);
        for (a, b, c) in (0..2).flat_map(|a| (0..3).flat_map(move |b| (0..4).map(move |c| (a, b, c)))) {
            assert_eq!(turned[(b * 4 + c) * 2 + a], values[(a * 3 + b) * 4 + c]);
        }
        assert_eq!(index(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(index(0, &[]), [0usize; 0]);
    }
}
