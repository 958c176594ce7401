//! Width and height of an image, read from its first bytes.

/// Width and height of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dimensions {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// Segments of a JPEG that are skipped in search of the one with the size; photographs have ten or so.
const SEGMENTS_MAX: usize = 64;

impl Dimensions {
    /// Reads the size of a PNG, JPEG, GIF or WebP image in base64 (either alphabet, with `data:…;base64,` before it or
    /// not). Only the bytes that say it are decoded: 24 for most, a few of each segment for a JPEG.
    ///
    /// Returns `None` if it is no such image, or is broken.
    pub fn of_base64(text: &str) -> Option<Self> {
        let digits = match text.strip_prefix("data:") {
            Some(url) => url.split_once(',')?.1,
            None => text,
        };
        Self::read(|at| byte_of_base64(digits.as_bytes(), at))
    }

    /// Reads the size of a PNG, JPEG, GIF or WebP image.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Self::read(|at| bytes.get(at).copied())
    }

    fn read(byte: impl Fn(usize) -> Option<u8>) -> Option<Self> {
        let bytes = |at: usize| Some([byte(at)?, byte(at + 1)?]);
        let big = |at| bytes(at).map(u16::from_be_bytes);
        let little = |at| bytes(at).map(|pair| u32::from(u16::from_le_bytes(pair)));
        let word = |at: usize| Some(u32::from(big(at)?) << 16 | u32::from(big(at + 2)?));
        let starts =
            |at: usize, with: &[u8]| (at..).zip(with).all(|(at, &expected)| byte(at) == Some(expected));
        let (width, height) = if starts(0, b"\x89PNG\r\n\x1a\n") {
            (word(16)?, word(20)?)
        } else if starts(0, b"GIF8") {
            (little(6)?, little(8)?)
        } else if starts(0, b"RIFF") && starts(8, b"WEBPVP8 ") {
            (little(26)? & 0x3fff, little(28)? & 0x3fff)
        } else if starts(0, b"RIFF") && starts(8, b"WEBPVP8L") {
            let bits = little(21)? | little(23)? << 16;
            ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
        } else if starts(0, b"RIFF") && starts(8, b"WEBPVP8X") {
            let side = |at: usize| Some((little(at)? | u32::from(byte(at + 2)?) << 16) + 1);
            (side(24)?, side(27)?)
        } else if starts(0, b"\xff\xd8") {
            let frame = jpeg_frame(&byte, big)?;
            (u32::from(big(frame + 7)?), u32::from(big(frame + 5)?))
        } else {
            return None;
        };
        (width > 0 && height > 0).then_some(Self { width, height })
    }
}

/// Returns where the segment with the size starts.
fn jpeg_frame(byte: impl Fn(usize) -> Option<u8>, big: impl Fn(usize) -> Option<u16>) -> Option<usize> {
    let mut at = 2;
    for _ in 0..SEGMENTS_MAX {
        if byte(at)? != 0xff {
            return None;
        }
        match byte(at + 1)? {
            // Start of a frame; the three between are tables.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return Some(at),
            // Fill bytes, and markers without a length.
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            // The image ends or its data begin.
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::from(big(at + 2)?),
        }
    }
    None
}

/// Decodes one byte of base64 without line breaks.
fn byte_of_base64(digits: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| {
        Some(u32::from(match *digits.get(at)? {
            upper @ b'A'..=b'Z' => upper - b'A',
            lower @ b'a'..=b'z' => lower - b'a' + 26,
            number @ b'0'..=b'9' => number - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        }))
    };
    let first = at / 3 * 4 + at % 3;
    let both = digit(first)? << 6 | digit(first + 1)?;
    Some((both >> (4 - 2 * (at % 3))) as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut word = [0; 3];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
            for digit in 0..4 {
                let is_there = digit <= chunk.len();
                let value = word >> (18 - 6 * digit) & 0x3f;
                text.push(if is_there {
                    char::from(DIGITS[value as usize])
                } else {
                    '='
                });
            }
        }
        text
    }

    fn check(bytes: &[u8], expected: Option<(u32, u32)>) {
        let expected = expected.map(|(width, height)| Dimensions { width, height });
        assert_eq!(Dimensions::of_bytes(bytes), expected, "{bytes:?}");
        let text = encode(bytes);
        assert_eq!(Dimensions::of_base64(&text), expected, "{text}");
        assert_eq!(
            Dimensions::of_base64(&format!("data:image/x;base64,{text}")),
            expected
        );
        for len in 0..bytes.len() {
            let cut = Dimensions::of_bytes(&bytes[..len]);
            assert!(cut.is_none() || cut == expected, "cut at {len}");
        }
    }

    #[test]
    fn sizes_are_read() {
        check(
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x02",
            Some((640, 480)),
        );
        check(b"GIF89a\x40\x01\xf0\x00\x80", Some((320, 240)));
        check(
            b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x26\x02\x70\x01",
            Some((550, 368)),
        );
        check(
            b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x8f\x81\x63\x10\0\0",
            Some((400, 399)),
        );
        check(
            b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x8f\x01\0\x2c\x01\0",
            Some((400, 301)),
        );
        // An application segment, a table, then the frame.
        let jpeg = b"\xff\xd8\xff\xe0\0\x06JFIF\xff\xdb\0\x04qq\xff\xc2\0\x11\x08\x01\xe0\x02\x80\x03";
        check(jpeg, Some((640, 480)));
    }

    #[test]
    fn what_is_no_image_has_no_size() {
        check(b"", None);
        check(b"%PDF-1.7", None);
        check(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\0\0\0\x01\xe0", None);
        check(&[&b"\xff\xd8"[..], &b"\xff\xe1\0\x02".repeat(100)].concat(), None);
        assert_eq!(Dimensions::of_base64("data:image/png"), None);
        assert_eq!(Dimensions::of_base64("iVBOR w0KGgo"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), head in 0_usize..6) {
            let heads: [&[u8]; 6] = [b"", b"\xff\xd8", b"GIF89a", b"RIFF1234WEBPVP8X", b"RIFF1234WEBPVP8 ", b"\xff\xd8\xff\xc0"];
            let bytes = [heads[head], &bytes].concat();
            prop_assert_eq!(Dimensions::of_bytes(&bytes), Dimensions::of_base64(&encode(&bytes)));
        }

        #[test]
        fn no_text_is_a_panic(text in ".*") {
            Dimensions::of_base64(&text);
        }
    }
}
