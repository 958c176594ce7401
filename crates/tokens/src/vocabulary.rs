//! The tokens of an encoding: found by their bytes, and by the two tokens that they are merged from.

/// A token's rank, which is its number too: the lower, the earlier it is merged.
pub(crate) type Rank = u32;

/// What every rank is below: 18 bits hold both encodings (100,256 and 199,998 tokens).
const RANK_BITS: u32 = 18;

/// No token.
pub(crate) const NO_RANK: Rank = Rank::MAX;

/// The tokens of one encoding.
///
/// The bytes stay where they are, in the program's read-only data; only the indexes are built, on first use.
pub(crate) struct Vocabulary {
    /// Every token in the order of ranks: its length, the length of its left part, its bytes.
    packed: &'static [u8],
    /// Where each token of three bytes or more stands: offset × 256 + length.
    tokens: Index<u32>,
    /// The tokens of two bytes.
    pairs: Box<[Rank]>,
    /// The token of each byte.
    bytes: [Rank; 256],
    /// What two tokens are merged to.
    joins: Joins,
    /// The longest token, in bytes.
    longest: usize,
}

/// One token as it is packed.
struct Packed<'p> {
    bytes: &'p [u8],
    /// Where the bytes start.
    offset: usize,
    /// The left and right parts of the last merge; `None` for single bytes and for what merging never arrives at.
    parts: Option<(&'p [u8], &'p [u8])>,
}

impl Vocabulary {
    /// Builds the indexes of packed tokens.
    pub(crate) fn unpack(packed: &'static [u8]) -> Self {
        let len = unpacked(packed).count();
        let mut vocabulary = Self {
            packed,
            tokens: Index::with_capacity(len),
            pairs: vec![NO_RANK; 1 << 16].into_boxed_slice(),
            bytes: [NO_RANK; 256],
            joins: Joins::with_capacity(len),
            longest: 0,
        };
        // Needed while building only: the ranks of the tokens in the index.
        let mut ranks = vec![NO_RANK; vocabulary.tokens.tags.len()];
        for (rank, token) in (0_u32..).zip(unpacked(packed)) {
            vocabulary.longest = vocabulary.longest.max(token.bytes.len());
            match *token.bytes {
                [] => {}
                [byte] => vocabulary.bytes[usize::from(byte)] = rank,
                [first, second] => vocabulary.pairs[pair_index(first, second)] = rank,
                _ => {
                    let slot = (token.offset << 8 | token.bytes.len()) as u32;
                    let at = vocabulary.tokens.insert(hash(token.bytes), slot);
                    ranks[at] = rank;
                }
            }
        }
        for (rank, token) in (0_u32..).zip(unpacked(packed)) {
            let Some((left, right)) = token.parts else {
                continue;
            };
            let (left, right) = (vocabulary.rank(left, &ranks), vocabulary.rank(right, &ranks));
            vocabulary.joins.insert(left, right, rank);
        }
        vocabulary
    }

    /// Returns all tokens in the order of ranks.
    #[cfg(test)]
    pub(crate) fn tokens(packed: &[u8]) -> impl Iterator<Item = &[u8]> {
        unpacked(packed).map(|token| token.bytes)
    }

    fn rank(&self, bytes: &[u8], ranks: &[Rank]) -> Rank {
        match *bytes {
            [byte] => self.bytes[usize::from(byte)],
            [first, second] => self.pair(first, second),
            _ => self.find(bytes).map_or(NO_RANK, |at| ranks[at]),
        }
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        self.tokens.find(hash(bytes), |slot| {
            let (offset, len) = ((slot >> 8) as usize, slot as usize & 0xff);
            len == bytes.len() && &self.packed[offset..offset + len] == bytes
        })
    }

    /// Whether these bytes, two or more, are a token.
    #[inline]
    pub(crate) fn has(&self, bytes: &[u8]) -> bool {
        if let [first, second] = *bytes {
            return self.pair(first, second) != NO_RANK;
        }
        bytes.len() <= self.longest && self.find(bytes).is_some()
    }

    /// Returns the token of one byte.
    #[inline]
    pub(crate) fn byte(&self, byte: u8) -> Rank {
        self.bytes[usize::from(byte)]
    }

