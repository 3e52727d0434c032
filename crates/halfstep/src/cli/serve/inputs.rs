//! What a client can send: the forms of samples, and how each is prepared as the train data were.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use halfstep::data::{DataError, Preprocessing, TextPreprocessing, Tokenizer, picture_size};
use halfstep::float::{f32_from_bf16, f32_from_f16};
use halfstep::nn::InputSpec;
use halfstep_serve::model::{InputError, Prepared, TensorSpec};
use halfstep_serve::tensor::{Datatype, Tensor};

/// Prepared values of one request, at most: 32 MiB.
const MOST_VALUES: usize = 8 << 20;
/// Pixels of a picture, at most: those of 4096 × 2048. A few bytes can hold many more.
const MOST_PIXELS: usize = 8 << 20;
/// Bytes of a text that becomes byte pairs, at most, for each token of a window: the tokeniser
/// takes up to 640 bytes of memory for one of them.
const TEXT_BYTES_A_TOKEN: usize = 32;
/// So many are taken whatever the window.
const SHORT_TEXT: usize = 16 << 10;
/// Pixels of a picture that is decoded beside others; larger ones are decoded one at a time.
const SMALL_PICTURE: usize = 1 << 18;

/// The input of samples that are prepared already.
pub const X: &str = "x";
/// Pixels in 8 bits of the model's own size.
pub const PIXELS: &str = "pixels";
/// Pictures as files.
pub const IMAGE: &str = "image";
/// Cells of table rows, in the order of the columns.
pub const ROW: &str = "row";
/// Tokens of the beginnings of texts.
pub const TOKENS: &str = "tokens";
/// Beginnings of texts.
pub const TEXT: &str = "text";

/// Samples as the model reads them.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Of a model of numbers, one after another.
    Numbers(Vec<f32>),
    /// Of a model of text: windows, filled up at the end, and the place of the last token in each.
    Tokens { windows: Vec<i32>, last: Vec<usize> },
}

/// Bytes of memory that preparing a tensor takes besides its samples, at most.
pub fn memory(tensor: &Tensor) -> usize {
    let elements = || tensor.shape().iter().fold(1usize, |all, &extent| all.saturating_mul(extent));
    match tensor.name() {
        // A cell is in lists as bytes, as text, in its row, and in a string of its own.
        ROW => elements().saturating_mul(192).saturating_add(tensor.data().len().saturating_mul(4)),
        // As words of 64 and of 32 bits, and in its text.
        TOKENS => elements().saturating_mul(16),
        // A token has a byte at least, and is in two lists, which may have room for twice as many.
        TEXT => tensor.data().len().saturating_mul(16),
        _ => 0,
    }
}

/// What turns tensors into samples.
pub struct Inputs {
    preprocessing: Preprocessing,
    input: InputSpec,
    large_pictures: Mutex<()>,
}

impl Inputs {
    /// For a model of this kind.
    pub fn new(preprocessing: Preprocessing, input: InputSpec) -> Inputs {
        Inputs { preprocessing, input, large_pictures: Mutex::new(()) }
    }

    /// The forms; a request has one of them.
    pub fn specs(&self) -> Vec<TensorSpec> {
        let spec = |name: &str, datatype, shape: &[Option<usize>]| {
            let shape = [&[None], shape].concat();
            TensorSpec { name: name.into(), datatype, shape }
        };
        match (&self.preprocessing, &self.input) {
            (Preprocessing::Text(_), _) | (_, InputSpec::Tokens { .. }) => {
                vec![spec(TEXT, Datatype::Bytes, &[]), spec(TOKENS, Datatype::Int32, &[None])]
            }
            (Preprocessing::Table(table), input) => vec![
                spec(ROW, Datatype::Bytes, &[Some(table.column_names().len())]),
                spec(X, Datatype::Fp32, &[Some(input.elements())]),
            ],
            (Preprocessing::Image(image), _) => {
                let own = image.shape().map(Some);
                vec![
                    spec(IMAGE, Datatype::Bytes, &[]),
                    spec(PIXELS, Datatype::Uint8, &own),
                    spec(X, Datatype::Fp32, &own),
                ]
            }
        }
    }

