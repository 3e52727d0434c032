//! Looking at a person's data: what is suggested must load.

use std::fs;
use std::path::Path;

use halfstep_data::{
    ColumnKind, DataError, DataSpec, FolderLayout, Found, IdxFiles, TestFrom, inspect, load,
};
use tempfile::TempDir;

/// Writes a JPEG or PNG image, by the name, with 1 or 3 channels.
fn image(path: &Path, height: u16, width: u16, channels: u16) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixels: Vec<u8> = (0..u32::from(height * width * channels)).map(|i| (i * 37 % 251) as u8).collect();
    let mut out = Vec::new();
    if path.extension().unwrap() == "jpg" {
        let colour = if channels == 1 { jpeg_encoder::ColorType::Luma } else { jpeg_encoder::ColorType::Rgb };
        jpeg_encoder::Encoder::new(&mut out, 90).encode(&pixels, width, height, colour).unwrap();
    } else {
        let mut encoder = png::Encoder::new(&mut out, width.into(), height.into());
        encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }
    fs::write(path, out).unwrap();
}

#[test]
fn a_folder_of_images_by_class() {
    let folder = TempDir::new().unwrap();
    for i in 0..5 {
        image(&folder.path().join(format!("cats/{i}.jpg")), 40 + i, 60, 3);
        image(&folder.path().join(format!("dogs/more/{i}.png")), 20, 30 + i, 1);
    }
    let seen = inspect(folder.path()).unwrap();
    let Found::Images { layout, classes, test_images, smallest, greatest, gray } = &seen.found else {
        panic!("{seen:?}")
    };
    assert_eq!((layout, test_images, gray), (&FolderLayout::OneFolder, &None, &5));
    assert_eq!(classes, &[("cats".to_owned(), 5), ("dogs".to_owned(), 5)]);
    assert_eq!((*smallest, *greatest), ((20, 30), (44, 60)));
    assert_eq!(seen.classes(), Some(2));
    assert!(matches!(&seen.spec, DataSpec::Images(images) if matches!(images.test, TestFrom::Split(_))));
    let data = load(&seen.spec, Path::new("/")).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (8, 2));
    assert_eq!(data.info().input.batch_shape(1), [1, 32, 32, 3]);
    let DataSpec::Images(relative) = seen.spec_relative_to(folder.path().parent().unwrap()) else { panic!() };
    assert_eq!(relative.path, Path::new(folder.path().file_name().unwrap()));
}

#[test]
fn a_folder_with_train_and_test() {
    let folder = TempDir::new().unwrap();
    for (part, count) in [("Train", 4), ("val", 1)] {
        for class in ["a", "b"] {
            for i in 0..count {
                image(&folder.path().join(format!("{part}/{class}/{i}.png")), 28, 28, 1);
            }
        }
    }
    let seen = inspect(folder.path()).unwrap();
    let Found::Images { layout, test_images, .. } = &seen.found else { panic!("{seen:?}") };
    assert_eq!(layout, &FolderLayout::TrainAndTest { train: "Train".into(), test: "val".into() });
    assert_eq!(test_images, &Some(2));
    assert!(matches!(&seen.spec, DataSpec::Images(images) if matches!(images.test, TestFrom::Files(_))));
    let data = load(&seen.spec, Path::new("/")).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (8, 2));
    assert_eq!(data.info().input.batch_shape(1), [1, 28, 28, 1], "small images of one size stay as they are");
}

#[test]
fn a_table_with_gaps_identifiers_and_constants() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("people.csv");
    let mut rows = String::from("id;name;age;job;country;survived\n");
    for i in 0..60 {
        let (age, job) = (
            if i == 7 { String::new() } else { (20 + i * 7 % 41).to_string() },
            ["cook", "nurse", "?"][i % 3],
        );
        rows += &format!("{};person {i};{age};{job};X;{}\n", 100 + i, ["yes", "no"][i % 2]);
    }
    fs::write(&path, rows).unwrap();
    let seen = inspect(&path).unwrap();
    let Found::Csv { rows, columns, target, classes } = &seen.found else { panic!("{seen:?}") };
    assert_eq!((*rows, target.as_str()), (60, "survived"));
    assert_eq!(classes, &[("no".to_owned(), 30), ("yes".to_owned(), 30)]);
    let kinds: Vec<&ColumnKind> = columns.iter().map(|c| &c.kind).collect();
    assert_eq!(kinds[..2], [&ColumnKind::Identifier, &ColumnKind::Identifier]);
    assert!(matches!(kinds[2], ColumnKind::Numeric { min: 20.0, max: 60.0 }), "{kinds:?}");
    assert_eq!(
        kinds[3..],
        [&ColumnKind::Categorical { values: 3 }, &ColumnKind::Constant, &ColumnKind::Target]
    );
    assert_eq!(columns.iter().map(|c| c.missing).collect::<Vec<_>>(), [0, 0, 1, 20, 0, 0]);
    let data = load(&seen.spec, Path::new("/")).unwrap();
    assert_eq!(
        data.preprocessing.table().unwrap().feature_names(),
        ["age", "job=cook", "job=nurse", "job=(missing)"]
    );
}

