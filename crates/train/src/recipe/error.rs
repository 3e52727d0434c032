//! What is wrong with a recipe, with the place to look at.

use std::fmt;
use std::ops::Range;

use halfstep_data::readable;
use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// A mistake in a recipe: what was found, what was expected and, where it is known, the place in
/// the text.
///
/// It is a [`miette::Diagnostic`]: a program with miette's reports shows the line.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct RecipeError(Box<Mistake>);

#[derive(Clone, Debug)]
struct Mistake {
    message: String,
    place: Option<(Range<usize>, String)>,
    help: Option<String>,
    source: Option<NamedSource<String>>,
}

impl RecipeError {
    /// A mistake that no line is to blame for.
    pub fn new(message: impl AsRef<str>) -> RecipeError {
        let message = readable(message.as_ref());
        RecipeError(Box::new(Mistake { message, place: None, help: None, source: None }))
    }

    /// Points at bytes `span` of the text, with a few words beside them.
    pub(crate) fn at(mut self, span: Range<usize>, label: impl Into<String>) -> RecipeError {
        self.0.place = Some((span, label.into()));
        self
    }

    /// Says what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> RecipeError {
        self.0.help = Some(readable(&help.into())).filter(|h| !h.is_empty());
        self
    }

    /// The text that the place is in.
    pub(crate) fn in_text(mut self, name: &str, text: &str) -> RecipeError {
        self.0.source = Some(NamedSource::new(name, text.to_string()).with_language("toml"));
        self
    }

    /// The bytes of the text to look at.
    pub fn span(&self) -> Option<Range<usize>> {
        self.0.place.as_ref().map(|(span, _)| span.clone())
    }
}

impl Diagnostic for RecipeError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.source.as_ref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (span, label) = self.0.place.as_ref()?;
        let labelled = LabeledSpan::new(Some(label.clone()), span.start, span.len());
        Some(Box::new(std::iter::once(labelled)))
    }
}
