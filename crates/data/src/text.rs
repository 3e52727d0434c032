//! Texts as tokens, and windows of them.

#[cfg(feature = "bpe")]
mod bpe;
#[cfg(not(feature = "bpe"))]
#[path = "text/no_bpe.rs"]
mod bpe;
pub(crate) mod corpus;

use serde::{Deserialize, Serialize};

use crate::batch::Draw;
use crate::draws::{DrawPurpose, Stream};
use crate::error::{DataError, Role};
use crate::spec::{TextOptions, TokenizerSpec};

pub use bpe::Bpe;

/// How text becomes tokens and back; stored with the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Tokenizer {
    /// Each byte of the UTF-8 text is a token.
    Bytes,
    /// Byte-level byte-pair encoding (Sennrich et al., 2016; on bytes as in GPT-2).
    Bpe(Bpe),
}

/// What turns text into the model's tokens; stored with the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPreprocessing {
    tokenizer: Tokenizer,
    sequence: usize,
}

impl TextPreprocessing {
    /// Trains a tokeniser on the train text where one has to be trained.
    pub(crate) fn fit(train: &str, options: TextOptions) -> Result<Self, DataError> {
        let tokenizer = match options.tokenizer {
            TokenizerSpec::Bytes => Tokenizer::Bytes,
            TokenizerSpec::Bpe { vocab_size } => Tokenizer::Bpe(Bpe::train(train, vocab_size)?),
        };
        Ok(TextPreprocessing { tokenizer, sequence: options.sequence })
    }

    /// The tokeniser.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens of a window.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// Number of different tokens; every token is less.
    pub fn vocabulary(&self) -> usize {
        match &self.tokenizer {
            Tokenizer::Bytes => 256,
            Tokenizer::Bpe(bpe) => bpe.vocabulary(),
        }
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// If the byte-pair tokeniser fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.tokenizer {
            Tokenizer::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Tokenizer::Bpe(bpe) => bpe.encode(text),
        }
    }

    /// The text of tokens. Tokens can end inside a character: what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        let size = self.vocabulary();
        if let Some(token) = tokens.iter().find(|&&t| t as usize >= size) {
            return Err(DataError::Tokenizer {
                reason: format!("token {token} is not in the vocabulary of {size}"),
            });
        }
        match &self.tokenizer {
            Tokenizer::Bytes => {
                let bytes: Vec<u8> = tokens.iter().map(|&t| t as u8).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Tokenizer::Bpe(bpe) => bpe.decode(tokens),
        }
    }
}

/// A text ready to be drawn in windows: `sequence` tokens as input and, shifted by one, as target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSamples {
    tokens: Vec<u32>,
    sequence: usize,
}

impl TextSamples {
    pub(crate) fn new(
        tokens: Vec<u32>,
        sequence: usize,
        limit: Option<usize>,
        role: Role,
    ) -> Result<Self, DataError> {
        if tokens.is_empty() {
            return Err(DataError::Empty { what: format!("the {role} text"), unit: "byte of text" });
        }
        if tokens.len() < sequence + 1 {
            return Err(DataError::TextTooShort { role, tokens: tokens.len(), needed: sequence + 1 });
        }
        if tokens.len() > u32::MAX as usize {
            return Err(DataError::TooManySamples { what: format!("the {role} text"), found: tokens.len() });
        }
        let mut tokens = tokens;
        if let Some(windows) = limit {
            tokens.truncate(windows.saturating_mul(sequence).saturating_add(1));
        }
        Ok(TextSamples { tokens, sequence })
    }

    /// Cuts off the end: about a fraction of the tokens, but at least one window.
    ///
    /// # Errors
    /// What is left of it is shorter than a window.
    pub(crate) fn split_end(&self, fraction: f64, role: Role) -> Result<(Self, Self), DataError> {
        let least = self.sequence + 1;
        let end = ((self.tokens.len() as f64 * fraction).round() as usize).max(least);
        let kept = self.tokens.len().saturating_sub(end);
        if kept < least {
            return Err(DataError::TextTooShort { role, tokens: kept, needed: least });
        }
        let (kept, end) = self.tokens.split_at(kept);
        let part = |tokens: &[u32]| TextSamples { tokens: tokens.to_vec(), sequence: self.sequence };
        Ok((part(kept), part(end)))
    }

