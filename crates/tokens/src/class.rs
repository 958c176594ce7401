//! What kind of character each is, as far as the encodings' patterns tell them apart.

use std::sync::OnceLock;

/// The classes that the patterns are written in, a bit each, so that a set of them is one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Neither letter, number, mark nor white space: `[^\s\p{L}\p{M}\p{N}]`.
    Other = 1 << 0,
    /// `[\p{Lu}\p{Lt}]`
    Upper = 1 << 1,
    /// `\p{Ll}`
    Lower = 1 << 2,
    /// Letters without case: `[\p{Lm}\p{Lo}]`
    Letter = 1 << 3,
    /// `\p{M}`
    Mark = 1 << 4,
    /// `\p{N}`
    Number = 1 << 5,
    /// `\s` other than the next.
    Space = 1 << 6,
    /// `[\r\n]`
    Newline = 1 << 7,
}

/// Classes that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set(u8);

impl Set {
    /// `\p{L}`
    pub(crate) const LETTERS: Self = Self::of(&[Class::Upper, Class::Lower, Class::Letter]);
    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
    pub(crate) const LARGE: Self = Self::of(&[Class::Upper, Class::Letter, Class::Mark]);
    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
    pub(crate) const SMALL: Self = Self::of(&[Class::Lower, Class::Letter, Class::Mark]);
    /// Of both of these.
    pub(crate) const EITHER: Self = Self::of(&[Class::Letter, Class::Mark]);
    /// `[^\s\p{L}\p{N}]`
    pub(crate) const SYMBOLS: Self = Self::of(&[Class::Other, Class::Mark]);
    /// `[^\r\n\p{L}\p{N}]`, what may stand before a word.
    pub(crate) const PREFIXES: Self = Self::of(&[Class::Other, Class::Mark, Class::Space]);
    /// `\s`
    pub(crate) const SPACES: Self = Self::of(&[Class::Space, Class::Newline]);
    /// `[\r\n]`
    pub(crate) const NEWLINES: Self = Self::of(&[Class::Newline]);
    /// `\p{N}`
    pub(crate) const NUMBERS: Self = Self::of(&[Class::Number]);

    const fn of(classes: &[Class]) -> Self {
        let mut set = 0;
        let mut at = 0;
        while at < classes.len() {
            set |= classes[at] as u8;
            at += 1;
        }
        Self(set)
    }
}

impl Class {
    #[inline]
    pub(crate) fn is_in(self, set: Set) -> bool {
        self as u8 & set.0 != 0
    }

    pub(crate) fn of_number(number: u8) -> Self {
        match number & 7 {
            1 => Self::Upper,
            2 => Self::Lower,
            3 => Self::Letter,
            4 => Self::Mark,
            5 => Self::Number,
            6 => Self::Space,
            7 => Self::Newline,
            _ => Self::Other,
        }
    }
}

/// Runs of characters of one class, from U+0000 on: length × 8 + class in base 128, lowest digits first, the upper bit
/// set in all but the last. A test writes it (`TIDEGATE_BLESS=1`) and compares it with the tables of regex-syntax.
const RUNS: &[u8] = include_bytes!("../data/classes.bin");

/// Characters that share one entry of the first table.
const BLOCK: usize = 128;

/// The class of every character, in blocks of which equal ones are kept once.
pub(crate) struct Classes {
    blocks: Vec<u16>,
    classes: Vec<Class>,
    /// Those of one byte in UTF-8.
    pub(crate) ascii: [Class; 128],
    /// Those of one byte or two.
    low: [Class; 2_048],
}