    /// The samples of a request.
    ///
    /// # Errors
    /// What the client sent is none of the forms, or cannot be prepared.
    pub fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared<Samples>, InputError> {
        let specs = self.specs();
        let forms = || specs.iter().map(|s| format!("`{}`", s.name)).collect::<Vec<_>>().join(" or ");
        let [tensor] = inputs else {
            let sent = inputs.len();
            return Err(refuse(format!("{sent} inputs were sent; this model takes one: {}", forms())));
        };
        let spec = specs.iter().find(|spec| spec.name == tensor.name()).ok_or_else(|| {
            refuse(format!("there is no input `{}`; this model takes {}", short(tensor.name()), forms()))
        })?;
        let count = self.check(spec, tensor)?;
        if count.saturating_mul(self.input.elements()) > MOST_VALUES {
            return Err(refuse(format!(
                "{count} samples are too many for one request; at most {} are taken",
                MOST_VALUES / self.input.elements()
            )));
        }
        let samples = match (spec.name.as_str(), &self.preprocessing) {
            (TOKENS, _) => self.tokens(tensor)?,
            (TEXT, Preprocessing::Text(text)) => self.texts(text, tensor)?,
            (PIXELS, Preprocessing::Image(image)) => Samples::Numbers(image.normalise(tensor.data())),
            (IMAGE, Preprocessing::Image(_)) => self.pictures(tensor)?,
            (ROW, Preprocessing::Table(table)) => {
                let cells: Vec<_> = tensor.elements().collect();
                let texts = cells.iter().map(|cell| utf8(cell)).collect::<Result<Vec<_>, _>>()?;
                let rows: Vec<Vec<&str>> =
                    texts.chunks(table.column_names().len().max(1)).map(<[&str]>::to_vec).collect();
                Samples::Numbers(table.rows_from_cells(&rows).map_err(unprepared)?)
            }
            _ => Samples::Numbers(numbers(tensor)),
        };
        Ok(Prepared { count, samples })
    }

    /// The number of samples in a tensor of this form.
    fn check(&self, spec: &TensorSpec, tensor: &Tensor) -> Result<usize, InputError> {
        let name = &spec.name;
        let given = tensor.datatype();
        let other = match spec.datatype {
            Datatype::Fp32 => matches!(given, Datatype::Fp16 | Datatype::Bf16),
            Datatype::Int32 => given == Datatype::Int64,
            _ => false,
        };
        if given != spec.datatype && !other {
            let (given, wanted) = (given.name(), spec.datatype.name());
            return Err(refuse(format!("input `{name}` is {given}; this model takes {wanted}")));
        }
        let fits = |(wanted, &given): (&Option<usize>, &usize)| wanted.is_none_or(|n| n == given);
        let shape = tensor.shape();
        if shape.len() != spec.shape.len() || !spec.shape.iter().zip(shape).all(fits) {
            let wanted: Vec<String> =
                spec.shape.iter().map(|n| n.map_or("any number".into(), |n| n.to_string())).collect();
            let wanted = wanted.join(", ");
            return Err(refuse(format!("input `{name}` is {shape:?}; this model takes [{wanted}]")));
        }
        match shape[0] {
            0 => Err(refuse(format!("input `{name}` has no samples"))),
            count => Ok(count),
        }
    }

    fn pictures(&self, tensor: &Tensor) -> Result<Samples, InputError> {
        let image = self.preprocessing.image().map_err(unprepared)?;
        let mut values = Vec::with_capacity(tensor.shape()[0] * self.input.elements());
        for (place, bytes) in tensor.elements().enumerate() {
            let name = format!("image {place}");
            let name = Path::new(&name);
            let (height, width) = picture_size(&bytes, name).map_err(unprepared)?;
            let pixels = height.saturating_mul(width);
            if pixels > MOST_PIXELS {
                return Err(refuse(format!(
                    "image {place} has {height} × {width} pixels; at most {MOST_PIXELS} are taken"
                )));
            }
            let one_at_a_time = (pixels > SMALL_PICTURE)
                .then(|| self.large_pictures.lock().unwrap_or_else(PoisonError::into_inner));
            values.extend(image.image_from_bytes(&bytes, name).map_err(unprepared)?);
            drop(one_at_a_time);
        }
        Ok(Samples::Numbers(values))
    }

    fn texts(&self, text: &TextPreprocessing, tensor: &Tensor) -> Result<Samples, InputError> {
        let length = self.input.elements();
        let most = match text.tokenizer() {
            Tokenizer::Bytes => usize::MAX,
            Tokenizer::Bpe(_) => SHORT_TEXT.max(length.saturating_mul(TEXT_BYTES_A_TOKEN)),
        };
        let encode = |(place, bytes): (usize, Bytes)| match bytes.len() {
            long if long > most => Err(refuse(format!(
                "text {place} has {long} bytes; at most {most} are taken, of which the last {length} tokens \
                 count: send its end"
            ))),
            _ => text.encode(utf8(&bytes)?).map_err(unprepared),
        };
        self.windows(tensor.elements().enumerate().map(encode).collect::<Result<Vec<_>, InputError>>()?)
    }

