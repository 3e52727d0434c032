//! Byte-level byte-pair encoding through the `tokenizers` crate.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::DataError;

/// Text is encoded in pieces of about this many bytes, so that a long one does not need many times
/// its size in memory.
const PIECE: usize = 1 << 16;

/// A trained byte-pair tokeniser. Every text can be encoded, as the 256 bytes are among its tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Bpe {
    // Boxed: a tokeniser is 1.5 kB, and `Tokenizer::Bytes` beside it nothing.
    tokenizer: Box<Tokenizer>,
    definition: String,
}

/// What is written: the `tokenizer.json` of the `tokenizers` crate, as a string.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    vocabulary: usize,
    definition: String,
}

fn failed(error: impl std::fmt::Display) -> DataError {
    DataError::Tokenizer { reason: error.to_string() }
}

impl PartialEq for Bpe {
    fn eq(&self, other: &Self) -> bool {
        self.definition == other.definition
    }
}

impl TryFrom<Stored> for Bpe {
    type Error = DataError;

    fn try_from(stored: Stored) -> Result<Self, DataError> {
        let tokenizer = Tokenizer::from_str(&stored.definition).map_err(failed)?;
        if tokenizer.get_vocab_size(true) != stored.vocabulary {
            let (found, promised) = (tokenizer.get_vocab_size(true), stored.vocabulary);
            let reason = format!("a tokeniser of {found} tokens where {promised} were stored");
            return Err(DataError::BadPreprocessing { reason });
        }
        Ok(Bpe { tokenizer: Box::new(tokenizer), definition: stored.definition })
    }
}

impl From<Bpe> for Stored {
    fn from(bpe: Bpe) -> Self {
        Stored { vocabulary: bpe.vocabulary(), definition: bpe.definition }
    }
}

impl Bpe {
    /// Learns at most `vocab_size` tokens, the 256 bytes included. Words are parted as GPT-2 does;
    /// a pair must occur twice.
    pub(crate) fn train(text: &str, vocab_size: usize) -> Result<Self, DataError> {
        let bytes = ByteLevel::new(false, true, true);
        let mut tokenizer = Tokenizer::new(ModelWrapper::BPE(BPE::default()));
        tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(Vec::<AddedToken>::new())
            .build();
        let mut trainer = TrainerWrapper::BpeTrainer(trainer);
        tokenizer.train(&mut trainer, pieces(text)).map_err(failed)?;
        let definition = tokenizer.to_string(false).map_err(failed)?;
        Ok(Bpe { tokenizer: Box::new(tokenizer), definition })
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut tokens = Vec::new();
        for piece in pieces(text) {
            tokens.extend_from_slice(self.tokenizer.encode_fast(piece, false).map_err(failed)?.get_ids());
        }
        Ok(tokens)
    }

    pub(crate) fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.tokenizer.decode(tokens, false).map_err(failed)
    }
}

/// Pieces that start after a line end between two characters that are not white space: there the
/// parting into words ends a word anyway, so that the tokens do not depend on the pieces.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = rest
            .match_indices('\n')
            .map(|(at, _)| at)
            .skip_while(|&at| at < PIECE)
            .find(|&at| {
                let solid = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
                solid(rest[..at].chars().next_back()) && solid(rest[at + 1..].chars().next())
            })
            .map_or(rest.len(), |at| at + 1);
        let (piece, remainder) = rest.split_at(cut);
        rest = remainder;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> &'static str {
        let (train, _) = crate::bundled::shakespeare().unwrap();
        Box::leak(train[..200_000].to_owned().into_boxed_str())
    }

    #[test]
    fn encodes_and_decodes_any_text_with_fewer_tokens() {
        let bpe = Bpe::train(text(), 512).unwrap();
        assert_eq!(bpe.vocabulary(), 512);
        let tokens = bpe.encode(text()).unwrap();
        assert!(tokens.len() * 3 < text().len() * 2, "{} tokens for {} bytes", tokens.len(), text().len());
        assert_eq!(bpe.decode(&tokens).unwrap(), text());
        let foreign = "  Grüße, 世界 \n\n\t🙂";
        assert_eq!(bpe.decode(&bpe.encode(foreign).unwrap()).unwrap(), foreign);
    }

    #[test]
    fn training_is_reproducible() {
        assert_eq!(Bpe::train(text(), 400).unwrap(), Bpe::train(text(), 400).unwrap());
    }

    #[test]
    fn pieces_do_not_change_the_tokens() {
        let bpe = Bpe::train(text(), 512).unwrap();
        assert!(pieces(text()).count() > 2);
        let whole = bpe.tokenizer.encode_fast(text(), false).unwrap();
        assert_eq!(bpe.encode(text()).unwrap(), whole.get_ids());
    }

    #[test]
    fn survives_storing() {
        let options =
            crate::TextOptions { tokenizer: crate::TokenizerSpec::Bpe { vocab_size: 300 }, sequence: 8 };
        let fitted = crate::Preprocessing::Text(crate::TextPreprocessing::fit(text(), options).unwrap());
        let written = serde_json::to_string(&fitted).unwrap();
        assert_eq!(serde_json::from_str::<crate::Preprocessing>(&written).unwrap(), fitted);

        let bpe = Bpe::train(text(), 300).unwrap();
        let stored = serde_json::to_string(&bpe).unwrap();
        let back: Bpe = serde_json::from_str(&stored).unwrap();
        assert_eq!(back.encode("Enter HAMLET.").unwrap(), bpe.encode("Enter HAMLET.").unwrap());
        assert!(
            serde_json::from_str::<Bpe>(&stored.replace("\"vocabulary\":300", "\"vocabulary\":301")).is_err()
        );
    }
}
