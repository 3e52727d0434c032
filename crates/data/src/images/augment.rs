//! Random changes of train images: mirroring and shifting, which both only move pixels.

use crate::draws::{DrawPurpose, Stream};
use crate::spec::Augment;

/// Which pixel of the stored image is seen where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) flip: bool,
    /// Rows by which the picture moves up; negative moves it down.
    pub(crate) up: isize,
    /// Columns by which the picture moves left, before mirroring.
    pub(crate) left: isize,
}

impl View {
    pub(crate) const AS_IT_IS: View = View { flip: false, up: 0, left: 0 };

    /// The view of sample `index` in `epoch`; a function of nothing else but `seed`.
    pub(crate) fn draw(augment: Augment, seed: u64, epoch: u32, index: u32) -> View {
        if augment == Augment::default() {
            return View::AS_IT_IS;
        }
        let mut stream = Stream::new(seed, DrawPurpose::Augment, epoch, index);
        // All draws are always made, so that switching one augmentation off leaves the others as
        // they were.
        let flip = stream.below(2) == 1;
        let reach = 2 * augment.crop_padding as u32 + 1;
        let mut shift = || stream.below(reach) as isize - augment.crop_padding as isize;
        let (up, left) = (shift(), shift());
        View { flip: flip && augment.flip, up, left }
    }

    /// The stored row that is seen at row `y`. Outside the image its edge goes on, so that a white
    /// background stays white.
    pub(crate) fn row(self, y: usize, height: usize) -> usize {
        y.saturating_add_signed(self.up).min(height - 1)
    }

    /// The stored column that is seen at column `x`.
    pub(crate) fn column(self, x: usize, width: usize) -> usize {
        let x = if self.flip { width - 1 - x } else { x };
        x.saturating_add_signed(self.left).min(width - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(view: View, image: &[usize], height: usize, width: usize) -> Vec<usize> {
        (0..height * width)
            .map(|i| image[view.row(i / width, height) * width + view.column(i % width, width)])
            .collect()
    }

    proptest! {
        #[test]
        fn flipping_twice_changes_nothing(height in 1usize..9, width in 1usize..9) {
            let image: Vec<usize> = (0..height * width).collect();
            let flip = View { flip: true, ..View::AS_IT_IS };
            let once = apply(flip, &image, height, width);
            prop_assert_eq!(once[0], width - 1);
            prop_assert_eq!(apply(flip, &once, height, width), image);
        }

        #[test]
        fn shifting_moves_the_inside_and_repeats_the_edge(up in -3isize..=3, left in -3isize..=3) {
            let (height, width) = (5usize, 7usize);
            let image: Vec<usize> = (0..height * width).collect();
            let moved = apply(View { flip: false, up, left }, &image, height, width);
            for y in 0..height as isize {
                for x in 0..width as isize {
                    let from = (y + up).clamp(0, 4) * 7 + (x + left).clamp(0, 6);
                    prop_assert_eq!(moved[(y * 7 + x) as usize] as isize, from);
                }
            }
        }

        #[test]
        fn draws_stay_within_the_padding(seed: u64, epoch: u32, index: u32, crop_padding in 0usize..5) {
            let view = View::draw(Augment { flip: true, crop_padding }, seed, epoch, index);
            prop_assert!(view.up.unsigned_abs() <= crop_padding && view.left.unsigned_abs() <= crop_padding);
        }
    }

    #[test]
    fn views_differ_between_epochs_and_come_up_about_equally() {
        let augment = Augment { flip: true, crop_padding: 2 };
        let views = |epoch| (0..1000).map(|i| View::draw(augment, 3, epoch, i)).collect::<Vec<_>>();
        assert_ne!(views(0), views(1));
        assert_eq!(views(0), views(0));
        let flips = views(0).iter().filter(|v| v.flip).count();
        // Binomial(1000, 1/2) has standard deviation 15.8; five of them.
        assert!((421..=579).contains(&flips), "{flips} of 1000 mirrored");
        for shift in -2..=2 {
            assert!(views(0).iter().any(|v| v.up == shift) && views(0).iter().any(|v| v.left == shift));
        }
    }
}