    /// Returns the token of two bytes, or [`NO_RANK`].
    #[inline]
    pub(crate) fn pair(&self, first: u8, second: u8) -> Rank {
        self.pairs[pair_index(first, second)]
    }

    /// Returns the token that two tokens are merged to, or [`NO_RANK`].
    ///
    /// One pair for each token is enough, although others have the same bytes: while bytes are merged, what happens
    /// between two cuts that stay does not depend on what is outside of them, so a token always comes from the same two.
    #[inline]
    pub(crate) fn join(&self, left: Rank, right: Rank) -> Rank {
        self.joins.find(left, right)
    }

    /// Returns the heap that the indexes take, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.tokens.heap_bytes() + self.joins.heap_bytes() + size_of_val(&*self.pairs)
    }
}

fn unpacked(packed: &[u8]) -> impl Iterator<Item = Packed<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let [len, left, ..] = *packed.get(at..)? else {
            return None;
        };
        let offset = at + 2;
        let bytes = packed.get(offset..offset + usize::from(len))?;
        at = offset + bytes.len();
        let parts = bytes
            .split_at_checked(usize::from(left))
            .filter(|(left, _)| !left.is_empty());
        Some(Packed { bytes, offset, parts })
    })
}

/// A table with open addressing. One byte of each hash stands in an array of its own, so that what is not there is told
/// without leaving the processor's cache. What is found is compared in full: no hash is trusted.
struct Index<T> {
    /// One byte of the hash in each slot; 0 where the slot is empty.
    tags: Box<[u8]>,
    slots: Box<[T]>,
    /// The place of a hash is its upper bits.
    shift: u32,
}

impl<T: Copy + Default> Index<T> {
    /// At least half of the slots stay empty, so every search ends soon.
    fn with_capacity(len: usize) -> Self {
        let slots = (len.max(1) * 2).next_power_of_two();
        Self {
            tags: vec![0; slots].into_boxed_slice(),
            slots: vec![T::default(); slots].into_boxed_slice(),
            shift: 64 - slots.trailing_zeros(),
        }
    }

    fn place(&self, hash: u64) -> (u8, usize) {
        ((hash as u8).max(1), (hash >> self.shift) as usize)
    }

    fn insert(&mut self, hash: u64, value: T) -> usize {
        let (tag, mut at) = self.place(hash);
        while self.tags[at] != 0 {
            at = (at + 1) & (self.tags.len() - 1);
        }
        self.tags[at] = tag;
        self.slots[at] = value;
        at
    }

