//! Tensors of clients, made of sound ones by changes: none makes their preparation fail, take long
//! or take more memory than is stated, and what is prepared is as the model reads it.

use bytes::Bytes;
use halfstep::data::{DataSpec, Preprocessing, load};
use halfstep::nn::InputSpec;
use halfstep_fuzz::fuzz;
use halfstep_serve::tensor::{Datatype, Tensor};
use toml::de::DeTable;

use super::{Inputs, Samples, X};

/// A picture of 8,388,608 pixels takes eight bytes a pixel in three forms; the rest is for tests
/// that run at the same time.
const MEMORY: usize = 256 << 20;
/// Between elements of BYTES.
const BETWEEN: u8 = 0x1e;

/// A tensor: a line of its name, its type and its extents, and its data. With `fitting`, as many
/// samples as there are data for: changes seldom leave that right.
fn tensor(input: &[u8], fitting: bool) -> Option<Tensor> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    let (head, data) = (std::str::from_utf8(&input[..end]).ok()?, &input[end + 1..]);
    let mut words = head.split(' ');
    let (name, datatype) = (words.next()?, Datatype::named(words.next()?)?);
    let mut shape = words.map(|word| word.parse().ok()).collect::<Option<Vec<usize>>>()?;
    let elements: Vec<&[u8]> = match datatype.size() {
        Some(size) => data.chunks_exact(size).collect(),
        None => data.split(|&byte| byte == BETWEEN).collect(),
    };
    let each = shape.get(1..)?.iter().try_fold(1usize, |all, &extent| all.checked_mul(extent))?;
    let mut count = elements.len();
    if fitting && each > 0 {
        shape[0] = count / each;
        count = shape[0] * each;
    }
    let prefixed = |element: &&[u8]| match datatype {
        Datatype::Bytes => [&(element.len() as u32).to_le_bytes(), *element].concat(),
        _ => element.to_vec(),
    };
    let data: Vec<u8> = elements[..count].iter().flat_map(prefixed).collect();
    Tensor::new(name, datatype, shape, Bytes::from(data)).ok()
}

/// Prepares a tensor, and says what became of it.
fn prepared(inputs: &Inputs, input: &InputSpec, tensor: Option<Tensor>) -> String {
    let Some(tensor) = tensor else { return "no tensor".into() };
    let own = tensor.name().to_string();
    match inputs.prepare(&[tensor]) {
        Ok(prepared) => {
            assert!(prepared.count > 0);
            match &prepared.samples {
                Samples::Numbers(values) => {
                    assert_eq!(values.len(), prepared.count * input.elements());
                    assert!(own == X || values.iter().all(|value| value.is_finite()), "{values:?}");
                }
                Samples::Tokens { windows, last } => {
                    let InputSpec::Tokens { length, vocab } = *input else { panic!("no model of text") };
                    assert_eq!((windows.len(), last.len()), (prepared.count * length, prepared.count));
                    assert!(windows.iter().all(|&token| (0..vocab as i32).contains(&token)), "{windows:?}");
                    assert!(last.iter().all(|&place| place < length), "{last:?}");
                }
            }
            format!("samples of `` {own}")
        }
        Err(why) => why.to_string(),
    }
}

fn run(name: &str, preprocessing: Preprocessing, input: &InputSpec, corpus: &[(&str, &[u8])]) {
    let inputs = Inputs::new(preprocessing, input.clone());
    let corpus: Vec<Vec<u8>> =
        corpus.iter().map(|(head, data)| [head.as_bytes(), b"\n", *data].concat()).collect();
    for input_bytes in &corpus {
        let said = prepared(&inputs, input, tensor(input_bytes, false));
        assert!(said.starts_with("samples"), "{}: {said}", String::from_utf8_lossy(input_bytes));
    }
    fuzz(name, MEMORY, corpus, |bytes| {
        let of = |fitting| prepared(&inputs, input, tensor(bytes, fitting));
        format!("{}; {}", of(false), of(true))
    });
}

#[test]
fn fuzz_samples_of_images() {
    let fields = serde_json::json!({"input": "image", "height": 2, "width": 3, "channels": 1, "mean": [0.5],
        "std": [0.25], "classes": ["a", "b"]});
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 3, 2);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[1, 2, 3, 4, 5, 6]).unwrap();
    let pnm = &b"P5 3 2 255\nabcdef\x1eP3 2 1 255 1 2 3 4 5 6\n"[..];
    // What separates elements cannot be in a picture here.
    assert!(!png.contains(&BETWEEN));
    run(
        "samples of images",
        serde_json::from_value(fields).unwrap(),
        &InputSpec::Image { height: 2, width: 3, channels: 1 },
        &[
            ("image BYTES 2", pnm),
            ("image BYTES 1", &png),
            ("pixels UINT8 2 2 3 1", b"abcdefghijkl"),
            ("x FP32 1 2 3 1", &[0x3f; 24]),
            ("x FP16 1 2 3 1", &[0x7c; 12]),
            ("x BF16 1 2 3 1", &[0xff; 12]),
        ],
    );
}

#[test]
fn fuzz_samples_of_tables() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: u32| {
        let colour = ["red", "blue", "a b"][i as usize % 3];
        format!("{},{colour},2026-01-{:02},{}\n", i % 7, 1 + i % 28, i % 2)
    };
    let text = "size,colour,day,label\n".to_owned() + &(0..90).map(row).collect::<String>();
    std::fs::write(folder.path().join("t.csv"), text).unwrap();
    let fields = DeTable::parse("kind = 'csv'\npath = 't.csv'\ntarget = 'label'").unwrap();
    let dataset = load(&DataSpec::read(fields.into_inner()).unwrap(), folder.path()).unwrap();
    let info = dataset.info();
    let input = halfstep::train::recipe::input_spec(info.input, info.outputs);
    let x = format!("x FP32 1 {}", input.elements());
    let zeros = vec![0; 4 * input.elements()];
    run(
        "samples of tables",
        dataset.preprocessing,
        &input,
        &[
            ("row BYTES 1 3", b"3\x1ered\x1e2026-01-05"),
            ("row BYTES 2 3", b"0.5\x1eblue\x1e2026-01-28\x1e-1e3\x1egreen\x1e2027-12-31"),
            ("row BYTES 1 3", b"-7\x1e\x1e2026-01-28"),
            (&x, &zeros),
        ],
    );
}

#[test]
fn fuzz_samples_of_texts() {
    let fields = serde_json::json!({"input": "text", "tokenizer": {"kind": "bytes"}, "sequence": 4});
    let words = [97i64, 255, 0].map(i64::to_le_bytes).concat();
    run(
        "samples of texts",
        serde_json::from_value(fields).unwrap(),
        &InputSpec::Tokens { length: 4, vocab: 256 },
        &[
            ("text BYTES 2", "Once upon\u{1e}\u{e9}t\u{e9}".as_bytes()),
            ("tokens INT64 1 3", &words),
            ("tokens INT32 2 1", &[1, 0, 0, 0, 255, 0, 0, 0]),
        ],
    );
}
