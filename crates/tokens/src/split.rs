//! A text cut into pieces, as the encodings' patterns do it.
//!
//! Tokens never reach across pieces. tiktoken cuts with a regular expression; the two of them are written out here as
//! what they do, in one pass, because a general engine alone takes most of the time that a count may take. No character
//! is looked at more often than a small number of times, whatever the text.

use crate::class::{Class, Classes};

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
        Self {
            text,
            at: 0,
            pattern,
            classes: Classes::table(),
            ascii: &ASCII,
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
        }
    }

    /// Returns the class of the character at an offset, and the offset behind it; `None` at the end.
    #[inline]
    fn look(&self, at: usize) -> Option<(Class, usize)> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        let bytes = self.text.as_bytes();
        let &first = bytes.get(at)?;
        if first < 0x80 {
            return Some((self.ascii[usize::from(first)], at + 1));
        }
        let digit = |behind: usize| bytes.get(at + behind).map_or(0, |&byte| u32::from(byte & 0x3f));
        let head = u32::from(first);
        let (character, len) = match first {
            0..0xe0 => ((head & 0x1f) << 6 | digit(1), 2),
            0xe0..0xf0 => ((head & 0x0f) << 12 | digit(1) << 6 | digit(2), 3),
            0xf0.. => ((head & 0x07) << 18 | digit(1) << 12 | digit(2) << 6 | digit(3), 4),
        };
        Some((self.classes.of(character), at + len))
    }

    /// Returns the offset behind all characters from an offset on that pass.
    #[inline]
    fn run(&self, mut at: usize, passes: impl Fn(Class) -> bool) -> usize {
        while let Some((class, behind)) = self.look(at) {
            if !passes(class) {
                break;
            }
            at = behind;
        }
        at
    }

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
        if let Some(end) = self.contraction(start) {
            return end;
        }
        match first {
            Class::Upper | Class::Lower | Class::Letter => self.run(behind, Class::is_letter),
            Class::Number => self.number(behind),
            Class::Space | Class::Newline | Class::Other | Class::Mark => {
                if first != Class::Newline
                    && let Some((Class::Upper | Class::Lower | Class::Letter, second)) = self.look(behind)
                {
                    return self.run(second, Class::is_letter);
                }
                if let Some(end) = self.symbols(start, first, behind) {
                    return self.run(end, |class| class == Class::Newline);
                }
                self.white_space(behind, first, true)
            }
        }
    }

    fn o200k(&self, start: usize, first: Class, behind: usize) -> usize {
        let word = match first {
            Class::Upper | Class::Lower | Class::Letter => self.word(start),
            Class::Space | Class::Other => self.word(behind),
            // A mark may be what stands before a word, or a word by itself.
            Class::Mark => self.word(behind).or(Some(behind)),
            Class::Number | Class::Newline => None,
        };
        if let Some(end) = word {
            return self.contraction(end).unwrap_or(end);
        }
        if first == Class::Number {
            return self.number(behind);
        }
        if let Some(mut end) = self.symbols(start, first, behind) {
            while matches!(self.byte(end), Some(b'\r' | b'\n' | b'/')) {
                end += 1;
            }
            return end;
        }
        self.white_space(behind, first, false)
    }

    /// Returns where a word in the sense of o200k ends: capitals, then small letters; letters without case and marks are
    /// either. Where nothing small follows, it ends behind the last of those that are either, if there is one.
    fn word(&self, start: usize) -> Option<usize> {
        let mut at = start;
        let mut either_end = None;
        loop {
            match self.look(at) {
                Some((Class::Upper, behind)) => at = behind,
                Some((Class::Letter | Class::Mark, behind)) => {
                    at = behind;
                    either_end = Some(behind);
                }
                Some((Class::Lower, behind)) => {
                    let small = |class| matches!(class, Class::Lower | Class::Letter | Class::Mark);
                    return Some(self.run(behind, small));
                }
                _ => return either_end.or((at > start).then_some(at)),
            }
        }
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
    fn symbols(&self, start: usize, first: Class, behind: usize) -> Option<usize> {
        if first.is_symbol() {
            return Some(self.run(behind, Class::is_symbol));
        }
        if self.byte(start) != Some(b' ') {
            return None;
        }
        let (second, second_behind) = self.look(behind)?;
        second
            .is_symbol()
            .then(|| self.run(second_behind, Class::is_symbol))
    }

    /// Returns where a piece of white space ends: behind its last line end, else before its last character, which goes
    /// with what follows. Where nothing follows, all of it is one piece; in o200k still cut behind a line end.
    fn white_space(&self, mut behind: usize, first: Class, end_is_whole: bool) -> usize {
        let first_behind = behind;
        let mut last = behind;
        let mut line_end = (first == Class::Newline).then_some(behind);
        loop {
            match self.look(behind) {
                Some((class, next)) if class.is_space() => {
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

/// The classes of ASCII, without a detour.
static ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut at = 0;
    while at < 128 {
        classes[at] = match at as u8 {
            b'A'..=b'Z' => Class::Upper,
            b'a'..=b'z' => Class::Lower,
            b'0'..=b'9' => Class::Number,
            b'\r' | b'\n' => Class::Newline,
            b' ' | b'\t' | 0x0b | 0x0c => Class::Space,
            _ => Class::Other,
        };
        at += 1;
    }
    classes
};
