//! Places in the text of a document, as errors tell them.

use apollo_compiler::executable::ExecutableDocument;
use apollo_compiler::parser::SourceSpan;

/// Lines and columns of a document.
pub(crate) struct Positions<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Positions<'a> {
    pub(crate) fn new(document: &'a ExecutableDocument) -> Positions<'a> {
        // The built-in definitions are no source of an operation; what was parsed last is the document.
        let source = document.sources.values().last();
        Positions::of_text(source.map_or("", |source| source.source_text()))
    }

    pub(crate) fn of_text(text: &'a str) -> Positions<'a> {
        let bytes = text.as_bytes();
        let ends_line = |at: &usize| match bytes[*at] {
            b'\n' => true,
            b'\r' => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        let starts = (0..bytes.len()).filter(ends_line).map(|at| at + 1);
        Positions { text, line_starts: std::iter::once(0).chain(starts).collect() }
    }

    /// Line and column, both from 1.
    pub(crate) fn at(&self, location: Option<SourceSpan>) -> Option<(usize, usize)> {
        let offset = location?.offset();
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let before = self.text.get(self.line_starts[line - 1]..offset)?;
        Some((line, before.chars().count() + 1))
    }
}