impl Classes {
    /// Returns the table, which is built on first use.
    pub(crate) fn table() -> &'static Self {
        static TABLE: OnceLock<Classes> = OnceLock::new();
        TABLE.get_or_init(|| Self::build(RUNS))
    }

    fn build(mut runs: &[u8]) -> Self {
        let mut table = Self {
            blocks: Vec::new(),
            classes: Vec::new(),
            ascii: [Class::Other; 128],
            low: [Class::Other; 2_048],
        };
        let mut block = Vec::with_capacity(BLOCK);
        while let Some((mut len, class)) = read_run(&mut runs) {
            while len > 0 && table.blocks.len() <= char::MAX as usize / BLOCK {
                let part = len.min(BLOCK - block.len());
                block.resize(block.len() + part, class);
                len -= part;
                if block.len() == BLOCK {
                    table.push(&block);
                    block.clear();
                }
            }
        }
        for character in 0..2_048 {
            table.low[character as usize] = table.of(character);
        }
        table.ascii.copy_from_slice(&table.low[..128]);
        table
    }

    fn push(&mut self, block: &[Class]) {
        let known = self.classes.chunks_exact(BLOCK).position(|known| known == block);
        let index = known.unwrap_or_else(|| {
            self.classes.extend_from_slice(block);
            self.classes.len() / BLOCK - 1
        });
        self.blocks.push(index as u16);
    }

    /// Returns the class of a character below U+0800.
    #[inline]
    pub(crate) fn of_low(&self, character: u16) -> Class {
        self.low[usize::from(character) % 2_048]
    }

    #[inline]
    pub(crate) fn of(&self, character: u32) -> Class {
        let character = character as usize;
        let Some(&block) = self.blocks.get(character / BLOCK) else {
            return Class::Other;
        };
        self.classes[usize::from(block) * BLOCK + character % BLOCK]
    }
}

fn read_run(runs: &mut &[u8]) -> Option<(usize, Class)> {
    let mut number = 0;
    let mut shift = 0;
    while let Some((&digit, rest)) = runs.split_first() {
        *runs = rest;
        number |= usize::from(digit & 0x7f) << shift;
        shift += 7;
        if digit < 0x80 || shift > 28 {
            return Some((number >> 3, Class::of_number(number as u8)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same classes from the tables of the regular expressions that tiktoken uses.
    fn expected() -> Vec<Class> {
        let mut classes = vec![Class::Other; char::MAX as usize + 1];
        let patterns = [
            (r"[\p{Lu}\p{Lt}]", Class::Upper),
            (r"\p{Ll}", Class::Lower),
            (r"[\p{Lm}\p{Lo}]", Class::Letter),
            (r"\p{M}", Class::Mark),
            (r"\p{N}", Class::Number),
            (r"\s", Class::Space),
            (r"[\r\n]", Class::Newline),
        ];
        for (pattern, class) in patterns {
            let hir = regex_syntax::parse(pattern).unwrap();
            let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(set)) = hir.kind() else {
                panic!("{pattern} is no class");
            };
            for range in set.ranges() {
                classes[range.start() as usize..=range.end() as usize].fill(class);
            }
        }
        classes
    }

    fn runs(classes: &[Class]) -> Vec<u8> {
        let mut runs = Vec::new();
        for run in classes.chunk_by(PartialEq::eq) {
            let mut number = run.len() << 3 | (run[0] as u8).trailing_zeros() as usize;
            while number > 0x7f {
                runs.push(number as u8 | 0x80);
                number >>= 7;
            }
            runs.push(number as u8);
        }
        runs
    }

    #[test]
    fn classes_are_those_of_regular_expressions() {
        let expected = expected();
        let runs = runs(&expected);
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/data/classes.bin"), &runs).unwrap();
        }
        let table = Classes::build(&runs);
        for (character, class) in expected.iter().enumerate() {
            assert_eq!(table.of(character as u32), *class, "U+{character:04X}");
        }
        assert_eq!(
            runs, RUNS,
            "run with TIDEGATE_BLESS=1 to rewrite data/classes.bin"
        );
    }

    #[test]
    fn a_broken_table_is_no_panic() {
        for runs in [
            &[][..],
            &[0xff; 9],
            &[0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0x7f, 0xff],
        ] {
            assert_eq!(Classes::build(runs).of(u32::MAX), Class::Other);
        }
    }
}
