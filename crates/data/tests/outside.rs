//! Data made outside the project. `scripts/outside_data.py` says how to get them; then
//! `HALFSTEP_OUTSIDE_DATA=FOLDER cargo test --release -p halfstep-data --test outside --
//! --ignored`.

use std::path::PathBuf;

use halfstep_data::{Batch, BatchX, Draw, Found, Sampler, inspect, load};

fn folder() -> PathBuf {
    PathBuf::from(
        std::env::var_os("HALFSTEP_OUTSIDE_DATA")
            .expect("set HALFSTEP_OUTSIDE_DATA to the folder of the data"),
    )
}

#[test]
#[ignore = "needs data from scripts/outside_data.py"]
fn twemoji_by_category() {
    let path = folder().join("twemoji");
    let seen = inspect(&path).unwrap();
    println!("{seen:#?}");
    let Found::Images { classes, smallest, greatest, .. } = &seen.found else { panic!("not images") };
    assert_eq!((classes.len(), classes.iter().map(|c| c.1).sum::<usize>()), (10, 1911));
    assert!(smallest.0 >= 60 && greatest.0 <= 64);
    let data = load(&seen.spec, &path).unwrap();
    let info = data.info();
    println!("{info:?}");
    assert_eq!((info.train_samples + info.test_samples, info.outputs), (1911, 10));
    assert_eq!(info.input.batch_shape(8), [8, 32, 32, 3]);
    let mut batch = Batch::new(info.input, 8);
    let mut sampler = Sampler::new(info.train_samples, 8, 0).unwrap();
    let (draw, indices) = sampler.batch(0);
    data.train.fill_batch(indices, draw, &mut batch).unwrap();
    let BatchX::F32 { data: x, .. } = &batch.x else { panic!("not floats") };
    assert!(x.iter().all(|v| v.is_finite() && v.abs() < 10.0));
    let first = std::fs::read_dir(path.join("Flags")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(data.preprocessing.image().unwrap().image_from_path(&first).unwrap().len(), 32 * 32 * 3);
}

#[test]
#[ignore = "needs data from scripts/outside_data.py"]
fn german_credit() {
    let path = folder().join("german_credit.csv");
    let seen = inspect(&path).unwrap();
    println!("{seen:#?}");
    let Found::Csv { rows, columns, target, classes } = &seen.found else { panic!("not a table") };
    assert_eq!((*rows, columns.len(), target.as_str()), (1000, 21, "credit"));
    assert_eq!(classes, &[("bad".to_owned(), 300), ("good".to_owned(), 700)]);
    let data = load(&seen.spec, &path).unwrap();
    let info = data.info();
    println!("{info:?}\n{:?}", data.preprocessing.table().unwrap().feature_names());
    assert_eq!((info.train_samples, info.test_samples, info.outputs), (800, 200, 2));
    assert_eq!(data.test.labels().iter().filter(|&&l| l == 0).count(), 60, "classes keep their shares");
    let rows = data.preprocessing.table().unwrap().rows_from_path(&path).unwrap();
    assert_eq!(rows.len(), 1000 * data.train.input().len());
    let mut batch = Batch::new(info.input, 200);
    data.test.fill_batch(&(0..200).collect::<Vec<_>>(), Draw::AsIs, &mut batch).unwrap();
    let BatchX::F32 { data: x, .. } = &batch.x else { panic!("not floats") };
    for row in x.chunks(info.input.len()) {
        assert!(
            rows.chunks(info.input.len()).any(|other| other == row),
            "prediction encodes a test row differently"
        );
    }
}
