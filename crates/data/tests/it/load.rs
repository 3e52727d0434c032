//! Loading each kind of data from files made here, and every way in which the files can be wrong.

use std::fs;
use std::path::{Path, PathBuf};

use halfstep_data::{
    Batch, BatchX, DataError, DataSpec, Dataset, Draw, InOrder, InputShape, Role, Sampler, Samples, load,
};
use tempfile::TempDir;

fn spec(toml: &str) -> DataSpec {
    DataSpec::read(toml::de::DeTable::parse(toml).unwrap().into_inner()).unwrap()
}

/// A folder that is removed at the end of the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn image(&self, name: &str, (height, width, channels): (u32, u32, u8), value: u8) {
        let pixels = vec![value; (height * width) as usize * usize::from(channels)];
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        self.write(name, out);
    }

    fn load(&self, toml: &str) -> Result<Dataset, DataError> {
        load(&spec(toml), self.path())
    }

    fn error(&self, toml: &str) -> DataError {
        self.load(toml).expect_err("the data should have been refused")
    }
}

fn idx(shape: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

/// Two classes of four dark and four light images.
fn pictures() -> Folder {
    let folder = Folder::new();
    for i in 0..4 {
        folder.image(&format!("p/dark/{i}.png"), (4, 5, 3), 10 * i);
        folder.image(&format!("p/light/{i}.PNG"), (4, 5, 3), 200 + 10 * i);
    }
    folder.write("p/dark/notes.txt", "not an image");
    folder.write("p/.hidden/0.png", "not an image either");
    folder
}

const PICTURES: &str = "kind = 'images'\npath = 'p'\ntest_fraction = 0.5\n";

#[test]
fn bundled_sets_have_the_published_sizes() {
    let sizes = |name: &str| {
        let info = load(&DataSpec::bundled(name).unwrap(), Path::new("/nowhere")).unwrap().info();
        (info.input, info.outputs, info.train_samples, info.test_samples)
    };
    let image = |side| InputShape::Image { height: side, width: side, channels: 1 };
    assert_eq!(sizes("fashion-mnist"), (image(28), 10, 10_000, 2_000));
    assert_eq!(sizes("digits"), (image(8), 10, 1438, 359));
    let windows = |bytes: usize| (bytes - 1) / 128;
    assert_eq!(
        sizes("shakespeare"),
        (InputShape::Tokens { sequence: 128 }, 256, windows(936_707), windows(98_440))
    );
}

#[test]
fn fingerprints_tell_data_apart_and_repeat() {
    let fingerprint = |toml: &str| load(&spec(toml), Path::new(".")).unwrap().info().fingerprint;
    let digits = "kind = 'bundled'\nname = 'digits'\n";
    assert_eq!(fingerprint(digits), fingerprint(digits));
    assert_ne!(fingerprint(digits), fingerprint(&format!("{digits}split_seed = 1")));
    assert_ne!(fingerprint(digits), fingerprint(&format!("{digits}limit_train = 100")));
}

#[test]
fn limits_keep_every_class() {
    let folder = Folder::new();
    let data =
        folder.load("kind = 'bundled'\nname = 'fashion-mnist'\nlimit_train = 50\nlimit_test = 20").unwrap();
    let count = |labels: &[u32], class| labels.iter().filter(|&&l| l == class).count();
    for class in 0..10 {
        assert_eq!((count(data.train.labels(), class), count(data.test.labels(), class)), (5, 2));
    }
    let error = folder.error("kind = 'bundled'\nname = 'digits'\nlimit_train = 9");
    assert!(matches!(&error, DataError::Spec(e) if e.key.as_deref() == Some("limit_train")), "{error}");
}

#[test]
fn idx_folders_and_files_load_alike_and_split() {
    let folder = Folder::new();
    let pixels: Vec<u8> = (0..6 * 4).collect();
    let images = folder.write("set/train-images.idx3-ubyte", idx(&[6, 2, 2], &pixels));
    let labels = folder.write("set/train-labels-idx1-ubyte", idx(&[6], &[0, 1, 0, 1, 0, 1]));
    folder.write("set/t10k-images-idx3-ubyte", idx(&[2, 2, 2], &pixels[..8]));
    folder.write("set/t10k-labels-idx1-ubyte", idx(&[2], &[0, 1]));
    let whole = folder.load("kind = 'idx'\npath = 'set'").unwrap();
    assert_eq!((whole.train.len(), whole.test.len()), (6, 2));
    assert_eq!(whole.preprocessing.classes(), ["0", "1"]);
    let named = format!(
        "kind = 'idx'\nimages = {images:?}\nlabels = {labels:?}\ntest_fraction = 0.34\nclasses = ['even', 'odd']"
    );
    let split = folder.load(&named).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (4, 2));
    assert_eq!(split.preprocessing.classes(), ["even", "odd"]);

    let three = named.replace("['even', 'odd']", "['a', 'b', 'c']");
    assert_eq!(folder.load(&three).unwrap().info().outputs, 3, "a class without images may be named");
    fs::write(&labels, idx(&[6], &[0, 1, 0, 1, 0, 2])).unwrap();
    let error = folder.error(&named).to_string();
    assert!(
        error.ends_with("sample 5 has class index 2, but there are 2 classes (indices 0 to 1)"),
        "{error}"
    );
    fs::write(&labels, idx(&[6], &[1; 6])).unwrap();
    assert!(matches!(folder.error(&named), DataError::TooFewClasses { found: 1, .. }));
    fs::write(&labels, idx(&[6], &[0, 0, 0, 2, 2, 2])).unwrap();
    assert!(
        matches!(folder.error("kind = 'idx'\npath = 'set'"), DataError::UnseenLabel { class, .. } if class == "1")
    );
    fs::write(&images, &fs::read(&images).unwrap()[..30]).unwrap();
    assert!(matches!(folder.error(&named), DataError::IdxLength { expected: 40, found: 30, .. }));
    fs::remove_file(&labels).unwrap();
    let error = folder.error("kind = 'idx'\npath = 'set'").to_string();
    assert!(error.contains("no such file"), "{error}");
}

