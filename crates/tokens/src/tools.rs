//! Tokens of the functions that a model may call.

use crate::encoding::Encoding;

/// Adds up the functions of a request as OpenAI's cookbook does (providers.md §14): the server shows them to the model in
/// another form than JSON, and this is the closest account of it. An estimate; other servers show JSON, which is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionCount {
    encoding: Encoding,
    tokens: u64,
    functions: u64,
}

/// Tokens of each function with parameters, each parameter, each value of an enumeration but for the first, and all
/// functions together.
const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3;
const CHOICE: u64 = 3;
const END: u64 = 12;

impl FunctionCount {
    /// Starts with no function.
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            tokens: 0,
            functions: 0,
        }
    }

    /// Adds a function. What follows until the next one belongs to it.
    pub fn function(&mut self, name: &str, description: &str, has_parameters: bool) {
        self.functions += 1;
        self.tokens += match self.encoding {
            Encoding::O200k => 7,
            Encoding::Cl100k => 10,
        };
        self.add(&[name, description]);
        self.tokens += PROPERTIES * u64::from(has_parameters);
    }

    /// Adds a parameter of the last function.
    pub fn parameter(&mut self, name: &str, kind: &str, description: &str) {
        self.tokens += PROPERTY;
        self.add(&[name, kind, description]);
    }

    /// Adds the values that the last parameter may have, if it may not have all.
    pub fn choices<'c>(&mut self, choices: impl IntoIterator<Item = &'c str>) {
        let mut tokens = 0;
        for choice in choices {
            tokens += CHOICE + self.encoding.count(choice);
        }
        self.tokens += tokens.saturating_sub(CHOICE);
    }

    /// Returns the tokens of all functions; none without a function.
    pub fn tokens(&self) -> u64 {
        if self.functions == 0 { 0 } else { self.tokens + END }
    }

    fn add(&mut self, parts: &[&str]) {
        let line = parts.join(":");
        self.tokens += self.encoding.count(line.strip_suffix('.').unwrap_or(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_counted_as_in_the_cookbook() {
        let count = |encoding| {
            let mut count = FunctionCount::new(encoding);
            assert_eq!(count.tokens(), 0);
            count.function(
                "get_current_weather",
                "Get the current weather in a given location",
                true,
            );
            count.parameter("location", "string", "The city and state, e.g. San Francisco, CA");
            count.parameter("unit", "string", "The unit of temperature to return");
            count.choices(["celsius", "fahrenheit"]);
            count.tokens()
        };
        // The cookbook's example: 105 were reported for gpt-4 and 101 for gpt-4o, with two messages.
        let messages = |encoding: Encoding| {
            crate::ChatFrame::for_model("gpt-4").tokens(2, 0)
                + encoding
                    .count("You are a helpful assistant that can answer to questions about the weather.")
                + encoding.count("What's the weather like in Pittsburgh today?")
        };
        assert_eq!(count(Encoding::Cl100k) + messages(Encoding::Cl100k), 105);
        assert_eq!(count(Encoding::O200k) + messages(Encoding::O200k), 101);
    }
}
