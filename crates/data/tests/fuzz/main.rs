//! What clients of a server send to be prepared, on inputs that were made of sound ones by
//! changes: no picture, cell or text makes its parser fail, take long or take more memory than its
//! size allows.

use std::path::Path;

use halfstep_data::{DataSpec, Preprocessing, load, picture_size};
use halfstep_fuzz::fuzz;
use toml::de::DeTable;

/// Pixels of a picture that is decoded.
const PIXELS: usize = 1 << 18;
/// Memory for one: eight bytes a pixel, in three forms, and what the decoders keep.
const MEMORY: usize = 3 * 8 * PIXELS + (4 << 20);
/// Bytes of an input, at most.
const LONGEST: usize = 64 << 10;

fn png(width: u32, height: u32, colour: png::ColorType, depth: png::BitDepth) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![0, 10, 20, 255, 128, 0]);
        encoder.set_trns(vec![0, 255]);
    }
    let length = (width as usize * colour.samples() * depth as usize).div_ceil(8);
    let data: Vec<u8> = (0..length * height as usize).map(|i| (i * 37 % 256) as u8).collect();
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    bytes
}

fn jpeg(colour: jpeg_encoder::ColorType, progressive: Option<u8>) -> Vec<u8> {
    let channels = if colour == jpeg_encoder::ColorType::Luma { 1 } else { 3 };
    let data: Vec<u8> = (0..16 * 9 * channels).map(|i| (i * 29 % 256) as u8).collect();
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 80);
    if let Some(scans) = progressive {
        encoder.set_progressive_scans(scans);
    }
    encoder.encode(&data, 16, 9, colour).unwrap();
    bytes
}

#[test]
fn pictures() {
    use jpeg_encoder::ColorType::{Luma, Rgb};
    use png::{BitDepth, ColorType};
    let fields = r#"{"input": "image", "height": 4, "width": 5, "channels": 3, "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25], "classes": ["a", "b"]}"#;
    let preprocessing: Preprocessing = serde_json::from_str(fields).unwrap();
    let image = preprocessing.image().unwrap();
    let corpus = vec![
        png(3, 2, ColorType::Rgb, BitDepth::Eight),
        png(9, 5, ColorType::Grayscale, BitDepth::One),
        png(4, 4, ColorType::Rgba, BitDepth::Sixteen),
        png(8, 3, ColorType::Indexed, BitDepth::One),
        jpeg(Luma, None),
        jpeg(Rgb, None),
        jpeg(Rgb, Some(4)),
        b"P5 2 3 255\n\x00\x01\x02\x03\x04\x05".to_vec(),
        b"P6 # a comment\n1 1 65535\n\x00\x01\x02\x03\x04\x05".to_vec(),
        b"P3 2 1 255 1 2 3 4 5 6\n".to_vec(),
        b"P1 2 2 1 0 0 1".to_vec(),
        b"P4 9 1\n\xff\x80".to_vec(),
    ];
    let name = Path::new("image");
    let decoded = corpus.iter().filter(|bytes| image.image_from_bytes(bytes, name).is_ok()).count();
    assert!(decoded > 8, "{decoded} pictures are sound");
    fuzz("pictures", MEMORY, corpus, |input| {
        let (height, width) = match picture_size(input, name) {
            Ok(size) => size,
            Err(why) => return why.to_string(),
        };
        if height.saturating_mul(width) > PIXELS {
            return "large".into();
        }
        match image.image_from_bytes(input, name) {
            Ok(values) => {
                assert_eq!(values.len(), 4 * 5 * 3);
                assert!(values.iter().all(|value| (-2.0..=2.0).contains(value)), "{values:?}");
                "a picture".into()
            }
            Err(why) => why.to_string(),
        }
    });
}

