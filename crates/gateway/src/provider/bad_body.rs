//! Bodies that cannot be read.

/// A body that cannot be read; the gateway answers it itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// No byte at all.
    #[error("the request body is empty: expected a JSON object")]
    Empty,
    /// Not a text.
    #[error("the request body is not UTF-8: the byte at offset {offset} does not belong there")]
    NotUtf8 {
        /// The offset of the first byte that is wrong.
        offset: usize,
    },
    /// JSON, but a list, a text, a number …
    #[error("the request body is not a JSON object")]
    NotAnObject,
    /// Nested too deeply.
    #[error("the request body is nested deeper than 128 levels, at line {line}, column {column}")]
    TooDeep {
        /// The line, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
    /// Not JSON.
    #[error("the request body is not valid JSON: {reason} at line {line}, column {column}")]
    Syntax {
        /// What is wrong.
        reason: String,
        /// The line, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
}

impl BadBody {
    /// Says in these words what serde_json says.
    pub(super) fn of(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        if error.is_data() {
            return Self::NotAnObject;
        }
        if text.starts_with("recursion limit exceeded") {
            return Self::TooDeep { line, column };
        }
        let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
        Self::Syntax { reason, line, column }
    }
}
