//! Encodings, and which model has which.

use std::sync::OnceLock;

use crate::merge::Merger;
use crate::split::{Pattern, Pieces};
use crate::vocabulary::Vocabulary;

/// A public encoding of texts in tokens.
///
/// What tells o200k_base and o200k_harmony apart are special tokens only, and those are never read out of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// `cl100k_base`: gpt-4, gpt-3.5-turbo, embeddings.
    Cl100k,
    /// `o200k_base` and `o200k_harmony`: gpt-4o and all since, gpt-oss.
    O200k,
}

/// Models of o200k_base and o200k_harmony; `gpt-5` and `gpt-4o` are prefixes of more names still. The last is a guess: no
/// tokenizer of gpt-6 is published.
const O200K: &[&str] = &[
    "o1",
    "o3",
    "o4-mini",
    "gpt-4.1",
    "gpt-4.5",
    "chatgpt-4o-",
    "gpt-oss",
    "gpt-6",
];

/// Models of cl100k_base.
const CL100K: &[&str] = &[
    "gpt-4",
    "gpt-3.5",
    "gpt-3.5-turbo",
    "gpt-35-turbo",
    "davinci-002",
    "babbage-002",
    "text-embedding-ada-002",
    "text-embedding-3-small",
    "text-embedding-3-large",
];

