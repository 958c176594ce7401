//! A text cut into pieces, as the encodings' patterns do it.
//!
//! Tokens never reach across pieces. tiktoken cuts with a regular expression; the two of them are written out here as
//! what they do, in one pass, because a general engine alone takes most of the time that a count may take. No character
//! is looked at more often than a small number of times, whatever the text.

use crate::class::{Class, Classes, Set};

/// Which pattern cuts the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s`
    Cl100k,
    /// With U = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, W = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`, C = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`:
    /// `[^\r\n\p{L}\p{N}]?U*W+C?|[^\r\n\p{L}\p{N}]?U+W*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    O200k,
}

/// The pieces of a text.
pub(crate) struct Pieces<'t> {
    text: &'t str,
    at: usize,
    pattern: Pattern,
    classes: &'static Classes,
    ascii: &'static [Class; 128],
    /// Characters looked at since the start, to measure work by.
    #[cfg(test)]
    pub(crate) looks: std::cell::Cell<u64>,
}

impl<'t> Pieces<'t> {
    pub(crate) fn new(text: &'t str, pattern: Pattern) -> Self {
        let classes = Classes::table();
        Self {
            text,
            at: 0,
            pattern,
            classes,
            ascii: &classes.ascii,
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
        }
    }

    /// Returns the class of the character at an offset, and the offset behind it; `None` at the end.
    #[inline(always)]
    fn look(&self, at: usize) -> Option<(Class, usize)> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        let &first = self.text.as_bytes().get(at)?;
        if first < 0x80 {
            return Some((self.ascii[usize::from(first)], at + 1));
        }
        if first < 0xe0 {
            let second = self.byte(at + 1).unwrap_or_default();
            let character = u16::from(first & 0x1f) << 6 | u16::from(second & 0x3f);
            return Some((self.classes.of_low(character), at + 2));
        }
        Some(self.look_far(at, first))
    }

    /// The same for characters of three bytes and four.
    fn look_far(&self, at: usize, first: u8) -> (Class, usize) {
        let digit = |behind: usize| self.byte(at + behind).map_or(0, |byte| u32::from(byte & 0x3f));
        let head = u32::from(first);
        let (character, len) = if first < 0xf0 {
            ((head & 0x0f) << 12 | digit(1) << 6 | digit(2), 3)
        } else {
            ((head & 0x07) << 18 | digit(1) << 12 | digit(2) << 6 | digit(3), 4)
        };
        (self.classes.of(character), at + len)
    }

    /// Returns the offset behind all characters of a set from an offset on.
    #[inline]
    fn run(&self, mut at: usize, set: Set) -> usize {
        while let Some((class, behind)) = self.look(at) {
            if !class.is_in(set) {
                break;
            }
            at = behind;
        }
        at
    }

    #[inline]
    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn piece(&self, start: usize) -> Option<usize> {
        let (first, behind) = self.look(start)?;
        Some(match self.pattern {
            Pattern::Cl100k => self.cl100k(start, first, behind),
            Pattern::O200k => self.o200k(start, first, behind),
        })
    }

    fn cl100k(&self, start: usize, first: Class, behind: usize) -> usize {
        if first.is_in(Set::LETTERS) {
            return self.run(behind, Set::LETTERS);
        }
        if first.is_in(Set::NUMBERS) {
            return self.number(behind);
        }
        if let Some(end) = self.contraction(start) {
            return end;
        }
        if first.is_in(Set::PREFIXES)
            && let Some((second, second_behind)) = self.look(behind)
            && second.is_in(Set::LETTERS)
        {
            return self.run(second_behind, Set::LETTERS);
        }
        match self.symbols(start, first, behind) {
            Some(end) => self.run(end, Set::NEWLINES),
            None => self.white_space(behind, first, true),
        }
    }

    fn o200k(&self, start: usize, first: Class, behind: usize) -> usize {
        if first.is_in(Set::NUMBERS) {
            return self.number(behind);
        }
        let word = if first.is_in(Set::LETTERS) {
            self.word(start)
        } else if first.is_in(Set::PREFIXES) {
            // A mark may be what stands before a word, or a word by itself.
            self.word(behind).or((first == Class::Mark).then_some(behind))
        } else {
            None
        };
        if let Some(end) = word {
            return self.contraction(end).unwrap_or(end);
        }
        let Some(mut end) = self.symbols(start, first, behind) else {
            return self.white_space(behind, first, false);
        };
        while matches!(self.byte(end), Some(b'\r' | b'\n' | b'/')) {
            end += 1;
        }
        end
    }

    /// Returns where a word in the sense of o200k ends: capitals, then small letters; letters without case and marks are
    /// either. Where nothing small follows, it ends behind the last of those that are either, if there is one.
    #[inline]
    fn word(&self, start: usize) -> Option<usize> {
        let mut at = start;
        let mut either_end = start;
        while let Some((class, behind)) = self.look(at) {
            if !class.is_in(Set::LARGE) {
                if class == Class::Lower {
                    return Some(self.run(behind, Set::SMALL));
                }
                break;
            }
            at = behind;
            either_end = if class.is_in(Set::EITHER) {
                behind
            } else {
                either_end
            };
        }
        let end = if either_end > start { either_end } else { at };
        (end > start).then_some(end)
    }

    /// Returns where `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` ends, if it starts here.
    #[inline]
    fn contraction(&self, at: usize) -> Option<usize> {
        if self.byte(at) != Some(b'\'') {
            return None;
        }
        let rest = &self.text.as_bytes()[at + 1..];
        match rest {
            [b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => Some(at + 2),
            [b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => Some(at + 3),
            // The long s (U+017F) is an s to patterns that ignore case.
            [0xc5, 0xbf, ..] => Some(at + 3),
            _ => None,
        }
    }

    /// Returns where up to three numbers end, the first of which is known.
    #[inline]
    fn number(&self, mut behind: usize) -> usize {
        for _ in 0..2 {
            match self.look(behind) {
                Some((Class::Number, next)) => behind = next,
                _ => break,
            }
        }
        behind
    }

    /// Returns where symbols end, with a space before them or none; `None` if there are none.
    #[inline]
    fn symbols(&self, start: usize, first: Class, behind: usize) -> Option<usize> {
        if first.is_in(Set::SYMBOLS) {
            return Some(self.run(behind, Set::SYMBOLS));
        }
        if self.byte(start) != Some(b' ') {
            return None;
        }
        let (second, second_behind) = self.look(behind)?;
        second
            .is_in(Set::SYMBOLS)
            .then(|| self.run(second_behind, Set::SYMBOLS))
    }

    /// Returns where a piece of white space ends: behind its last line end, else before its last character, which goes
    /// with what follows. Where nothing follows, all of it is one piece; in o200k still cut behind a line end.
    fn white_space(&self, mut behind: usize, first: Class, end_is_whole: bool) -> usize {
        let first_behind = behind;
        let mut last = behind;
        let mut line_end = (first == Class::Newline).then_some(behind);
        loop {
            match self.look(behind) {
                Some((class, next)) if class.is_in(Set::SPACES) => {
                    last = behind;
                    behind = next;
                    if class == Class::Newline {
                        line_end = Some(next);
                    }
                }
                Some(_) => {
                    let but_last = if behind > first_behind { last } else { behind };
                    return line_end.unwrap_or(but_last);
                }
                None if end_is_whole => return behind,
                None => return line_end.unwrap_or(behind),
            }
        }
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    #[inline]
    fn next(&mut self) -> Option<&'t str> {
        let start = self.at;
        let end = self.piece(start)?;
        self.at = end;
        self.text.get(start..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: Pattern, text: &str) {
        let mut pieces = Pieces::new(text, pattern);
        let mut whole = String::new();
        for piece in &mut pieces {
            assert!(!piece.is_empty(), "{text:?}");
            whole.push_str(piece);
        }
        assert_eq!(whole, text, "{pattern:?}");
        let characters = text.chars().count() as u64;
        // Each character is seen once, and again where a piece ends before what was looked at.
        let bound = 6 * characters + 8;
        let looks = pieces.looks.get();
        assert!(
            looks <= bound,
            "{looks} looks at {characters} characters, {pattern:?}"
        );
    }

    const KINDS: &[&str] = &[
        "[a-z' ]{0,80}",
        "[A-Za-zÀ-ÿǅʰ中\u{301}' ]{0,80}",
        "[ \n\r\t\u{a0}x]{0,80}",
        "[0-9½x]{0,80}",
        "[!-/:-@ \n]{0,80}",
        ".{0,80}",
    ];

    proptest! {
        #[test]
        fn pieces_are_the_text(text in prop::sample::select(KINDS).prop_flat_map(|kind| kind), times in 1_usize..40) {
            for pattern in [Pattern::Cl100k, Pattern::O200k] {
                check(pattern, &text.repeat(times));
            }
        }
    }

    #[test]
    fn long_runs_are_looked_at_once() {
        for unit in [
            "a", "A", "中", "\u{301}", " ", "\n", " \n", "\n ", "1", "!", "'", "'s", "aA", "A\u{301}",
            "!/\n", "\u{a0}", "👩‍",
        ] {
            for end in ["", "a", "A", " ", "1", "!", "\n"] {
                for pattern in [Pattern::Cl100k, Pattern::O200k] {
                    check(pattern, &(unit.repeat(10_000) + end));
                }
            }
        }
    }
}
