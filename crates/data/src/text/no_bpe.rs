//! Stands for the byte-pair tokeniser in a program built without it: a stored one is kept but
//! cannot be used.

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// A trained byte-pair tokeniser, which this program (built without the feature `bpe`) can only
/// pass on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bpe {
    vocabulary: usize,
    definition: String,
}

const MISSING: DataError = DataError::FeatureMissing { feature: "bpe", what: "`tokenizer = \"bpe\"`" };

impl Bpe {
    pub(crate) fn train(_text: &str, _vocab_size: usize) -> Result<Self, DataError> {
        Err(MISSING)
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(crate) fn encode(&self, _text: &str) -> Result<Vec<u32>, DataError> {
        Err(MISSING)
    }

    pub(crate) fn decode(&self, _tokens: &[u32]) -> Result<String, DataError> {
        Err(MISSING)
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::{TextOptions, TokenizerSpec};
    use crate::text::TextPreprocessing;

    #[test]
    fn the_missing_feature_is_named() {
        let options = TextOptions { tokenizer: TokenizerSpec::Bpe { vocab_size: 300 }, sequence: 8 };
        let error = TextPreprocessing::fit("some text", options).unwrap_err().to_string();
        assert!(error.contains("--features bpe"), "{error}");
    }
}