    fn tokens(&self, tensor: &Tensor) -> Result<Samples, InputError> {
        let InputSpec::Tokens { vocab, .. } = self.input else {
            return Err(refuse("this model takes no tokens".into()));
        };
        let all: Vec<i64> = match tensor.datatype() {
            Datatype::Int64 => words(tensor).map(i64::from_le_bytes).collect(),
            _ => words(tensor).map(|word| i64::from(i32::from_le_bytes(word))).collect(),
        };
        let token = |&token: &i64| {
            u32::try_from(token).ok().filter(|&t| (t as usize) < vocab).ok_or_else(|| {
                refuse(format!("token {token} is none of the {vocab} tokens from 0 that this model knows"))
            })
        };
        let tokens = all.iter().map(token).collect::<Result<Vec<u32>, _>>()?;
        let own = tensor.shape()[1];
        if own == 0 {
            return Err(refuse(format!("input `{TOKENS}` has no token to continue")));
        }
        self.windows(tokens.chunks(own).map(<[u32]>::to_vec).collect())
    }

    /// The last tokens of each text, as many as a window has.
    fn windows(&self, texts: Vec<Vec<u32>>) -> Result<Samples, InputError> {
        let length = self.input.elements();
        let (mut windows, mut last) = (Vec::with_capacity(texts.len() * length), Vec::new());
        for (place, tokens) in texts.iter().enumerate() {
            let seen = &tokens[tokens.len().saturating_sub(length)..];
            let end = seen.len().checked_sub(1);
            last.push(end.ok_or_else(|| refuse(format!("text {place} has no token to continue")))?);
            windows.extend(seen.iter().map(|&token| token as i32));
            // The rest of a short window changes nothing before it: attention looks back only.
            windows.resize(last.len() * length, 0);
        }
        Ok(Samples::Tokens { windows, last })
    }
}

/// Numbers of a tensor of FP32, FP16 or BF16; every one is exact in f32.
fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.datatype() {
        Datatype::Fp16 => words(tensor).map(|word| f32_from_f16(u16::from_le_bytes(word))).collect(),
        Datatype::Bf16 => words(tensor).map(|word| f32_from_bf16(u16::from_le_bytes(word))).collect(),
        _ => words(tensor).map(f32::from_le_bytes).collect(),
    }
}

/// The elements of a tensor of `N` bytes each.
fn words<const N: usize>(tensor: &Tensor) -> impl Iterator<Item = [u8; N]> {
    tensor.data().as_chunks::<N>().0.iter().copied()
}

fn utf8(bytes: &[u8]) -> Result<&str, InputError> {
    std::str::from_utf8(bytes).map_err(|e| refuse(format!("a text is not UTF-8: {e}")))
}

fn unprepared(error: DataError) -> InputError {
    refuse(error.to_string())
}

fn refuse(why: String) -> InputError {
    InputError(why)
}

