//! What is stored with a model so that new inputs are prepared as the train data were.

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::images::ImagePreprocessing;
use crate::table::TableEncoder;
use crate::text::TextPreprocessing;

/// Everything learnt from the train data that prediction needs. Serialise it beside the weights.
///
/// Numbers are `f64`; to read back exactly what was written, JSON needs serde_json's feature
/// `float_roundtrip`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "lowercase", try_from = "Unchecked")]
pub enum Preprocessing {
    /// For a model of images.
    Image(ImagePreprocessing),
    /// For a model of tables.
    Table(TableEncoder),
    /// For a model of text.
    Text(TextPreprocessing),
}

#[derive(Deserialize)]
#[serde(tag = "input", rename_all = "lowercase")]
enum Unchecked {
    Image(ImagePreprocessing),
    Table(TableEncoder),
    Text(TextPreprocessing),
}

impl TryFrom<Unchecked> for Preprocessing {
    type Error = DataError;

    fn try_from(raw: Unchecked) -> Result<Self, DataError> {
        match raw {
            Unchecked::Image(image) => image.check().map(|()| Preprocessing::Image(image)),
            Unchecked::Table(table) => table.check().map(|()| Preprocessing::Table(table)),
            Unchecked::Text(text) if text.sequence() == 0 => {
                Err(DataError::BadPreprocessing { reason: "windows of 0 tokens".to_owned() })
            }
            Unchecked::Text(text) => Ok(Preprocessing::Text(text)),
        }
    }
}

impl Preprocessing {
    /// Names of the classes in the order of their indices; none for text.
    pub fn classes(&self) -> &[String] {
        match self {
            Preprocessing::Image(image) => &image.classes,
            Preprocessing::Table(table) => table.classes(),
            Preprocessing::Text(_) => &[],
        }
    }

    /// What the model was trained on, in a word.
    pub fn input_name(&self) -> &'static str {
        match self {
            Preprocessing::Image(_) => "images",
            Preprocessing::Table(_) => "table rows",
            Preprocessing::Text(_) => "text",
        }
    }

    /// The image preparation.
    ///
    /// # Errors
    /// If the model was trained on something else.
    pub fn image(&self) -> Result<&ImagePreprocessing, DataError> {
        match self {
            Preprocessing::Image(image) => Ok(image),
            other => Err(DataError::WrongInput { trained_on: other.input_name(), given: "an image" }),
        }
    }

    /// The table preparation.
    ///
    /// # Errors
    /// If the model was trained on something else.
    pub fn table(&self) -> Result<&TableEncoder, DataError> {
        match self {
            Preprocessing::Table(table) => Ok(table),
            other => Err(DataError::WrongInput { trained_on: other.input_name(), given: "table rows" }),
        }
    }

    /// The text preparation.
    ///
    /// # Errors
    /// If the model was trained on something else.
    pub fn text(&self) -> Result<&TextPreprocessing, DataError> {
        match self {
            Preprocessing::Text(text) => Ok(text),
            other => Err(DataError::WrongInput { trained_on: other.input_name(), given: "text" }),
        }
    }
}