#[test]
fn stray_labels_are_named_and_can_be_left_out() {
    let folder = Folder::new();
    let labels: Vec<u8> = (0..600u32).map(|i| (i % 3) as u8).chain([255]).collect();
    folder.write("set/train-images-idx3-ubyte", idx(&[601, 1, 2], &[7, 200].repeat(601)));
    folder.write("set/train-labels-idx1-ubyte", idx(&[601], &labels));
    let error = folder.error("kind = 'idx'\npath = 'set'\ntest_fraction = 0.2").to_string();
    assert!(error.contains("only 1 of 601 labels are 255 (the first is that of image 600"), "{error}");
    assert!(error.contains("`ignore_labels = [255]`"), "{error}");
    folder.write("set/t10k-images-idx3-ubyte", idx(&[4, 1, 2], &[7, 200].repeat(4)));
    folder.write("set/t10k-labels-idx1-ubyte", idx(&[4], &[0, 1, 2, 255]));
    let whole = folder.load("kind = 'idx'\npath = 'set'").unwrap();
    assert!(
        whole.notes[0].contains("252 of 256 classes have no train image (3 to 254)"),
        "{:?}",
        whole.notes
    );
    assert!(whole.notes[1].contains("`ignore_labels = [255]`"), "{:?}", whole.notes);
    let kept = folder.load("kind = 'idx'\npath = 'set'\nignore_labels = [255]").unwrap();
    assert_eq!((kept.train.len(), kept.test.len(), kept.info().outputs), (600, 3, 3));
    assert!(kept.notes[0].contains("1 image(s) left out by `ignore_labels`"), "{:?}", kept.notes);
}

#[test]
fn a_cut_gzip_is_refused() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist-10k");
    let folder = Folder::new();
    for part in ["train", "t10k"] {
        for content in ["images-idx3", "labels-idx1"] {
            let name = format!("{part}-{content}-ubyte.gz");
            let bytes = fs::read(whole.join(&name)).unwrap();
            folder
                .write(&name, if content == "labels-idx1" { &bytes[..] } else { &bytes[..bytes.len() / 2] });
        }
    }
    let error = folder.error("kind = 'idx'\npath = '.'").to_string();
    assert!(error.contains("train-images-idx3-ubyte.gz") && error.contains("end early"), "{error}");
}

