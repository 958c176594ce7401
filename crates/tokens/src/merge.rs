//! Byte pair encoding of one piece of text.

use crate::vocabulary::{NO_RANK, Rank, Vocabulary};

/// The longest piece that is merged as a whole, in bytes. Pieces of real text are far shorter, and no token is longer.
pub(crate) const WHOLE: usize = 128;

/// The bytes that are merged at a time of a longer piece, which bounds the work for every byte. A run of one byte, which
/// may have tokens as long as they get, is merged [`WHOLE`] bytes at a time.
pub(crate) const STRETCH: usize = 64;

/// Keys that are looked through at once for the lowest.
const BLOCK: usize = 16;

/// When two neighbouring tokens are merged: by the rank of both together, then from left to right.
///
/// The number is rank × 256 + offset, and what is kept is the float of those bits. Positive floats are in the order of
/// their bits, and the lowest of several floats is one instruction on every processor of 64 bits; on many of them the
/// lowest of several integers is not, and looking for it is half of the work here.
type Key = f32;

/// No two tokens that could be merged.
const NONE: Key = Key::INFINITY;

/// What is added to the number of a key: bits below it are of floats that may be slow.
const NORMAL: u32 = 1 << 23;

/// A token in a stretch, known by the offset of its first byte.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    token: Rank,
    /// The offset of the token that follows.
    next: u8,
    /// The offset of the token before.
    before: u8,
}

/// The tokens of one stretch while they are merged.
pub(crate) struct Merger {
    keys: [Key; WHOLE],
    nodes: [Node; WHOLE],
    /// How often two tokens were merged, to measure work by.
    pub(crate) steps: u64,
}

impl Merger {
    pub(crate) fn new() -> Self {
        Self {
            keys: [NONE; WHOLE],
            nodes: [Node::default(); WHOLE],
            steps: 0,
        }
    }

    /// Counts the tokens of one piece. In stretches, if it is longer than [`WHOLE`].
    #[inline]
    pub(crate) fn count(&mut self, vocabulary: &Vocabulary, piece: &str) -> u64 {
        // The shortest pieces are the most frequent ones in hostile text, and need no search.
        match *piece.as_bytes() {
            [] => return 0,
            [_] => return 1,
            [first, second] => return 2 - u64::from(vocabulary.pair(first, second) != NO_RANK),
            [first, second, third] => return three(vocabulary, first, second, third),
            ref bytes if vocabulary.has(bytes) => return 1,
            _ => {}
        }
        let mut rest = piece;
        let mut tokens = 0;
        while rest.len() > WHOLE {
            let is_run = rest.as_bytes()[..STRETCH]
                .iter()
                .all(|&byte| byte == rest.as_bytes()[0]);
            let len = rest.floor_char_boundary(if is_run { WHOLE } else { STRETCH });
            let (stretch, behind) = rest.split_at(len);
            tokens += self.merge(vocabulary, stretch.as_bytes());
            rest = behind;
        }
        tokens + self.merge(vocabulary, rest.as_bytes())
    }

    /// Merges at most [`WHOLE`] bytes until no two neighbours are a token, and returns how many tokens
    /// are left.
    fn merge(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) -> u64 {
        let bytes = &bytes[..bytes.len().min(WHOLE)];
        if bytes.is_empty() {
            return 0;
        }
        self.fill(vocabulary, bytes);
        let end = bytes.len() as u8;
        let blocks = bytes.len().next_multiple_of(BLOCK);
        let mut tokens = bytes.len() as u64;
        let mut lowest = least(&self.keys[..blocks]);
        while lowest < NONE {
            let number = lowest.to_bits() - NORMAL;
            let (token, mut at) = (number >> 8, number as u8);
            let behind = key(token + 1, 0);
            loop {
                self.steps += 1;
                tokens -= 1;
                let next = self.take(at);
                // The same two tokens often follow at once, as in a run of one letter; then nothing has to be looked for.
                let repeats = next != end && self.keys[usize::from(next)] < behind;
                // Else the search comes first, because it need not wait for what is looked up.
                let others = if repeats {
                    NONE
                } else {
                    least(&self.keys[..blocks])
                };
                let made = self.put(vocabulary, at, token, end);
                if !repeats {
                    lowest = lower(others, made);
                    break;
                }
                if made < behind {
                    lowest = least(&self.keys[..blocks]);
                    break;
                }
                at = next;
            }
        }
        tokens
    }

