//! Kernels that move rows and elements: permute, slice, pad, concat, gather; and the sum of rows by
//! index.

use proptest::prelude::*;

use super::support::*;
use crate::rows::gather::*;
use crate::rows::permute::*;
use crate::rows::storage::Storage;

/// All coordinates of a shape in row-major order.
fn coordinates(shape: &[usize]) -> Vec<Vec<usize>> {
    let count: usize = shape.iter().product();
    (0..count)
        .map(|mut i| {
            let mut at = vec![0; shape.len()];
            for d in (0..shape.len()).rev() {
                at[d] = i % shape[d];
                i /= shape[d];
            }
            at
        })
        .collect()
}

fn index(shape: &[usize], at: &[usize]) -> usize {
    shape.iter().zip(at).fold(0, |index, (&size, &at)| index * size + at)
}

fn check_permute(shape: &[usize], perm: &[usize]) {
    let count: usize = shape.iter().product();
    let x: Vec<u32> = (0..count as u32).collect();
    let y_shape: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let expected: Vec<u32> = coordinates(&y_shape)
        .iter()
        .map(|at| {
            let mut from = vec![0; shape.len()];
            for (&p, &at) in perm.iter().zip(at) {
                from[p] = at;
            }
            x[index(shape, &from)]
        })
        .collect();
    for threads in 1..=3 {
        let mut y = vec![u32::MAX; count];
        permute(&pool(threads), shape, perm, &x, &mut y).unwrap();
        assert_eq!(y, expected, "{shape:?} {perm:?}");
        let half: Vec<u16> = x.iter().map(|&x| x as u16).collect();
        let mut y = vec![0u16; count];
        permute(&pool(threads), shape, perm, &half, &mut y).unwrap();
        assert!(y.iter().zip(&expected).all(|(&y, &e)| y == e as u16));
    }
}