/// The beginning of a client's text, for a message.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inputs(preprocessing: serde_json::Value, input: InputSpec) -> Inputs {
        Inputs::new(serde_json::from_value(preprocessing).unwrap(), input)
    }

    fn image() -> Inputs {
        let fields = json!({"input": "image", "height": 1, "width": 2, "channels": 1, "mean": [0.5], "std": [0.25],
            "classes": ["a", "b"]});
        inputs(fields, InputSpec::Image { height: 1, width: 2, channels: 1 })
    }

    fn text() -> Inputs {
        let fields = json!({"input": "text", "tokenizer": {"kind": "bytes"}, "sequence": 4});
        inputs(fields, InputSpec::Tokens { length: 4, vocab: 256 })
    }

    fn tensor(name: &str, datatype: Datatype, shape: &[usize], data: &[u8]) -> Tensor {
        Tensor::new(name, datatype, shape.to_vec(), Bytes::copy_from_slice(data)).unwrap()
    }

    fn strings(name: &str, texts: &[&[u8]]) -> Tensor {
        let element = |text: &&[u8]| [&(text.len() as u32).to_le_bytes(), *text].concat();
        let data: Vec<u8> = texts.iter().flat_map(element).collect();
        tensor(name, Datatype::Bytes, &[texts.len()], &data)
    }

    fn refused(inputs: &Inputs, tensor: Tensor) -> String {
        inputs.prepare(&[tensor]).err().unwrap().0
    }

    #[test]
    fn forms_of_an_image_agree() {
        let image = image();
        // (0 − 0.5) / 0.25 and (1 − 0.5) / 0.25.
        let expected = Samples::Numbers(vec![-2.0, 2.0]);
        let prepared = |tensor: Tensor| image.prepare(&[tensor]).unwrap();
        let pixels = prepared(tensor(PIXELS, Datatype::Uint8, &[1, 1, 2, 1], &[0, 255]));
        assert_eq!((pixels.count, pixels.samples), (1, expected.clone()));
        assert_eq!(prepared(strings(IMAGE, &[b"P5 2 1 255\n\x00\xff"])).samples, expected);
        let x = |datatype, data: &[u8]| prepared(tensor(X, datatype, &[1, 1, 2, 1], data)).samples;
        let f32s = [(-2f32).to_le_bytes(), 2f32.to_le_bytes()].concat();
        assert_eq!(x(Datatype::Fp32, &f32s), expected);
        assert_eq!(x(Datatype::Bf16, &[0x00, 0xc0, 0x00, 0x40]), expected);
        assert_eq!(x(Datatype::Fp16, &[0x00, 0xc0, 0x00, 0x40]), expected);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let image = image();
        let bomb = strings(IMAGE, &[b"P5 40000 20000 255\n"]);
        let said = refused(&image, bomb);
        assert!(said.contains("20000 × 40000 pixels; at most 8388608"), "{said}");
        let cut = strings(IMAGE, &[b"P5 2 1 255\n\x00"]);
        assert!(refused(&image, cut).contains("image 0"));
        let none = tensor(PIXELS, Datatype::Uint8, &[0, 1, 2, 1], &[]);
        assert!(refused(&image, none).contains("has no samples"));
        let turned = tensor(PIXELS, Datatype::Uint8, &[1, 2, 1, 1], &[0, 0]);
        assert!(refused(&image, turned).contains("takes [any number, 1, 2, 1]"));
        let many = tensor(PIXELS, Datatype::Uint8, &[1 << 23, 1, 2, 1], &vec![0; 1 << 24]);
        assert!(refused(&image, many).contains("at most 4194304 are taken"));
    }

    #[cfg(feature = "bpe")]
    #[test]
    fn a_long_text_in_byte_pairs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.txt"), "the cat and the hat\n".repeat(100)).unwrap();
        let fields = "kind = 'text'\npath = 't.txt'\nsequence = 8\ntokenizer = 'bpe'\nvocab_size = 300";
        let fields = toml::de::DeTable::parse(fields).unwrap().into_inner();
        let dataset = halfstep::data::load(&halfstep::data::DataSpec::read(fields).unwrap(), folder.path());
        let input = InputSpec::Tokens { length: 8, vocab: 300 };
        let text = Inputs::new(dataset.unwrap().preprocessing, input);
        assert!(text.prepare(&[strings(TEXT, &[&[b'a'; SHORT_TEXT]])]).is_ok());
        let said = refused(&text, strings(TEXT, &[b"a", &[b'a'; SHORT_TEXT + 1]]));
        assert!(
            said.contains("text 1 has 16385 bytes; at most 16384 are taken, of which the last 8"),
            "{said}"
        );
    }

    #[test]
    fn texts_and_their_tokens_agree() {
        let text = text();
        let expected = Samples::Tokens { windows: vec![98, 99, 100, 101, 97, 0, 0, 0], last: vec![3, 0] };
        assert_eq!(text.prepare(&[strings(TEXT, &[b"abcde", b"a"])]).unwrap().samples, expected);
        let words = |words: &[i64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let tokens = tensor(TOKENS, Datatype::Int64, &[1, 5], &words(&[97, 98, 99, 100, 101]));
        let expected = Samples::Tokens { windows: vec![98, 99, 100, 101], last: vec![3] };
        assert_eq!(text.prepare(&[tokens]).unwrap().samples, expected);

        let foreign = tensor(TOKENS, Datatype::Int64, &[1, 1], &words(&[256]));
        assert!(refused(&text, foreign).contains("token 256 is none of the 256"));
        assert!(refused(&text, strings(TEXT, &[b"a", b""])).contains("text 1 has no token"));
        assert!(refused(&text, strings(TEXT, &[b"\xff"])).contains("not UTF-8"));
        let none = tensor(TOKENS, Datatype::Int32, &[1, 0], &[]);
        assert!(refused(&text, none).contains("no token to continue"));
    }
}