#[test]
fn cells() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: u32| {
        format!("{},{},2026-01-{:02},{}\n", i % 7, ["red", "blue"][i as usize % 2], 1 + i % 28, i % 2)
    };
    let text = "size,colour,day,label\n".to_owned() + &(0..80).map(row).collect::<String>();
    std::fs::write(folder.path().join("t.csv"), text).unwrap();
    let fields = "kind = 'csv'\npath = 't.csv'\ntarget = 'label'";
    let spec = DataSpec::read(DeTable::parse(fields).unwrap().into_inner()).unwrap();
    let preprocessing = load(&spec, folder.path()).unwrap().preprocessing;
    let Preprocessing::Table(table) = &preprocessing else { panic!("no table") };
    let columns = table.column_names().len();
    // Cells, one on a line.
    let corpus = [
        "3\nred\n2026-01-05",
        "0.5\nblue\n2026-01-28\n-1e3\ngreen\n2027-12-31",
        "\nNA\n",
        "1,5\nred\n05.01.2026",
    ];
    let corpus = corpus.map(|text| text.as_bytes().to_vec()).to_vec();
    fuzz("cells", 32 << 20, corpus, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "no text".into() };
        let cells: Vec<&str> = text.split('\n').collect();
        let rows: Vec<Vec<&str>> = cells.chunks(columns).map(<[&str]>::to_vec).collect();
        match table.rows_from_cells(&rows) {
            Ok(values) => {
                assert_eq!(values.len() % rows.len(), 0);
                assert!(values.iter().all(|value| value.is_finite()), "{values:?}");
                "rows".into()
            }
            Err(why) => why.to_string(),
        }
    });
}

/// Texts by a tokeniser: tokens are of the vocabulary, not more than bytes, and give the text back.
fn texts_by(name: &str, tokenizer: &str, memory: usize) {
    let folder = tempfile::tempdir().unwrap();
    let line = |i: u32| {
        format!(
            "{i}: the cat's hat, \u{e9}t\u{e9} na\u{ef}ve \u{4e2d}\u{6587} {}\n",
            "ha".repeat(i as usize % 9)
        )
    };
    std::fs::write(folder.path().join("t.txt"), (0..200).map(line).collect::<String>()).unwrap();
    let fields = format!("kind = 'text'\npath = 't.txt'\nsequence = 8\n{tokenizer}");
    let spec = DataSpec::read(DeTable::parse(&fields).unwrap().into_inner()).unwrap();
    let preprocessing = load(&spec, folder.path()).unwrap().preprocessing;
    let Preprocessing::Text(text) = preprocessing else { panic!("no text") };
    let corpus = [
        "Once upon a time",
        "the cat's hat, \u{e9}t\u{e9}\n\n  12:30\ttabs\r\n",
        "\u{4e2d}\u{6587} \u{1f600}\u{200d}\u{1f469} e\u{301} \u{feff}\u{202e}abc",
        &"ha".repeat(300),
        &" \n".repeat(200),
        "<|endoftext|> [UNK] \u{120}the",
        &"a ".repeat(1 << 12),
    ];
    let corpus = corpus.map(|text| text.as_bytes().to_vec()).to_vec();
    fuzz(name, memory, corpus, |input| {
        let Ok(given) = std::str::from_utf8(input) else { return "no text".into() };
        match text.encode(given) {
            Ok(tokens) => {
                assert!(
                    tokens.len() <= given.len() && tokens.iter().all(|&t| (t as usize) < text.vocabulary())
                );
                assert_eq!(text.decode(&tokens).unwrap(), given);
                // By magnitude, so that longer ones are kept.
                format!("tokens {}", char::from(b'a' + tokens.len().checked_ilog2().unwrap_or(0) as u8))
            }
            Err(why) => why.to_string(),
        }
    });
}

#[test]
fn texts() {
    // A token has four bytes, in a list that may have room for twice as many; the rest is to
    // decode.
    texts_by("texts", "", 16 * LONGEST);
}

#[cfg(feature = "bpe")]
#[test]
fn texts_as_byte_pairs() {
    // The places of each word are kept in several lists: 488 bytes were measured for a byte of
    // text, where each is a word.
    texts_by("texts as byte pairs", "tokenizer = 'bpe'\nvocab_size = 400", 640 * LONGEST);
}