#[test]
fn permutations_of_known_shapes() {
    check_permute(&[1], &[0]);
    check_permute(&[], &[]);
    check_permute(&[3, 5], &[1, 0]);
    check_permute(&[100, 67], &[1, 0]);
    check_permute(&[4, 33, 3, 32], &[0, 2, 1, 3]);
    check_permute(&[4, 33, 3, 32], &[2, 0, 3, 1]);
    check_permute(&[2, 3, 1, 40, 5], &[4, 3, 2, 1, 0]);
    check_permute(&[2, 40, 50], &[0, 2, 1]);
    check_permute(&[40, 3, 50], &[2, 1, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_permutation(
        (shape, perm) in prop::collection::vec(1usize..12, 1..5).prop_flat_map(|shape| {
            let perm: Vec<usize> = (0..shape.len()).collect();
            (Just(shape), Just(perm).prop_shuffle())
        }),
    ) {
        check_permute(&shape, &perm);
    }

    #[test]
    fn slice_undoes_pad(
        dims in prop::collection::vec((1usize..8, 0usize..4, 0usize..4), 1..5),
    ) {
        let shape: Vec<usize> = dims.iter().map(|d| d.0).collect();
        let before: Vec<usize> = dims.iter().map(|d| d.1).collect();
        let after: Vec<usize> = dims.iter().map(|d| d.2).collect();
        let padded: Vec<usize> = dims.iter().map(|d| d.0 + d.1 + d.2).collect();
        let x: Vec<i32> = (1..=shape.iter().product::<usize>() as i32).collect();
        let mut y = vec![9; padded.iter().product()];
        pad(&pool(2), &shape, &before, &after, 0, &x, &mut y).unwrap();
        for (at, &value) in coordinates(&padded).iter().zip(&y) {
            let inside = (0..at.len()).all(|d| at[d] >= before[d] && at[d] < before[d] + shape[d]);
            let expected = if inside {
                let from: Vec<usize> = at.iter().zip(&before).map(|(a, b)| a - b).collect();
                x[index(&shape, &from)]
            } else {
                0
            };
            prop_assert_eq!(value, expected);
        }
        let mut back = vec![0; x.len()];
        slice(&pool(3), &padded, &before, &shape, &y, &mut back).unwrap();
        prop_assert_eq!(back, x);
    }

    #[test]
    fn parts_are_put_side_by_side(sizes in prop::collection::vec(1usize..5, 1..4), axis in 0usize..3) {
        let shapes: Vec<Vec<usize>> = sizes.iter().map(|&s| {
            let mut shape = vec![2, 3, 4];
            shape[axis] = s;
            shape
        }).collect();
        let parts: Vec<Vec<usize>> = shapes.iter().enumerate()
            .map(|(i, s)| (0..s.iter().product()).map(|x| 1000 * i + x).collect()).collect();
        let mut whole = vec![2, 3, 4];
        whole[axis] = sizes.iter().sum();
        let mut y = vec![usize::MAX; whole.iter().product()];
        let mut starts = vec![0; 3];
        for (shape, part) in shapes.iter().zip(&parts) {
            copy_into(&pool(2), shape, part, &whole, &starts, &mut y).unwrap();
            starts[axis] += shape[axis];
        }
        for (at, &value) in coordinates(&whole).iter().zip(&y) {
            let (mut part, mut place) = (0, at[axis]);
            while place >= sizes[part] {
                place -= sizes[part];
                part += 1;
            }
            let mut from = at.clone();
            from[axis] = place;
            prop_assert_eq!(value, parts[part][index(&shapes[part], &from)]);
        }
    }

    #[test]
    fn sums_of_rows_by_index(rows in 1usize..40, width in 1usize..70, count in 0usize..90, from in 0usize..3,
                             to in 0usize..3) {
        check_scatter(rows, width, count, STORAGES[from], STORAGES[to]);
    }
}

fn check_scatter(rows: usize, width: usize, count: usize, from: Storage, to: Storage) {
    let indices: Vec<i32> = random(9, count, 1.0).iter().map(|x| (x.abs() * rows as f32) as i32).collect();
    let x = random_stored(1, from, count * width, 2.0);
    let before = random_stored(2, to, rows * width, 1.0);
    let (mut expected, mut sizes) = (vec![0.0; rows * width], vec![0.0; rows * width]);
    for (i, (&row, x)) in indices.iter().zip(x.values().chunks(width)).enumerate() {
        assert!(i < count);
        for (c, x) in x.iter().enumerate() {
            expected[row as usize * width + c] += x;
            sizes[row as usize * width + c] += x.abs();
        }
    }
    let results = everywhere(|isa, pool| {
        let mut y = before.clone();
        let mut scratch = vec![77; scatter_add_scratch_len(rows, count)];
        let (x, y_dst) = (x.src(), y.dst());
        let scatter = ScatterAdd { rows, width, indices: &indices, x, y: y_dst, scratch: &mut scratch };
        scatter.run(isa, pool).unwrap();
        vec![y]
    });
    for result in results {
        // At most `count` additions in a row.
        assert_close("scatter", &result[0].values(), &expected, |i| {
            let sum = gamma(count) * sizes[i];
            if indices.is_empty() { 0.0 } else { sum + rounding(to, expected[i].abs() + sum) }
        });
    }
}

#[test]
fn gathers_rows() {
    let table: Vec<u16> = (0..7 * 5).collect();
    let indices = [6, 0, 3, 3, 6];
    for threads in 1..=3 {
        let mut out = vec![0; 25];
        gather_rows(&pool(threads), &table, 7, 5, &indices, &mut out).unwrap();
        let expected: Vec<u16> = indices.iter().flat_map(|&i| (i as u16 * 5)..(i as u16 * 5 + 5)).collect();
        assert_eq!(out, expected);
    }
}

#[test]
fn impossible_moves_are_errors() {
    let pool = pool(1);
    let x = [0u32; 6];
    let mut y = [0u32; 6];
    assert!(permute(&pool, &[2, 3], &[0, 0], &x, &mut y).is_err());
    assert!(permute(&pool, &[2, 3], &[0], &x, &mut y).is_err());
    assert!(permute(&pool, &[2, 4], &[1, 0], &x, &mut y).is_err());
    assert!(permute(&pool, &[1; 9], &[0; 9], &x[..1], &mut y[..1]).is_err());
    assert!(slice(&pool, &[2, 3], &[0, 2], &[2, 2], &x, &mut y[..4]).is_err());
    assert!(slice(&pool, &[2, 3], &[0, usize::MAX], &[2, 2], &x, &mut y[..4]).is_err());
    assert!(pad(&pool, &[2, 3], &[0, 0], &[0, 1], 0, &x, &mut y).is_err());
    assert!(copy_into(&pool, &[1, 3], &x[..3], &[2, 2], &[0, 0], &mut y[..4]).is_err());
    assert!(copy_into(&pool, &[2, 3], &x, &[2, 3], &[1, 0], &mut y).is_err());
}
