//! Folders of images as people have them: parts of the data by any name, endings of any kind, what
//! programs leave behind, 16 bits, names in other characters.

use std::fs;
use std::path::{Path, PathBuf};

use halfstep_data::{
    BatchX, DataError, DataSpec, Dataset, FolderLayout, Found, Inspection, Pixels, Samples, TestFrom,
    inspect, load, pictures,
};
use tempfile::TempDir;

/// A PNG of one row.
fn png_of(depth: png::BitDepth, width: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

fn gray(value: u8) -> Vec<u8> {
    png_of(png::BitDepth::Eight, 3, &[value, 255 - value, value / 2])
}

struct Folder(TempDir);

impl Folder {
    /// Writes so many images into each folder.
    fn of(folders: &[(&str, usize)]) -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        for (i, (name, count)) in folders.iter().enumerate() {
            fs::create_dir_all(folder.join(name)).unwrap();
            for j in 0..*count {
                folder.write(&format!("{name}/i{j}.png"), gray((i * 16 + j) as u8));
            }
        }
        folder
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What `halfstep new` would find, and the data it would load.
    fn seen(&self) -> (Inspection, Dataset) {
        let seen = inspect(self.0.path()).unwrap();
        let data = load(&seen.spec, Path::new("/")).unwrap();
        (seen, data)
    }

    fn seen_error(&self) -> String {
        load(&inspect(self.0.path()).unwrap().spec, Path::new("/")).unwrap_err().to_string()
    }

    fn refusal(&self) -> String {
        inspect(self.0.path()).unwrap_err().to_string()
    }

    fn load(&self, toml: &str) -> Result<Dataset, DataError> {
        let toml = format!("kind = 'images'\n{toml}");
        load(&DataSpec::read(toml::de::DeTable::parse(&toml).unwrap().into_inner()).unwrap(), self.0.path())
    }
}

fn layout(seen: &Inspection) -> &FolderLayout {
    match &seen.found {
        Found::Images { layout, .. } => layout,
        other => panic!("{other:?}"),
    }
}

fn train_and_test(train: &str, test: &str) -> FolderLayout {
    FolderLayout::TrainAndTest { train: train.into(), test: test.into() }
}

/// Train and test folders of two classes.
fn parts(train: &str, test: &str) -> Folder {
    let names = [train, test].map(|part| ["cat", "dog"].map(|class| format!("{part}/{class}")));
    let folders: Vec<(&str, usize)> = names
        .iter()
        .zip([6, 3])
        .flat_map(|(part, count)| part.iter().map(move |f| (f.as_str(), count)))
        .collect();
    Folder::of(&folders)
}

#[test]
fn parts_of_the_data_are_known_by_many_names() {
    for (train, test) in [
        ("Training", "Testing"),
        ("train-set", "test-set"),
        ("train", "eval"),
        ("train", "evaluation"),
        ("train", "holdout"),
        ("train", "hold_out"),
        ("seg_train", "seg_test"),
        ("train", "testing"),
        ("train_images", "test_images"),
        ("training_set", "test_set"),
        ("training_data", "validation_data"),
        ("train", "validation"),
        ("Train", "Valid"),
        ("TRAIN", "TEST"),
        ("trn", "tst"),
        ("TrainImages", "TestImages"),
        ("trainset", "valset"),
        ("train2017", "val2017"),
        ("images_training", "images_dev"),
        ("chest_xray_train", "chest_xray_test"),
    ] {
        let folder = parts(train, test);
        let (seen, data) = folder.seen();
        assert_eq!(layout(&seen), &train_and_test(train, test));
        assert_eq!(data.preprocessing.classes(), ["cat", "dog"], "{train} {test}");
        assert_eq!((data.train.len(), data.test.len()), (12, 6), "{train} {test}");
        // A recipe that takes the parts for classes is refused with what to write.
        let error = folder.load("path = '.'").unwrap_err().to_string();
        assert!(error.contains("are parts of the data, not classes: write `path = "), "{error}");
        assert!(error.contains(&format!("{test}\"`")) && error.contains("folders = \"classes\""), "{error}");
        assert_eq!(folder.load("path = '.'\nfolders = 'classes'").unwrap().preprocessing.classes().len(), 2);
    }
}

#[test]
fn parts_beside_train_and_test_are_left_out_and_named() {
    let folder = Folder::of(&[
        ("train/cat", 6),
        ("train/dog", 6),
        ("val/cat", 2),
        ("val/dog", 2),
        ("test/cat", 3),
        ("test/dog", 3),
        ("unlabeled/cat", 1),
        ("unlabeled/dog", 1),
        ("spare/cat", 1),
    ]);
    let (seen, data) = folder.seen();
    assert_eq!(layout(&seen), &train_and_test("train", "test"));
    assert_eq!((data.train.len(), data.test.len()), (12, 6));
    let said = |start: &str, why: &str| {
        assert!(
            seen.notes.iter().any(|n| n.starts_with(start) && n.contains(why)),
            "{start}: {:?}",
            seen.notes
        );
    };
    said("`val` (4 images) is the validation data", "chosen by these");
    assert_eq!(data.validation.as_ref().map(|part| part.len()), Some(4));
    let error = folder.load("path = '.'").unwrap_err().to_string();
    assert!(error.contains("`validation_path = ") && error.contains("/val\"`"), "{error}");
    let keys = "path = 'train'\ntest_path = 'test'\nvalidation_path = ";
    let by_hand = folder.load(&format!("{keys}'val'")).unwrap();
    assert_eq!(by_hand.validation, data.validation);
    // Nothing more is set aside where validation data are there.
    assert_eq!(by_hand.with_validation(0.5).unwrap().train.len(), 12);
    assert!(matches!(folder.load(&format!("{keys}'vla'")), Err(DataError::MissingFile { .. })));
    said("`unlabeled` (2 images) is left out", "no labels");
    said("`spare` (1 images) is left out", "does not say what it is for");
    said("`spare`", &format!("write `test_path = \"{}\"`", folder.join("spare").display()));

    let unlabelled =
        Folder::of(&[("train/cat", 6), ("train/dog", 6), ("unlabeled/cat", 3), ("unlabeled/dog", 3)]);
    let (seen, data) = unlabelled.seen();
    assert_eq!((data.train.len() + data.test.len(), data.preprocessing.classes().len()), (12, 2));
    assert!(
        seen.notes.iter().any(|n| n.starts_with("`unlabeled` (6 images) is left out")),
        "{:?}",
        seen.notes
    );
    assert_eq!(layout(&seen), &FolderLayout::OneFolder);
    let flat = Folder::of(&[("train/cat", 6), ("train/dog", 6), ("test", 4)]);
    let (seen, data) = flat.seen();
    assert_eq!(data.train.len() + data.test.len(), 12);
    let note = seen.notes.iter().find(|n| n.starts_with("`test` is left out")).unwrap();
    assert!(
        note.contains("4 image(s) are in no class folders") && note.contains("halfstep predict RUN"),
        "{note}"
    );
}

#[test]
fn folders_around_the_class_folders_are_looked_through() {
    for (folders, train) in [
        (vec![("dataset/cat", 6), ("dataset/dog", 6)], "dataset"),
        (vec![("train/cat", 6), ("train/dog", 6)], "train"),
        (vec![("a/b/c/cat", 6), ("a/b/c/dog", 6), ("a/b/docs", 0)], "a/b/c"),
    ] {
        let folder = Folder::of(&folders);
        let (seen, data) = folder.seen();
        let DataSpec::Images(spec) = &seen.spec else { panic!() };
        assert_eq!(spec.path, folder.join(train));
        assert!(matches!(spec.test, TestFrom::Split(_)));
        assert_eq!((data.train.len() + data.test.len(), data.preprocessing.classes().len()), (12, 2));
        assert_eq!(seen.notes[0], format!("All images lie in `{train}`."));
        let error = folder.load("path = '.'").unwrap_err().to_string();
        assert!(error.contains("all images lie in the one folder"), "{error}");
    }
    // As Tiny ImageNet has them: each class in a folder of its own, test images without classes.
    let tiny = Folder::of(&[
        ("tiny/train/n01/images", 6),
        ("tiny/train/n02/images", 6),
        ("tiny/val/images", 3),
        ("tiny/test/images", 3),
    ]);
    let (seen, data) = tiny.seen();
    assert_eq!(
        (data.preprocessing.classes(), layout(&seen)),
        (&["n01", "n02"].map(String::from)[..], &FolderLayout::OneFolder)
    );
    let said = "`val` (3 images) is left out: its folders (`images`) are none of the train classes.";
    assert!(seen.notes.iter().any(|note| note == said), "{:?}", seen.notes);
    // Beside train and test data of the same classes, other pictures are no class.
    let clear = Folder::of(&[("train/a", 6), ("train/b", 6), ("test/a", 3), ("test/b", 3), ("figures", 2)]);
    let (seen, data) = clear.seen();
    assert_eq!((data.train.len(), data.test.len()), (12, 6));
    assert!(
        seen.notes.iter().any(|n| n.starts_with("`figures` is left out: its 2 image(s)")),
        "{:?}",
        seen.notes
    );
    // As Kaggle's archive of chest X-rays has them: all of it a second time.
    let twice = Folder::of(&[
        ("x/train/a", 6),
        ("x/train/b", 6),
        ("x/test/a", 3),
        ("x/test/b", 3),
        ("x/x/train/a", 6),
        ("x/x/train/b", 6),
        ("x/x/test/a", 3),
        ("x/x/test/b", 3),
    ]);
    let (seen, data) = twice.seen();
    assert_eq!((data.train.len(), data.test.len()), (12, 6));
    assert!(
        seen.notes.contains(&"`x` is left out: it has the folders beside it again.".to_owned()),
        "{seen:?}"
    );
    // As Kaggle's archives of Intel's scenes have them.
    let doubled = Folder::of(&[
        ("seg_train/seg_train/sea", 6),
        ("seg_train/seg_train/street", 6),
        ("seg_test/seg_test/sea", 3),
        ("seg_test/seg_test/street", 3),
        ("seg_pred/seg_pred", 5),
    ]);
    let (seen, data) = doubled.seen();
    assert_eq!(layout(&seen), &train_and_test("seg_train/seg_train", "seg_test/seg_test"));
    assert_eq!((data.train.len(), data.test.len()), (12, 6));
    assert!(
        seen.notes.iter().any(|n| n.starts_with("`seg_pred` is left out: its 5 image(s)")),
        "{:?}",
        seen.notes
    );
}

#[test]
fn what_stays_unclear_is_refused_with_what_to_write() {
    let both = Folder::of(&[("cats/in", 4), ("cats/out", 4), ("dogs/in", 4), ("dogs/out", 4)]);
    let error = both.refusal();
    assert!(error.contains("`cats`, `dogs` have the same folders in them (`in`, `out`)"), "{error}");
    assert!(error.contains("`path = …`") && error.contains("`folders = \"classes\"`"), "{error}");
    assert!(both.load("path = '.'").unwrap_err().to_string().contains("have the same folders"));
    assert_eq!(
        both.load("path = '.'\nfolders = 'classes'").unwrap().preprocessing.classes(),
        ["cats", "dogs"]
    );

    let inside = Folder::of(&[("cat/train", 4), ("cat/test", 2), ("dog/train", 4), ("dog/test", 2)]);
    assert!(inside.refusal().contains("each of `cat`, `dog` has folders of train and test data"));
    let no_train = Folder::of(&[("test/a", 4), ("test/b", 4), ("val/a", 2), ("val/b", 2)]);
    assert!(no_train.refusal().contains("have the same folders in them"));
    let two = Folder::of(&[("train1/a", 4), ("train1/b", 4), ("train2/a", 4), ("train2/b", 4)]);
    assert!(two.refusal().contains("`train1`, `train2` are all named as train data"));
    let tests = Folder::of(&[("train/a", 4), ("train/b", 4), ("test1/a", 2), ("test1/b", 2), ("test2/a", 2)]);
    assert!(tests.refusal().contains("`test1`, `test2` may each be the test data"));
    let flat = Folder::of(&[("train", 5), ("test", 3)]);
    assert!(flat.refusal().contains("hold images without class folders"));
    assert!(flat.load("path = '.'").is_err());
    let loose = Folder::of(&[(".", 5)]);
    assert!(loose.refusal().contains("5 image(s) but no folders of them"));
    let among = Folder::of(&[("cat", 5), ("dog", 5), ("test/cat", 2), ("test/dog", 2)]);
    assert!(among.refusal().contains("`test` has folders named as the classes beside it"));
    let pairs = Folder::of(&[("trainA", 3), ("trainB", 3), ("testA", 2), ("testB", 2)]);
    assert!(
        pairs.refusal().contains("`testA`, `testB`, `trainA`, `trainB` are named as parts of the data but")
    );
    let again = Folder::of(&[("yes", 5), ("no", 5), ("tumours/yes", 5), ("tumours/no", 5)]);
    let error = again.refusal();
    assert!(error.contains("`tumours` has folders named as the classes beside it (`no`, `yes`)"), "{error}");
    assert_eq!(again.load("path = '.'\nfolders = 'classes'").unwrap().preprocessing.classes().len(), 3);
    let unclear = Folder::of(&[("train/steam", 4), ("train/diesel", 4), ("bus", 4)]);
    assert!(unclear.refusal().contains("`train` may be the train data or a class beside `bus`"));
}

#[test]
fn classes_named_as_parts_and_nested_classes_stay_classes() {
    let (seen, data) = Folder::of(&[("bus", 4), ("car", 4), ("train", 4)]).seen();
    assert_eq!(data.preprocessing.classes(), ["bus", "car", "train"]);
    assert!(
        data.notes.iter().any(|n| n.starts_with("Taken as classes, although named as parts")),
        "{seen:?}"
    );
    let (_, data) = Folder::of(&[("valid", 4), ("invalid", 4)]).seen();
    assert_eq!(data.preprocessing.classes(), ["invalid", "valid"]);
    let (_, data) = Folder::of(&[("cats/tabby", 4), ("cats/persian", 4), ("dogs/poodle", 4)]).seen();
    assert_eq!((data.preprocessing.classes().len(), data.train.len() + data.test.len()), (2, 12));
    assert!(data.notes.iter().any(|n| n.contains("within a class folder are of that class: `cats`, `dogs`")));
    // Each class has its images in a folder of the same name: nothing else could be a class.
    let (_, data) = Folder::of(&[("cats/images", 4), ("dogs/images", 4)]).seen();
    assert_eq!(data.preprocessing.classes(), ["cats", "dogs"]);
}

#[test]
fn pictures_are_known_by_their_content() {
    let folder = Folder::of(&[("cat", 4), ("dog", 4)]);
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.encode(&[9, 99, 199], 3, 1, jpeg_encoder::ColorType::Luma).unwrap();
    for ending in ["jfif", "jpe", "apng", "mpo", "ppm", "JPG", "dat"] {
        folder.write(&format!("cat/extra.{ending}"), gray(77));
        folder.write(&format!("dog/other.{ending}"), &jpeg);
    }
    folder.write("cat/without", gray(78));
    folder.write("dog/without", &jpeg);
    folder.write("dog/notes.txt", "not a picture");
    folder.write("dog/boxes.xml", "<annotation/>");
    folder.write("labels.csv", "image,class\n");
    let (seen, data) = folder.seen();
    let Found::Images { classes, .. } = &seen.found else { panic!() };
    assert_eq!(classes, &[("cat".to_owned(), 12), ("dog".to_owned(), 12)]);
    assert_eq!(data.train.len() + data.test.len(), 24);
    let note = "3 file(s) passed over because they are no pictures of a format that is known here: `dog/boxes.xml`, `dog/notes.txt`, `labels.csv`.";
    assert!(data.notes.iter().any(|n| n == note), "{:?}", data.notes);
    // `predict` finds the same ones.
    assert_eq!(pictures(&folder.join("dog")).unwrap().paths.len(), 12);
    let image = data.preprocessing.image().unwrap();
    pictures(&folder.join("."))
        .unwrap()
        .paths
        .iter()
        .for_each(|path| drop(image.image_from_path(path).unwrap()));
}

#[test]
fn pictures_that_cannot_be_used_are_all_named() {
    let folder = Folder::of(&[("cat", 4), ("dog", 4)]);
    folder.write("cat/a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    let error = folder.refusal();
    assert!(error.ends_with("a.heic: HEIF images are not read; convert them to PNG or JPEG"), "{error}");
    folder.write("dog/b", b"GIF89a\x01\0\x01\0");
    folder.write("dog/c.tif", b"II*\0\x08\0\0\0");
    let error = folder.refusal();
    assert!(error.contains("2 other file(s) cannot be used either") && error.contains("c.tif"), "{error}");
    assert_eq!(folder.load("path = '.'").unwrap_err().to_string().replace("/./", "/"), error);

    let folder = Folder::of(&[("cat", 4), ("dog", 4)]);
    folder.write("cat/z.png", "");
    let error = folder.refusal();
    assert!(error.contains("z.png: truncated image"), "{error}");
    folder.write("dog/page.jpg", "<!DOCTYPE html><html>not found</html>");
    folder.write("dog/pointer.png", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    let error = folder.refusal();
    assert!(error.contains("z.png: truncated") && error.contains("2 other file(s)"), "{error}");
    assert!(error.contains("page.jpg") && error.contains("pointer.png"), "{error}");
    fs::remove_file(folder.join("cat/z.png")).unwrap();
    let error = folder.refusal();
    assert!(error.contains("a web page (HTML)"), "{error}");
}

#[test]
fn what_programs_leave_behind_is_passed_over() {
    let folder = Folder::of(&[("cat", 6), ("dog", 6), ("bird", 0)]);
    for name in [
        "cat/@eaDir/i0.png/SYNOPHOTO_THUMB.png",
        "__MACOSX/cat/i0.png",
        ".ipynb_checkpoints/i0-checkpoint.png",
        "dog/.ipynb_checkpoints/i0-checkpoint.png",
        "dog/.thumbnails/i0.png",
        "dog/._i0.png",
        "__pycache__/i.png",
        "$RECYCLE.BIN/i.png",
        "lost+found/i.png",
        "#recycle/i.png",
        "dog/Thumbs.db",
        "dog/desktop.ini",
        "dog/.DS_Store",
        ".mine/i0.png",
    ] {
        folder.write(name, gray(5));
    }
    let (seen, data) = folder.seen();
    assert_eq!(data.preprocessing.classes(), ["cat", "dog"]);
    assert_eq!(data.train.len() + data.test.len(), 12);
    let said = |text: &str| assert!(data.notes.iter().any(|n| n.contains(text)), "{text}: {:?}", data.notes);
    said("13 file(s) or folder(s) passed over that programs leave behind: ");
    said("because their names begin with a dot: `.mine`; rename what is to be read.");
    said("No class, because without images: `bird`.");
    assert!(seen.notes.iter().all(|n| !n.contains("programs")), "said once, when loading: {:?}", seen.notes);
    assert_eq!(pictures(&folder.join("cat")).unwrap().paths.len(), 6);
}

#[cfg(unix)]
#[test]
fn links_that_lead_back_and_special_files_are_passed_over() {
    let folder = Folder::of(&[("cat", 4), ("dog", 4)]);
    std::os::unix::fs::symlink(folder.join(""), folder.join("cat/up")).unwrap();
    std::os::unix::fs::symlink(folder.join("dog"), folder.join("cat/dogs")).unwrap();
    std::os::unix::fs::symlink(folder.join("cat"), folder.join("dog/cats")).unwrap();
    std::os::unix::fs::symlink(folder.join("nowhere"), folder.join("dog/gone.png")).unwrap();
    let (seen, data) = folder.seen();
    // Each class has its own images and, through a link, those of the other.
    assert_eq!(data.train.len() + data.test.len(), 16, "{seen:?}");
    let notes = data.notes.join(" ");
    assert!(
        notes.contains("link(s) passed over that lead back") && notes.contains("neither files nor"),
        "{notes}"
    );
}

#[test]
fn names_that_are_equal_once_composed_are_one_class() {
    let folder = Folder::of(&[("bar", 6), ("caf\u{e9}", 6), ("cafe\u{301}", 6)]);
    let (_, data) = folder.seen();
    assert_eq!(data.preprocessing.classes(), ["bar", "caf\u{e9}"]);
    assert_eq!(data.train.len() + data.test.len(), 18);
    assert!(
        data.notes.iter().any(|n| n.starts_with("Two folders are named `caf\u{e9}`")),
        "{:?}",
        data.notes
    );
    let across =
        Folder::of(&[("train/bar", 6), ("train/caf\u{e9}", 6), ("test/bar", 3), ("test/cafe\u{301}", 3)]);
    let (_, data) = across.seen();
    assert_eq!((data.train.len(), data.test.len(), data.preprocessing.classes().len()), (12, 6, 2));
    assert!(data.notes.is_empty(), "{:?}", data.notes);
    let (_, data) = Folder::of(&[("Cat", 3), ("cat", 3), ("dog", 3)]).seen();
    assert_eq!(data.preprocessing.classes(), ["Cat", "cat", "dog"]);
    assert!(data.notes.iter().any(|n| n.starts_with("The classes `Cat`, `cat` differ only in case")));
}

#[test]
fn a_class_in_other_case_in_the_test_data_is_named() {
    let error =
        Folder::of(&[("train/Cat", 3), ("train/dog", 3), ("test/cat", 3), ("test/dog", 3)]).seen_error();
    assert!(error.contains("test: `cat` is `Cat` in the train data: name them alike"), "{error}");
}

/// Two classes of 16-bit images around these values.
fn deep(low: u16, high: u16) -> Folder {
    let folder = Folder(TempDir::new().unwrap());
    for (class, middle) in [("low", low), ("high", high)] {
        for i in 0..10u16 {
            let values = [middle + i, middle, middle + 2 * i].map(u16::to_be_bytes).concat();
            folder.write(&format!("{class}/{i}.png"), png_of(png::BitDepth::Sixteen, 3, &values));
        }
    }
    folder
}

#[test]
fn images_of_16_bits_keep_them() {
    for (low, high) in [(1000, 1060), (60, 180), (13_000, 48_000)] {
        let folder = deep(low, high);
        let (_, data) = folder.seen();
        assert!(data.notes.iter().any(|n| n.contains("20 of 20 images have 16 bits per channel")));
        let Samples::Images(train) = data.train.samples() else { panic!() };
        let Pixels::Bits16(values) = &train.set.pixels else { panic!("bits were thrown away") };
        assert!(values.iter().all(|v| (low..low + 19).contains(v) || (high..high + 19).contains(v)));
        // What the model gets tells the classes apart: they lie on two sides of the mean.
        let mut batch = halfstep_data::Batch::new(data.train.input(), 16);
        let indices: Vec<u32> = (0..16).collect();
        data.train.fill_batch(&indices, halfstep_data::Draw::AsIs, &mut batch).unwrap();
        let BatchX::F32 { data: x, .. } = &batch.x else { panic!() };
        for (image, &label) in x.chunks(3).zip(&batch.labels) {
            assert!(image.iter().all(|&v| (v > 0.5) == (label == 0) && v.abs() < 2.0), "{image:?} {label}");
        }
        // A stored image predicts as it trained, to the bit.
        let image = data.preprocessing.image().unwrap();
        let first = image.image_from_path(&folder.join("high/0.png")).unwrap();
        assert!(x.chunks(3).any(|row| row == first) || data.test.len() == 4);
        let narrow = data.notes.iter().any(|n| n.contains("have 16 bits and use only the values"));
        assert_eq!(narrow, high < 2000, "{:?}", data.notes);
    }
    let same = deep(70, 70);
    for i in 0..10 {
        for class in ["low", "high"] {
            let values = [70u16; 3].map(u16::to_be_bytes).concat();
            same.write(&format!("{class}/{i}.png"), png_of(png::BitDepth::Sixteen, 3, &values));
        }
    }
    let notes = same.seen().1.notes;
    assert!(
        notes[1].contains("Every pixel of all 16 train images has the value 70 (of 0 to 65535)"),
        "{notes:?}"
    );
}

#[test]
fn gray_maps_are_scaled_by_their_greatest_value() {
    let folder = Folder(TempDir::new().unwrap());
    for i in 0..6 {
        folder.write(&format!("low/{i}.pgm"), format!("P2\n# 12 bits\n2 1\n4095\n{} 100\n", 100 + i));
        folder
            .write(&format!("high/{i}.PGM"), [b"P5 2 1 4095\n".as_slice(), &[0x0F, 0xFF, 0x0F, i]].concat());
    }
    let (_, data) = folder.seen();
    assert!(data.notes.iter().any(|n| n.contains("12 of 12 images have 16 bits")), "{:?}", data.notes);
    let Samples::Images(train) = data.train.samples() else { panic!() };
    assert!(matches!(&train.set.pixels, Pixels::Bits16(v) if v.contains(&65_535) && v.contains(&1600)));
    folder.write("low/9.pam", "P7\nWIDTH 1\n");
    assert!(folder.refusal().contains("PAM images are not read; convert them to PNG or JPEG"));
}

#[test]
fn images_of_8_bits_beside_those_of_16_are_widened() {
    let folder = deep(1000, 40_000);
    folder.write("low/a.png", gray(10));
    folder.write("high/a.png", gray(200));
    let (_, data) = folder.seen();
    assert!(data.notes.iter().any(|n| n.contains("20 of 22 images have 16 bits")), "{:?}", data.notes);
    let parts = [&data.train, &data.test].map(|part| match part.samples() {
        Samples::Images(images) => images.set.pixels.clone(),
        _ => panic!(),
    });
    let holds = |value: u16| parts.iter().any(|p| matches!(p, Pixels::Bits16(all) if all.contains(&value)));
    assert!(holds(10 * 257) && holds(200 * 257) && holds(55 * 257));
    assert_eq!(
        data.preprocessing.image().unwrap().image_from_path(&folder.join("low/a.png")).unwrap().len(),
        3
    );
}