#[test]
fn the_full_files_of_a_bundled_set_load_like_the_set() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = load(&spec("kind = 'idx'\npath = 'data/fashion-mnist-10k'"), &base).unwrap();
    let bundled = load(&DataSpec::bundled("fashion-mnist").unwrap(), &base).unwrap();
    assert_eq!(files.info(), bundled.info());
}

#[test]
fn folders_of_images_load_and_split() {
    let folder = pictures();
    let data = folder.load(PICTURES).unwrap();
    assert_eq!(data.preprocessing.classes(), ["dark", "light"]);
    assert_eq!((data.train.len(), data.test.len()), (4, 4));
    assert_eq!(data.train.input(), InputShape::Image { height: 4, width: 5, channels: 3 });
    let Samples::Images(train) = data.train.samples() else { panic!("not images") };
    for (i, &label) in data.train.labels().iter().enumerate() {
        assert_eq!(train.set.image_in_8_bits(i)[0] >= 200, label == 1);
    }
    let resized = folder.load(&format!("{PICTURES}resize = [8, 6]\nchannels = 1")).unwrap();
    assert_eq!(resized.train.input(), InputShape::Image { height: 8, width: 6, channels: 1 });
}

#[test]
fn a_stored_image_predicts_as_it_trained() {
    let folder = pictures();
    for toml in
        [PICTURES.to_owned(), format!("{PICTURES}resize = [3, 3]\nchannels = 1\nmean = [0.25]\nstd = [0.5]")]
    {
        let data = folder.load(&toml).unwrap();
        let stored = serde_json::to_string(&data.preprocessing).unwrap();
        let preprocessing: halfstep_data::Preprocessing = serde_json::from_str(&stored).unwrap();
        let mut batch = Batch::new(data.test.input(), 4);
        data.test.fill_batch(&[0, 1, 2, 3], Draw::AsIs, &mut batch).unwrap();
        let BatchX::F32 { data: x, .. } = batch.x else { panic!("not floats") };
        let all: Vec<Vec<f32>> = (0..4)
            .flat_map(|i| [format!("p/dark/{i}.png"), format!("p/light/{i}.PNG")])
            .map(|name| preprocessing.image().unwrap().image_from_path(&folder.path().join(name)).unwrap())
            .collect();
        for image in x.chunks(x.len() / 4) {
            assert!(all.iter().any(|other| other == image), "a test image is none of the predicted ones");
        }
    }
}

#[test]
fn bad_folders_of_images_are_refused() {
    let change = |change: &dyn Fn(&Folder)| {
        let folder = pictures();
        change(&folder);
        folder
    };
    let empty = change(&|f| fs::create_dir(f.path().join("p/none")).unwrap()).load(PICTURES).unwrap();
    assert_eq!(empty.preprocessing.classes(), ["dark", "light"]);
    assert!(
        empty.notes.iter().any(|note| note == "No class, because without images: `none`."),
        "{:?}",
        empty.notes
    );
    let single = change(&|f| f.image("p/single/0.png", (4, 5, 3), 0));
    assert!(
        matches!(single.error(PICTURES), DataError::ClassTooSmall { class, count: 1 } if class == "single")
    );
    let gray = change(&|f| f.image("p/light/gray.png", (4, 5, 1), 0));
    let error = gray.error(PICTURES);
    assert!(matches!(&error, DataError::MixedChannels { gray, .. } if gray.ends_with("gray.png")), "{error}");
    assert!(gray.load(&format!("{PICTURES}channels = 3")).is_ok());
    let large = change(&|f| f.image("p/light/large.png", (9, 5, 3), 0));
    let error = large.error(PICTURES).to_string();
    assert!(error.contains("large.png is 9x5 (height x width): set `resize"), "{error}");
    assert!(large.load(&format!("{PICTURES}resize = [4, 4]")).is_ok());
    let cut = change(&|f| {
        let path = f.path().join("p/light/2.PNG");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    });
    let error = cut.error(PICTURES);
    assert!(matches!(&error, DataError::TruncatedImage { path, .. } if path.ends_with("2.PNG")), "{error}");
    let webp = change(&|f| drop(f.write("p/light/a.webp", "RIFF\0\0\0\0WEBPVP8 ")));
    assert!(matches!(webp.error(PICTURES), DataError::UnsupportedImage { format: "WebP", .. }));
    let one = change(&|f| fs::remove_dir_all(f.path().join("p/light")).unwrap());
    assert!(matches!(one.error(PICTURES), DataError::TooFewClasses { found: 1, .. }));
    let nothing = change(&|f| {
        fs::remove_dir_all(f.path().join("p")).unwrap();
        fs::create_dir(f.path().join("p")).unwrap();
    });
    assert!(matches!(nothing.error(PICTURES), DataError::Empty { .. }));
    let error = pictures().error(&PICTURES.replace("'p'", "'q'")).to_string();
    assert!(error.contains("no such folder"), "{error}");
    let other = change(&|f| f.image("t/green/0.png", (4, 5, 3), 9));
    let error = other.error("kind = 'images'\npath = 'p'\ntest_path = 't'");
    assert!(matches!(&error, DataError::UnseenLabel { class, .. } if class == "green"), "{error}");
    let one_channel = pictures().error(&format!("{PICTURES}mean = [0.5]\nstd = [0.5]"));
    assert!(matches!(&one_channel, DataError::Spec(e) if e.key.as_deref() == Some("mean")), "{one_channel}");
}