    #[inline]
    fn find(&self, hash: u64, is: impl Fn(T) -> bool) -> Option<usize> {
        let (tag, mut at) = self.place(hash);
        loop {
            match self.tags[at] {
                0 => return None,
                found if found == tag && is(self.slots[at]) => return Some(at),
                _ => at = (at + 1) & (self.tags.len() - 1),
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        size_of_val(&*self.tags) + size_of_val(&*self.slots)
    }
}

/// A table from two tokens to the one that they are merged to.
///
/// Most pairs that are asked for are none, so a filter stands before it: a bit for each of 16 hashes or more that any pair
/// could have, few enough to stay in the processor's cache, and rarely wrong.
struct Joins {
    filter: Box<[u64]>,
    /// Left, right and joined rank, 18 bits each, in open addressing; 0 where the slot is empty.
    slots: Box<[u64]>,
    /// The place of a hash is its upper bits.
    shift: u32,
}

/// Bits of the filter for each slot, as a power of two.
const FILTER_BITS: u32 = 3;

impl Joins {
    /// At least half of the slots stay empty, so every search ends soon.
    fn with_capacity(len: usize) -> Self {
        let slots = (len.max(32) * 2).next_power_of_two();
        Self {
            filter: vec![0; (slots << FILTER_BITS) / 64].into_boxed_slice(),
            slots: vec![0; slots].into_boxed_slice(),
            shift: 64 - slots.trailing_zeros(),
        }
    }

    fn insert(&mut self, left: Rank, right: Rank, joined: Rank) {
        let key = join_key(left, right);
        let hash = fold(key, MULTIPLIER);
        let bit = hash >> (self.shift - FILTER_BITS);
        self.filter[(bit / 64) as usize] |= 1 << (bit % 64);
        let mut at = (hash >> self.shift) as usize;
        while self.slots[at] != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = key << RANK_BITS | u64::from(joined);
    }

    #[inline]
    fn find(&self, left: Rank, right: Rank) -> Rank {
        let key = join_key(left, right);
        let hash = fold(key, MULTIPLIER);
        let bit = hash >> (self.shift - FILTER_BITS);
        if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return NO_RANK;
        }
        let mut at = (hash >> self.shift) as usize;
        loop {
            match self.slots[at] {
                0 => return NO_RANK,
                slot if slot >> RANK_BITS == key => return slot as Rank & ((1 << RANK_BITS) - 1),
                _ => at = (at + 1) & (self.slots.len() - 1),
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        size_of_val(&*self.filter) + size_of_val(&*self.slots)
    }
}

fn pair_index(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

fn join_key(left: Rank, right: Rank) -> u64 {
    u64::from(left) << RANK_BITS | u64::from(right)
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes three bytes or more, reading them in overlapping words. How well matters for speed only.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let len = bytes.len() as u64;
    let mixed = if let (Some(head), Some(tail)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let mut mixed = u64::from_le_bytes(*head);
        for middle in bytes[8..].chunks_exact(8) {
            mixed = fold(mixed ^ MULTIPLIER, MULTIPLIER)
                ^ u64::from_le_bytes(middle.try_into().unwrap_or_default());
        }
        fold(mixed ^ MULTIPLIER, MULTIPLIER) ^ u64::from_le_bytes(*tail)
    } else if let (Some(head), Some(tail)) = (bytes.first_chunk(), bytes.last_chunk()) {
        u64::from(u32::from_le_bytes(*head)) | u64::from(u32::from_le_bytes(*tail)) << 32
    } else if let [first, second, third] = *bytes {
        u64::from(first) | u64::from(second) << 8 | u64::from(third) << 16
    } else {
        0
    };
    fold(mixed ^ len << 56, MULTIPLIER)
}

/// Multiplies and lays the upper half over the lower one.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::encoding::Encoding;

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut word = [0; 4];
            word[1..=chunk.len()].copy_from_slice(chunk);
            let word = u32::from_be_bytes(word);
            for digit in 0..=chunk.len() {
                text.push(char::from(DIGITS[(word >> (18 - 6 * digit) & 0x3f) as usize]));
            }
            text.push_str(&"=="[..3 - chunk.len()]);
        }
        text
    }

    #[test]
    fn vocabularies_are_what_openai_publishes() {
        // The SHA-256 of the published files, as tiktoken's source states them.
        let check = |encoding: Encoding, expected: &str| {
            let mut published = String::new();
            for (rank, token) in unpacked(encoding.packed()).enumerate() {
                writeln!(published, "{} {rank}", encode(token.bytes)).unwrap();
            }
            let hash = Sha256::digest(published.as_bytes());
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, expected, "{encoding:?}");
        };
        check(
            Encoding::Cl100k,
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        );
        check(
            Encoding::O200k,
            "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        );
    }

    #[test]
    fn every_token_is_found_both_ways() {
        for encoding in Encoding::ALL {
            let vocabulary = Vocabulary::unpack(encoding.packed());
            let mut ranks = std::collections::HashMap::new();
            for (rank, token) in (0_u32..).zip(unpacked(encoding.packed())) {
                ranks.insert(token.bytes, rank);
                assert!(
                    token.bytes.len() < 2 || vocabulary.has(token.bytes),
                    "{:?}",
                    token.bytes
                );
            }
            for token in unpacked(encoding.packed()) {
                let Some((left, right)) = token.parts else {
                    assert_eq!(token.bytes.len(), 1, "merging arrives at every other token");
                    continue;
                };
                assert_eq!(vocabulary.join(ranks[left], ranks[right]), ranks[token.bytes]);
            }
        }
    }

    #[test]
    fn broken_data_are_no_panic() {
        for packed in [
            &[][..],
            &[3, 1],
            &[3, 9, b'a', b'b', b'c'],
            &[0, 0, 1, 1, b'a', 2, 1, b'a', b'b'],
        ] {
            assert!(!Vocabulary::unpack(packed).has(b"abd"));
        }
    }
}
