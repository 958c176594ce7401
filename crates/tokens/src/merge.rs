//! Byte pair encoding of one piece of text.

use crate::vocabulary::{NO_RANK, Rank, Vocabulary};

/// The longest stretch that is merged as a whole, in bytes. Pieces of real text are far shorter; of a longer one each
/// stretch is merged by itself, which bounds the work for every byte.
pub(crate) const STRETCH: usize = 256;

/// Keys that are looked through at once for the lowest.
const BLOCK: usize = 16;

const BLOCKS: usize = STRETCH / BLOCK;

/// No pair that could be merged.
const NONE: i32 = i32::MAX;

/// The pairs of neighbouring tokens in one stretch of bytes.
///
/// A token is known by the offset of its first byte. Its key says when it is merged with the one that follows: the rank
/// of both together and, below it, the offset, so that the lowest key is the leftmost of the lowest rank. The lowest of
/// each block of keys is kept, and of those the lowest is looked for: 16 and 16 comparisons instead of 256.
pub(crate) struct Merger {
    keys: [i32; STRETCH],
    lowest: [i32; BLOCKS],
    /// The blocks of which the lowest key may have changed, a bit each.
    changed: u32,
    tokens: [Rank; STRETCH],
    /// The offset behind each token.
    ends: [u16; STRETCH + 1],
    /// The offset of the token before.
    starts: [u16; STRETCH + 1],
    /// How often the lowest key was looked for and how often two tokens were merged, to measure work by.
    pub(crate) steps: u64,
}

impl Merger {
    pub(crate) fn new() -> Self {
        Self {
            keys: [NONE; STRETCH],
            lowest: [NONE; BLOCKS],
            changed: 0,
            tokens: [0; STRETCH],
            ends: [0; STRETCH + 1],
            starts: [0; STRETCH + 1],
            steps: 0,
        }
    }

    /// Counts the tokens of one piece. In stretches, if it is longer than [`STRETCH`].
    #[inline]
    pub(crate) fn count(&mut self, vocabulary: &Vocabulary, piece: &str) -> u64 {
        let bytes = piece.as_bytes();
        if bytes.len() < 2 {
            return bytes.len() as u64;
        }
        if vocabulary.has(bytes) {
            return 1;
        }
        let mut rest = piece;
        let mut tokens = 0;
        while rest.len() > STRETCH {
            let (stretch, behind) = rest.split_at(rest.floor_char_boundary(STRETCH));
            tokens += self.merge(vocabulary, stretch.as_bytes());
            rest = behind;
        }
        tokens + self.merge(vocabulary, rest.as_bytes())
    }

    /// Merges a stretch of at most [`STRETCH`] bytes until no two neighbours are a token, and returns how many tokens
    /// are left.
    fn merge(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) -> u64 {
        let len = bytes.len().min(STRETCH);
        if len < 2 {
            return len as u64;
        }
        self.fill(vocabulary, &bytes[..len]);
        let mut tokens = len as u64;
        loop {
            let lowest = self.lowest(len.div_ceil(BLOCK));
            if lowest == NONE {
                return tokens;
            }
            let rank = lowest / STRETCH as i32;
            let mut at = lowest as usize % STRETCH;
            // The same pair often follows at once: in a run of one letter the whole run is merged in one go.
            loop {
                tokens -= 1;
                let made = self.join(vocabulary, at, rank as Rank, len);
                let next = usize::from(self.ends[at]);
                if made / STRETCH as i32 <= rank || next >= len || self.keys[next] / STRETCH as i32 != rank {
                    break;
                }
                at = next;
            }
        }
    }

    fn fill(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) {
        let len = bytes.len();
        for (at, pair) in bytes.windows(2).enumerate() {
            self.keys[at] = key(vocabulary.pair(pair[0], pair[1]), at);
        }
        self.keys[len - 1..len.next_multiple_of(BLOCK)].fill(NONE);
        for (at, &byte) in bytes.iter().enumerate() {
            self.tokens[at] = vocabulary.byte(byte);
            self.ends[at] = (at + 1) as u16;
            self.starts[at + 1] = at as u16;
        }
        self.changed = ((1_u64 << len.div_ceil(BLOCK)) - 1) as u32;
    }

    /// Merges the token at an offset with the one that follows, and returns the lower of the two keys that this makes.
    fn join(&mut self, vocabulary: &Vocabulary, at: usize, rank: Rank, len: usize) -> i32 {
        self.steps += 1;
        let right = usize::from(self.ends[at]);
        let end = usize::from(self.ends[right]);
        self.tokens[at] = rank;
        self.ends[at] = end as u16;
        self.starts[end] = at as u16;
        self.set(right, NONE);
        let mut made = NONE;
        if end < len {
            made = key(vocabulary.join(rank, self.tokens[end]), at);
        }
        self.set(at, made);
        if at > 0 {
            let before = usize::from(self.starts[at]);
            let key = key(vocabulary.join(self.tokens[before], rank), before);
            self.set(before, key);
            made = made.min(key);
        }
        made
    }

    fn set(&mut self, at: usize, key: i32) {
        self.keys[at] = key;
        self.changed |= 1 << (at / BLOCK);
    }

    /// Returns the lowest key.
    fn lowest(&mut self, blocks: usize) -> i32 {
        self.steps += 1;
        while self.changed != 0 {
            let block = self.changed.trailing_zeros() as usize % BLOCKS;
            self.changed &= self.changed - 1;
            let keys = &self.keys[block * BLOCK..(block + 1) * BLOCK];
            self.lowest[block] = keys.iter().copied().fold(NONE, i32::min);
        }
        self.lowest[..blocks].iter().copied().fold(NONE, i32::min)
    }
}

/// Returns when a pair is merged: by rank, then from left to right.
fn key(rank: Rank, at: usize) -> i32 {
    if rank == NO_RANK {
        NONE
    } else {
        (rank as usize * STRETCH + at) as i32
    }
}