#[test]
fn tables_without_names_or_with_other_delimiters() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.data");
    let lines: Vec<String> = (0..40).map(|i| format!("{} {} A{}", i * i % 97, i % 7, 1 + i % 2)).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let seen = inspect(&path).unwrap();
    let DataSpec::Csv(csv) = &seen.spec else { panic!("{seen:?}") };
    assert_eq!((csv.format.delimiter, csv.format.header, csv.target.as_str()), (' ', false, "c3"));
    assert_eq!(load(&seen.spec, Path::new("/")).unwrap().train.len(), 32);
    for (text, delimiter) in
        [("a\tlabel\n1\tx\n2\ty\n3\tx\n4\ty\n", '\t'), ("a|label\n1|x\n2|y\n3|x\n4|y\n", '|')]
    {
        fs::write(&path, text).unwrap();
        let DataSpec::Csv(csv) = inspect(&path).unwrap().spec else { panic!() };
        assert_eq!(
            (csv.format.delimiter, csv.format.header, csv.target.as_str()),
            (delimiter, true, "label")
        );
    }
}

#[test]
fn a_quantity_is_not_a_target() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("prices.csv");
    let rows: Vec<String> = (0..50).map(|i| format!("{i}.5,{}", f64::from(i) * 1.37)).collect();
    fs::write(&path, format!("size,price\n{}\n", rows.join("\n"))).unwrap();
    let error = inspect(&path).unwrap_err().to_string();
    assert!(error.contains("no column holds classes"), "{error}");
}

#[test]
fn a_text() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("book.md");
    fs::write(&path, "Es war einmal ein König.\n".repeat(400)).unwrap();
    let seen = inspect(&path).unwrap();
    let Found::Text { bytes, lines, characters } = seen.found else { panic!("{seen:?}") };
    assert_eq!((bytes, lines, characters), (26 * 400, 400, 16));
    assert!(load(&seen.spec, Path::new("/")).unwrap().test.len() >= 4);
    assert!(seen.notes.iter().any(|note| note.contains("short")));
}

#[test]
fn idx_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist-10k");
    let seen = inspect(&folder).unwrap();
    let classes = (0..10).map(|class| (class.to_string(), 1000)).collect();
    assert_eq!(seen.found, Found::Idx { shape: vec![10_000, 28, 28], classes, test_images: Some(2_000) });
    let DataSpec::Idx(spec) = &seen.spec else { panic!("{seen:?}") };
    assert!(matches!(spec.files, IdxFiles::Folder { split: None, .. }));
    assert_eq!(load(&seen.spec, Path::new("/")).unwrap().test.len(), 2_000);
}

#[test]
fn what_is_no_data_is_said_so() {
    let folder = TempDir::new().unwrap();
    let reason = |path: &Path| inspect(path).unwrap_err().to_string();
    assert!(reason(folder.path()).contains("expected one folder of PNG, JPEG or PNM images per class"));
    let missing = folder.path().join("nothing");
    assert!(matches!(inspect(&missing), Err(DataError::MissingFile { expected: "file or folder", .. })));
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    assert!(reason(&write("a.zip", b"PK")).contains("unpack it first"));
    assert!(reason(&write("a.png", b"\x89PNG\r\n\x1a\n")).contains("a single image"));
    assert!(reason(&write("a.xlsx", b"PK")).contains("save it as CSV"));
    assert!(reason(&write("a.bin", b"a\0b")).contains("neither text"));
    assert!(reason(&write("b.bin", b"\xFF\x01\x02")).contains("neither text"));
    assert!(reason(&write("a.txt", b"")).contains("no samples"));
    assert!(reason(&write("b.txt", b"\xFF\xFE")).contains("no samples"));
    assert!(reason(&write("one.csv", b"a\n1\n2\n")).contains("a table of one column"));
}