#[test]
fn tables_load_with_encodings_of_the_train_rows() {
    let folder = Folder::new();
    folder.write("train.csv", "x,colour,y\n0,red,a\n2,blue,b\n0,red,a\n2,?,b\n");
    folder.write("test.csv", "y,colour,x\nb,green,4\n");
    let toml = "kind = 'csv'\npath = 'train.csv'\ntest_path = 'test.csv'\ntarget = 'y'";
    let data = folder.load(toml).unwrap();
    assert_eq!(data.info().input, InputShape::Features { count: 4 });
    let mut batch = Batch::new(data.test.input(), 1);
    data.test.fill_batch(&[0], Draw::AsIs, &mut batch).unwrap();
    // Train x: mean 1, standard deviation 1. Green was never seen.
    assert_eq!(batch.x, BatchX::F32 { shape: vec![1, 4], data: vec![3.0, 0.0, 0.0, 0.0] });
    assert_eq!(batch.labels, [1]);
    let stored = serde_json::to_string(&data.preprocessing).unwrap();
    let preprocessing: halfstep_data::Preprocessing = serde_json::from_str(&stored).unwrap();
    assert_eq!(preprocessing, data.preprocessing);
    assert_eq!(
        preprocessing.table().unwrap().rows_from_path(&folder.path().join("test.csv")).unwrap(),
        [3.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(
        preprocessing.table().unwrap().row_from_record(&["colour", "x"], &["red", "1"]).unwrap(),
        [0.0, 0.0, 1.0, 0.0]
    );

    folder.write("test.csv", "y,colour,x\nc,green,4\n");
    assert!(matches!(folder.error(toml), DataError::UnseenLabel { class, .. } if class == "c"));
    folder.write("test.csv", "y,colour,x\na,green,inf\n");
    let error = folder.error(toml).to_string();
    assert!(
        error.ends_with(
            "test.csv: line 2, column `x`: `inf` is not a finite number; correct or remove the row"
        ),
        "{error}"
    );
    let error = folder.error(&toml.replace("'train.csv'", "'trian.csv'")).to_string();
    assert!(error.contains("no such file (did you mean `train.csv`?)"), "{error}");
    let error = folder.error(&toml.replace("'y'", "'color'")).to_string();
    assert!(error.contains("no column `color` (did you mean `colour`?)"), "{error}");
    folder.write("train.csv", b"x,y\n1,\xFF\n");
    assert!(matches!(folder.error(toml), DataError::NotUtf8 { offset: 6, line: 2, .. }));
}

#[test]
fn texts_load_and_refuse() {
    let folder = Folder::new();
    let text = "abc def\n".repeat(100);
    folder.write("a.txt", &text);
    let toml = "kind = 'text'\npath = 'a.txt'\nsequence = 16\n";
    let data = folder.load(toml).unwrap();
    let (Samples::Text(train), Samples::Text(test)) = (data.train.samples(), data.test.samples()) else {
        panic!("not text")
    };
    let all: Vec<u32> = train.tokens().iter().chain(test.tokens()).copied().collect();
    assert_eq!(data.preprocessing.text().unwrap().decode(&all).unwrap(), text);
    assert_eq!(test.tokens().len(), 80 - 8, "the line in which the cut falls stays with the train text");

    assert!(matches!(
        folder.error(&toml.replace("16", "100")),
        DataError::TextTooShort { role: Role::Test, .. }
    ));
    folder.write("a.txt", b"caf\xE9 au lait");
    assert!(matches!(folder.error(toml), DataError::NotUtf8 { offset: 3, line: 1, .. }));
    folder.write("a.txt", "");
    assert!(matches!(folder.error(toml), DataError::Empty { .. }));
}

#[test]
fn text_batches_are_shifted_by_one() {
    let spec = spec("kind = 'bundled'\nname = 'shakespeare'\nsequence = 32");
    let data = load(&spec, Path::new(".")).unwrap();
    let mut sampler = Sampler::new(data.train.len(), 4, 1).unwrap();
    let mut batch = Batch::new(data.train.input(), 4);
    let (draw, indices) = sampler.batch(17);
    data.train.fill_batch(indices, draw, &mut batch).unwrap();
    let BatchX::Tokens { shape, data: x } = &batch.x else { panic!("not tokens") };
    assert_eq!((shape.as_slice(), batch.labels.len()), ([4, 32].as_slice(), 128));
    let Samples::Text(text) = data.train.samples() else { panic!("not text") };
    for row in 0..4 {
        let window: Vec<u32> = x[row * 32..][..32]
            .iter()
            .chain(&batch.labels[row * 32 + 31..][..1])
            .map(|&t| t as u32)
            .collect();
        assert_eq!(x[row * 32 + 1..(row + 1) * 32], batch.labels[row * 32..][..31]);
        assert!(text.tokens().windows(33).any(|w| w == window), "row {row} is not in the text");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let spec: DataSpec = spec("kind = 'bundled'\nname = 'digits'\nflip = true\ncrop_padding = 2");
    let bits = |seed, attempt| {
        let data = load(&spec, Path::new(".")).unwrap();
        let mut batch = Batch::new(data.train.input(), 16);
        let mut sampler = Sampler::new(data.train.len(), 16, seed).unwrap();
        let (draw, indices) = sampler.batch(attempt);
        data.train.fill_batch(indices, draw, &mut batch).unwrap();
        batch
    };
    assert_eq!(bits(5, 100), bits(5, 100));
    assert_ne!(bits(5, 100), bits(6, 100));
    assert_ne!(bits(5, 100), bits(5, 101));
}

#[test]
fn augmentation_changes_train_images_from_epoch_to_epoch_and_never_test_images() {
    let spec: DataSpec = spec("kind = 'bundled'\nname = 'digits'\ncrop_padding = 2");
    let data = load(&spec, Path::new(".")).unwrap();
    let fill = |draw| {
        let mut batch = Batch::new(data.train.input(), 8);
        data.train.fill_batch(&[0, 1, 2, 3, 4, 5, 6, 7], draw, &mut batch).unwrap();
        batch
    };
    assert_ne!(fill(Draw::Random { seed: 0, epoch: 0 }), fill(Draw::Random { seed: 0, epoch: 1 }));
    assert_eq!(fill(Draw::AsIs), fill(Draw::AsIs));
}

#[test]
fn every_test_sample_is_seen_once() {
    let data = load(&DataSpec::bundled("digits").unwrap(), Path::new(".")).unwrap();
    let order = InOrder::new(data.test.len(), 50).unwrap();
    let (mut indices, mut batch) = (vec![0; 50], Batch::new(data.test.input(), 50));
    let mut labels = Vec::new();
    for step in 0..order.steps() {
        let valid = order.batch(step, &mut indices).unwrap();
        data.test.fill_batch(&indices, Draw::AsIs, &mut batch).unwrap();
        labels.extend(batch.labels[..valid].iter().map(|&l| l as u32));
    }
    assert_eq!(labels, data.test.labels());
}

#[test]
fn buffers_and_indices_are_checked() {
    let data = load(&DataSpec::bundled("digits").unwrap(), Path::new(".")).unwrap();
    let batch = |x| Batch { x, labels: vec![0] };
    let floats = |n| batch(BatchX::F32 { shape: vec![1, n], data: vec![0.0; n] });
    let fill = |indices: &[u32], mut batch| data.test.fill_batch(indices, Draw::AsIs, &mut batch);
    let last = data.test.len() as u32;
    let error = fill(&[last], floats(64)).unwrap_err();
    assert!(
        matches!(error, DataError::NoSuchSample { index: 359, samples: 359, role: Role::Test }),
        "{error}"
    );
    let error = fill(&[0], floats(63)).unwrap_err().to_string();
    assert_eq!(error, "input buffer: expected 64 f32, found 63 f32");
    let tokens = batch(BatchX::Tokens { shape: vec![1, 64], data: vec![0; 64] });
    let error = fill(&[0], tokens).unwrap_err().to_string();
    assert_eq!(error, "input buffer: expected 64 f32, found 64 i32 tokens");
    assert!(fill(&[0, 1], floats(64)).is_err());
    let info = data.info();
    assert_eq!(info.steps_per_epoch(100).unwrap(), 14);
    assert!(matches!(
        info.steps_per_epoch(1439),
        Err(DataError::BatchTooLarge { batch: 1439, samples: 1438, .. })
    ));
}

#[test]
fn stored_preprocessing_refuses_other_inputs_and_damage() {
    let data = load(&DataSpec::bundled("digits").unwrap(), Path::new(".")).unwrap();
    let error = data.preprocessing.text().unwrap_err().to_string();
    assert_eq!(error, "the model was trained on images; it cannot take text");
    let stored = serde_json::to_value(&data.preprocessing).unwrap();
    for (key, value) in [("height", 0.into()), ("std", vec![0.0].into()), ("channels", 3.into())] {
        let mut damaged = stored.clone();
        damaged[key] = value;
        let error = serde_json::from_value::<halfstep_data::Preprocessing>(damaged).unwrap_err().to_string();
        assert!(error.contains("stored preprocessing is damaged"), "{key}: {error}");
    }
}

/// They are prepared as the model's inputs are, and change neither train nor test data.
#[test]
fn validation_data_of_their_own_are_loaded_beside_the_others() {
    let folder = Folder::new();
    let table = |from: usize, rows: usize| -> String {
        let row = |i: usize| format!("{},{}\n", i * 3 % 17, ["a", "b"][i % 2]);
        "x,kind\n".to_owned() + &(from..from + rows).map(row).collect::<String>()
    };
    folder.write("train.csv", table(0, 20));
    folder.write("test.csv", table(20, 6));
    folder.write("chosen.csv", table(40, 4));
    let without = "kind = \"csv\"\npath = \"train.csv\"\ntarget = \"kind\"\ntest_path = \"test.csv\"\n";
    let with = without.to_owned() + "validation_path = \"chosen.csv\"\nlimit_test = 3\n";
    let (plain, data) = (folder.load(without).unwrap(), folder.load(&with).unwrap());
    let validation = data.validation.as_ref().unwrap();
    assert_eq!((validation.role(), validation.len(), data.test.len()), (Role::Validation, 4, 3));
    assert_eq!((data.train.clone(), &data.preprocessing), (plain.train, &plain.preprocessing));
    // Nothing more is set aside where there are such data.
    assert_eq!(data.clone().with_validation(0.5).unwrap().train, data.train);
    assert!(plain.validation.is_none() && data.choosing() == validation);

    let alone = with.replace("test_path = \"test.csv\"\n", "");
    let table = toml::de::DeTable::parse(&alone).unwrap().into_inner();
    let error = DataSpec::read(table).unwrap_err().to_string();
    assert!(error.contains("`validation_path`: needs `test_path` beside it"), "{error}");
    let missing = folder.error(&with.replace("chosen.csv", "chosn.csv"));
    assert!(missing.to_string().contains("did you mean `chosen.csv`?"), "{missing}");

    for (part, count) in [("train", 4), ("test", 2), ("val", 3)] {
        for (class, value) in [("dark", 20), ("light", 220)] {
            (0..count).for_each(|i| folder.image(&format!("{part}/{class}/{i}.png"), (4, 4, 1), value + i));
        }
    }
    let images = "kind = \"images\"\npath = \"train\"\ntest_path = \"test\"\nvalidation_path = \"val\"\n";
    let data = folder.load(images).unwrap();
    assert_eq!((data.train.len(), data.validation.unwrap().len(), data.test.len()), (8, 6, 4));
}