impl Encoding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cl100k, Self::O200k];

    /// Returns the name that OpenAI gave it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cl100k => "cl100k_base",
            Self::O200k => "o200k_base",
        }
    }

    /// Returns the encoding of a model, by tiktoken's own table of names and prefixes (0.14, providers.md §14).
    ///
    /// Names are taken as platforms write them: in any case, behind a maker (`openai/gpt-oss-120b`, `us.openai.gpt-oss-20b-1:0`)
    /// or behind `ft:`. `None` means that the model's tokenizer is another one or not public.
    pub fn for_model(model: &str) -> Option<Self> {
        let model = model.to_ascii_lowercase();
        let name = model.rsplit('/').next().unwrap_or_default();
        // gpt-oss with tags of Ollama: `gpt-oss:20b`.
        let name = name
            .find("openai.")
            .map_or(name, |at| &name[at + "openai.".len()..]);
        let base = name.strip_prefix("ft:").unwrap_or(name);
        let known = |prefixes: &[&str]| {
            prefixes.iter().any(|prefix| {
                base.strip_prefix(prefix).is_some_and(|rest| {
                    prefix.ends_with('-') || rest.is_empty() || rest.starts_with(['-', ':', '@'])
                })
            })
        };
        if base.starts_with("gpt-5") || base.starts_with("gpt-4o") || known(O200K) {
            return Some(Self::O200k);
        }
        known(CL100K).then_some(Self::Cl100k)
    }

    fn pattern(self) -> Pattern {
        match self {
            Self::Cl100k => Pattern::Cl100k,
            Self::O200k => Pattern::O200k,
        }
    }

    pub(crate) fn packed(self) -> &'static [u8] {
        match self {
            Self::Cl100k => include_bytes!("../data/cl100k_base.bin"),
            Self::O200k => include_bytes!("../data/o200k_base.bin"),
        }
    }

    pub(crate) fn vocabulary(self) -> &'static Vocabulary {
        static CL100K: OnceLock<Vocabulary> = OnceLock::new();
        static O200K: OnceLock<Vocabulary> = OnceLock::new();
        let cell = match self {
            Self::Cl100k => &CL100K,
            Self::O200k => &O200K,
        };
        cell.get_or_init(|| Vocabulary::unpack(self.packed()))
    }

    /// Counts the tokens of a text. Linear in its length, whatever it holds.
    ///
    /// Equal to what tiktoken counts, special tokens taken as plain text, except in pieces of more than 128 bytes without
    /// a place to cut (a letter repeated a thousand times, say), which are counted in stretches: a token or so more for
    /// each 64 bytes.
    pub fn count(self, text: &str) -> u64 {
        let vocabulary = self.vocabulary();
        let mut merger = Merger::new();
        Pieces::new(text, self.pattern())
            .map(|piece| merger.count(vocabulary, piece))
            .sum()
    }

    /// Builds the index now, some milliseconds of work, instead of on first use. Returns its size in bytes.
    pub fn load(self) -> usize {
        self.vocabulary().heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    impl Encoding {
        /// Every token and its rank.
        pub(crate) fn ranks(self) -> &'static HashMap<&'static [u8], u32> {
            static RANKS: LazyLock<[HashMap<&[u8], u32>; 2]> = LazyLock::new(|| {
                Encoding::ALL.map(|encoding| Vocabulary::tokens(encoding.packed()).zip(0..).collect())
            });
            &RANKS[self as usize]
        }
    }

    #[test]
    fn models_have_the_encodings_that_tiktoken_gives_them() {
        let check = |models: &[&str], expected| {
            for model in models {
                assert_eq!(Encoding::for_model(model), expected, "{model}");
            }
        };
        check(
            &[
                "gpt-4o",
                "gpt-4o-mini-2024-07-18",
                "chatgpt-4o-latest",
                "gpt-4.1",
                "gpt-4.1-nano",
                "gpt-4.5-preview",
                "o1",
                "o1-pro",
                "o3",
                "o3-mini",
                "o4-mini",
                "o4-mini-2025-04-16",
                "gpt-5",
                "gpt-5.4-mini",
                "gpt-5-chat-latest",
                "gpt-6",
                "ft:gpt-4o-mini:acme::x",
                "gpt-oss-120b",
                "openai/gpt-oss-20b",
                "openai.gpt-oss-120b-1:0",
                "us.openai.gpt-oss-20b-1:0",
                "gpt-oss:20b",
                "OpenAI/GPT-4o",
                "openai/gpt-4o:free",
            ],
            Some(Encoding::O200k),
        );
        check(
            &[
                "gpt-4",
                "gpt-4-0613",
                "gpt-4-turbo",
                "gpt-4-32k",
                "gpt-3.5",
                "gpt-3.5-turbo",
                "gpt-3.5-turbo-16k",
                "gpt-35-turbo",
                "gpt-35-turbo-16k",
                "text-embedding-3-small",
                "text-embedding-3-large",
                "text-embedding-ada-002",
                "davinci-002",
                "ft:gpt-3.5-turbo:acme",
                "ft:gpt-4:x",
                "ft:davinci-002:x",
            ],
            Some(Encoding::Cl100k),
        );
        check(
            &[
                "",
                "claude-opus-5",
                "gemini-2.5-pro",
                "llama-3.3-70b",
                "mistral-large",
                "o2",
                "o10",
                "gpt-2",
                "text-davinci-003",
                "gpt-45",
            ],
            None,
        );
    }

    #[test]
    fn long_runs_are_counted_closely() {
        // Exact counts of tiktoken: 12,500 and 12,500 for the first, 782 for the second, 1,563 and 1,562 for the third.
        let check = |text: &str, times: usize, exact: u64| {
            let count = Encoding::O200k.count(&text.repeat(times));
            assert!(
                (exact..=exact + exact / 50 + 1).contains(&count),
                "{text}: {count}, exactly {exact}"
            );
        };
        check("a", 100_000, 12_500);
        check(" ", 100_000, 782);
        check("=", 100_000, 1_562);
        check("中", 10_000, 10_000);
    }

    const KINDS: &[&str] = &[
        "[a-z ]{0,60}",
        "[A-Za-z0-9+/=]{0,60}",
        "[道可非常名。A-z ]{0,30}",
        "[ \n\t=\\-]{0,60}",
        "[0-9.,]{0,40}",
        ".{0,40}",
    ];

    proptest! {
        /// A cut may change what is merged around it, on either side, and no more.
        #[test]
        fn texts_in_parts_count_nearly_as_much(
            a in prop::sample::select(KINDS).prop_flat_map(|kind| kind),
            b in prop::sample::select(KINDS).prop_flat_map(|kind| kind),
        ) {
            for encoding in Encoding::ALL {
                let whole = encoding.count(&format!("{a}{b}"));
                let parts = encoding.count(&a) + encoding.count(&b);
                prop_assert!(whole <= parts + 8 && parts <= whole + 8, "{:?} + {:?}: {} of {}", a, b, whole, parts);
                prop_assert!(whole <= (a.len() + b.len()) as u64);
            }
        }
    }
}