    fn fill(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            self.nodes[at] = Node {
                token: vocabulary.byte(byte),
                next: (at + 1) as u8,
                before: at.saturating_sub(1) as u8,
            };
        }
        for (at, pair) in bytes.windows(2).enumerate() {
            self.keys[at] = key(vocabulary.pair(pair[0], pair[1]), at as u8);
        }
        self.keys[bytes.len() - 1..bytes.len().next_multiple_of(BLOCK)].fill(NONE);
    }

    /// Takes out the token that follows the one at an offset, and all keys that say something of either. Returns the
    /// offset of the next.
    #[inline]
    fn take(&mut self, at: u8) -> u8 {
        let Node {
            next: right, before, ..
        } = self.nodes[usize::from(at)];
        let next = self.nodes[usize::from(right)].next;
        self.nodes[usize::from(at)].next = next;
        for of in [before, at, right] {
            self.keys[usize::from(of)] = NONE;
        }
        next
    }

    /// Puts a token where two were, and returns the lower of the two keys that this makes.
    #[inline]
    fn put(&mut self, vocabulary: &Vocabulary, at: u8, token: Rank, end: u8) -> Key {
        let Node { next, before, .. } = self.nodes[usize::from(at)];
        self.nodes[usize::from(at)].token = token;
        let mut made = NONE;
        if next != end {
            let next = &mut self.nodes[usize::from(next)];
            next.before = at;
            made = key(vocabulary.join(token, next.token), at);
            self.keys[usize::from(at)] = made;
        }
        if at > 0 {
            let key = key(
                vocabulary.join(self.nodes[usize::from(before)].token, token),
                before,
            );
            self.keys[usize::from(before)] = key;
            made = lower(made, key);
        }
        made
    }
}

/// Counts the tokens of three bytes.
#[inline]
fn three(vocabulary: &Vocabulary, first: u8, second: u8, third: u8) -> u64 {
    let left = vocabulary.pair(first, second);
    let right = vocabulary.pair(second, third);
    let lower = left.min(right);
    if lower == NO_RANK {
        return 3;
    }
    let (left, right) = if left == lower {
        (left, vocabulary.byte(third))
    } else {
        (vocabulary.byte(first), right)
    };
    2 - u64::from(vocabulary.join(left, right) != NO_RANK)
}

#[inline]
fn key(rank: Rank, at: u8) -> Key {
    if rank == NO_RANK {
        NONE
    } else {
        Key::from_bits(NORMAL + (rank << 8 | Rank::from(at)))
    }
}

/// Returns the lower of two keys; neither is NaN.
#[inline]
fn lower(a: Key, b: Key) -> Key {
    if a < b { a } else { b }
}

/// Returns the lowest of blocks of keys.
#[inline]
fn least(keys: &[Key]) -> Key {
    let mut lanes = [NONE; BLOCK];
    for block in keys.chunks_exact(BLOCK) {
        for (lane, &key) in lanes.iter_mut().zip(block) {
            *lane = lower(*lane, key);
        }
    }
    let mut width = BLOCK;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = lower(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoding::Encoding;

    /// Merging without any cleverness: the leftmost of the lowest rank, until none is left.
    fn merged(ranks: &dyn Fn(&[u8]) -> Option<u32>, bytes: &[u8]) -> u64 {
        let mut cuts: Vec<usize> = (0..=bytes.len()).collect();
        loop {
            let pairs = cuts.windows(3).enumerate();
            let lowest = pairs
                .filter_map(|(at, cuts)| Some((ranks(&bytes[cuts[0]..cuts[2]])?, at)))
                .min();
            let Some((_, at)) = lowest else {
                return cuts.len() as u64 - 1;
            };
            cuts.remove(at + 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn pieces_are_merged_as_by_the_book(text in prop::sample::select(&[
            "[a-z]{0,60}", "[ab]{0,128}", "(aa|ab|x){0,50}", "[=\\-_]{0,120}", " {0,128}", "[é中👍\u{301}]{0,30}", ".{0,40}",
        ][..]).prop_flat_map(|kind| kind)) {
            prop_assume!(text.len() <= WHOLE);
            for encoding in Encoding::ALL {
                let ranks = encoding.ranks();
                let rank = |bytes: &[u8]| ranks.get(bytes).copied();
                let expected = if rank(text.as_bytes()).is_some() { 1 } else { merged(&rank, text.as_bytes()) };
                let mut merger = Merger::new();
                prop_assert_eq!(merger.count(encoding.vocabulary(), &text), expected, "{:?}", text);
                prop_assert!(merger.steps <= text.len() as u64);
            }
        }

        /// What is cut into stretches is at most a few tokens more for each, and the work is that of its bytes.
        #[test]
        fn long_pieces_are_counted_in_stretches(unit in "[a-z=中 👍]{1,9}", times in 1_usize..400) {
            let text = unit.repeat(times);
            for encoding in Encoding::ALL {
                let mut merger = Merger::new();
                let tokens = merger.count(encoding.vocabulary(), &text);
                prop_assert!(tokens <= text.len() as u64);
                prop_assert!(merger.steps <= text.len() as u64);
            }
        }
    }
}