    /// All tokens, in order.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Windows that do not overlap: an epoch draws so many.
    pub(crate) fn len(&self) -> usize {
        (self.tokens.len() - 1) / self.sequence
    }

    pub(crate) fn sequence(&self) -> usize {
        self.sequence
    }

    /// First token of a window: in order they lie side by side, at random they start anywhere.
    pub(crate) fn start(&self, index: u32, draw: Draw) -> usize {
        match draw {
            Draw::AsIs => index as usize * self.sequence,
            Draw::Random { seed, epoch } => {
                let starts = (self.tokens.len() - self.sequence) as u32;
                Stream::new(seed, DrawPurpose::Window, epoch, index).below(starts) as usize
            }
        }
    }

    pub(crate) fn write(&self, index: u32, draw: Draw, input: &mut [i32], target: &mut [i32]) {
        let window = &self.tokens[self.start(index, draw)..][..=self.sequence];
        for (to, &token) in input.iter_mut().zip(window) {
            *to = token as i32;
        }
        for (to, &token) in target.iter_mut().zip(&window[1..]) {
            *to = token as i32;
        }
    }
}

/// Cuts the end off a text, at a character and, where one is near, at a line.
pub(crate) fn split_tail(text: &str, fraction: f64) -> (&str, &str) {
    let mut cut = ((text.len() as f64) * (1.0 - fraction)).round() as usize;
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    // The rest of the line, if it is short, stays with the train text.
    if let Some(end) = text.as_bytes()[cut..].iter().take(200).position(|&b| b == b'\n')
        && cut + end + 1 < text.len()
    {
        cut += end + 1;
    }
    text.split_at(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_decode_to_what_was_encoded(text: String) {
            let fitted = TextPreprocessing::fit("", TextOptions::default()).unwrap();
            prop_assert_eq!(fitted.decode(&fitted.encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn a_tail_split_loses_nothing(text in "[a-zé\n]{2,400}", fraction in 0.05f64..0.95) {
            let (train, test) = split_tail(&text, fraction);
            prop_assert_eq!(format!("{train}{test}"), text);
        }

        #[test]
        fn windows_are_shifted_by_one_and_inside(n in 5usize..200, sequence in 1usize..5, seed: u64, epoch: u32) {
            let samples = TextSamples::new((0..n as u32).collect(), sequence, None, Role::Train).unwrap();
            let (mut x, mut y) = (vec![0; sequence], vec![0; sequence]);
            for index in 0..samples.len() as u32 {
                samples.write(index, Draw::Random { seed, epoch }, &mut x, &mut y);
                prop_assert!(x.iter().zip(&y).all(|(a, b)| a + 1 == *b));
                samples.write(index, Draw::AsIs, &mut x, &mut y);
                prop_assert_eq!(x[0] as usize, index as usize * sequence);
            }
        }
    }

    #[test]
    fn random_windows_reach_both_ends() {
        let samples = TextSamples::new((0..10).collect(), 7, None, Role::Train).unwrap();
        let starts: std::collections::BTreeSet<usize> =
            (0..100).map(|epoch| samples.start(0, Draw::Random { seed: 1, epoch })).collect();
        assert_eq!(starts.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn too_short_a_text_says_what_is_needed() {
        let error = TextSamples::new(vec![1; 8], 8, None, Role::Test).unwrap_err().to_string();
        assert!(
            error.starts_with("the test text has 8 tokens, but one window needs 9 (`sequence` + 1)"),
            "{error}"
        );
        assert_eq!(TextSamples::new(vec![1; 9], 8, None, Role::Test).unwrap().len(), 1);
        assert_eq!(TextSamples::new(vec![1; 90], 8, Some(3), Role::Test).unwrap().len(), 3);
    }

    #[test]
    fn unknown_tokens_are_refused() {
        let fitted = TextPreprocessing::fit("", TextOptions::default()).unwrap();
        assert!(fitted.decode(&[72, 105, 256]).unwrap_err().to_string().contains("token 256"));
        assert_eq!(fitted.decode(&[72, 0xE2, 0x82]).unwrap(), "H\u{FFFD}");
    }
}
