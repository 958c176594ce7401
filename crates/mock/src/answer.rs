//! What the provider says: a function of the request's texts alone, so that everybody can check that an answer belongs
//! to its request.

/// Words of one token each; an answer's later tokens are taken from these.
const WORDS: [&str; 16] = [
    " tide", " gate", " water", " moon", " shore", " sand", " wave", " ebb", " flow", " harbor", " lock",
    " sea", " level", " salt", " wind", " stone",
];

/// A digest of texts (FNV-1a, 64 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// The digest of no text.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Adds one text; the order and the borders of texts count.
    pub fn add(&mut self, text: &str) {
        // Eight bytes at a time: prompts of a megabyte are common enough to notice.
        let mut chunks = text.as_bytes().chunks_exact(8);
        for chunk in &mut chunks {
            self.mix(u64::from_le_bytes(
                chunk.try_into().expect("the chunk has eight bytes"),
            ));
        }
        for byte in chunks.remainder() {
            self.mix(u64::from(*byte));
        }
        self.mix(0x100 + text.len() as u64);
    }

    /// Returns the digest's number.
    pub const fn value(self) -> u64 {
        self.0
    }

    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 ^= self.0 >> 29;
    }
}

/// One answer: its first token is the digest of the request in hexadecimal, the others are words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    seed: u64,
    tokens: u64,
}

impl Answer {
    /// Returns the answer of this many tokens to a request of these texts (message contents, prompts, inputs), in
    /// their order; `choice` counts from 0.
    pub fn to(texts: &[&str], choice: u64, tokens: u64) -> Self {
        let mut digest = Digest::EMPTY;
        texts.iter().for_each(|text| digest.add(text));
        Self::of(digest, choice, tokens)
    }

    pub(crate) fn of(digest: Digest, choice: u64, tokens: u64) -> Self {
        Self {
            seed: digest.0.wrapping_add(choice.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            tokens,
        }
    }

    /// Returns the number of tokens.
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Returns the whole text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0, self.tokens);
        text
    }

    /// Appends the tokens `from..to`. The text needs no escaping in JSON.
    pub(crate) fn write(&self, text: &mut String, from: u64, to: u64) {
        for index in from..to.min(self.tokens) {
            if index == 0 {
                for shift in (0..16).rev() {
                    let nibble = (self.seed >> (shift * 4)) & 0xf;
                    text.push(
                        char::from_digit(nibble as u32, 16).expect("four bits are one hexadecimal digit"),
                    );
                }
            } else {
                let word = self.seed.rotate_left((index % 64) as u32).wrapping_add(index) % 16;
                text.push_str(WORDS[word as usize]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_depends_on_texts_their_order_and_borders() {
        let text = |texts: &[&str]| Answer::to(texts, 0, 3).text();
        assert_eq!(text(&["hello", "world"]), text(&["hello", "world"]));
        let all = [
            text(&[]),
            text(&[""]),
            text(&["hello", "world"]),
            text(&["world", "hello"]),
            text(&["helloworld"]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{one}");
        }
        assert_ne!(text(&["x"]), Answer::to(&["x"], 1, 3).text());
    }

    #[test]
    fn tokens_written_in_parts_make_the_whole() {
        let answer = Answer::to(&["hello"], 0, 100);
        let mut parts = String::new();
        for from in (0..100).step_by(7) {
            answer.write(&mut parts, from, from + 7);
        }
        assert_eq!(parts, answer.text());
        assert_eq!(answer.text().split(' ').count(), 100);
    }
}
