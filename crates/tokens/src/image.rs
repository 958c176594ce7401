//! What an image costs, from its width and height.

mod dimensions;

pub use dimensions::Dimensions;

/// How closely the model is to look, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Detail {
    /// A small version only.
    Low,
    /// At most the model's budget.
    High,
    /// As it is, where the model can.
    Original,
    /// The model's choice: the most that it may take.
    #[default]
    Auto,
}

impl Detail {
    /// Reads the value of `detail` in a request; what is unknown counts as [`Detail::Auto`].
    pub fn named(name: &str) -> Self {
        match name {
            "low" => Self::Low,
            "high" => Self::High,
            "original" => Self::Original,
            _ => Self::Auto,
        }
    }
}

/// The larger side, in pixels, beyond which no provider looks; sizes above it are cut before anything is computed.
const SIDE_MAX: u32 = 1 << 20;

/// How a model turns images to tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageCost {
    /// A base and a cost for each tile of 512 pixels, of an image that fits into 2,048 × 2,048 and whose shorter side is
    /// at most 768. Low detail is the base.
    Tiles {
        /// Tokens of any image.
        base: u64,
        /// Tokens of each tile.
        tile: u64,
    },
    /// Patches of 32 pixels, scaled down to a budget, times a factor.
    Patches {
        /// Hundredths of a token for each patch.
        percent: u64,
        /// The most patches of an image with high detail.
        high: u64,
        /// The most patches of an image with original detail or the model's choice.
        original: u64,
    },
    /// Patches of 28 pixels, of an image that is scaled down to a longer side and a number of tokens.
    Claude {
        /// The longer side, in pixels.
        side: u32,
        /// The most tokens.
        tokens: u64,
    },
    /// Tiles of a size that depends on the shorter side.
    Gemini {
        /// The least for an image of any size.
        least: u64,
    },
}

/// Patches of an image for which the provider states no budget: 8,192 × 8,192 pixels.
const NO_BUDGET: u64 = 65_536;

impl ImageCost {
    /// Returns what OpenAI's models take; the most that any of them takes, where the model is unknown (providers.md §14).
    pub fn openai(model: &str) -> Self {
        let model = model.rsplit('/').next().unwrap_or_default();
        let has = |part: &str| model.contains(part);
        let patches = |percent, high, original| Self::Patches {
            percent,
            high,
            original,
        };
        let minor = model.strip_prefix("gpt-5.").and_then(|rest| {
            let digits = rest.split(|digit: char| !digit.is_ascii_digit()).next()?;
            digits.parse::<u32>().ok()
        });
        // Budgets are 1,536, or 2,500 and 10,000 for newer models; gpt-5.6 has none.
        let newer = minor.is_some_and(|minor| minor >= 4);
        let (high, original) = match minor {
            Some(..4) | None => (1_536, 1_536),
            Some(4 | 5) => (2_500, 10_000),
            Some(_) => (10_000, NO_BUDGET),
        };
        if has("gpt-4o-mini") {
            Self::Tiles {
                base: 2_833,
                tile: 5_667,
            }
        } else if has("-nano") {
            patches(246, high, original)
        } else if has("o4-mini") {
            patches(172, high, original)
        } else if has("-mini") && (has("gpt-5") || has("gpt-4.1")) {
            patches(162, high, original)
        } else if newer {
            patches(100, high, original)
        } else if has("gpt-5") {
            Self::Tiles { base: 70, tile: 140 }
        } else if has("computer-use") {
            Self::Tiles { base: 65, tile: 129 }
        } else if has("o1") || has("o3") {
            Self::Tiles { base: 75, tile: 150 }
        } else {
            // gpt-4o, gpt-4.1, gpt-4.5, and a sober guess for models that are none of OpenAI's.
            Self::Tiles { base: 85, tile: 170 }
        }
    }

    /// Returns what Claude's models take (providers.md §14); the newer ones look twice as closely.
    pub fn claude(is_new: bool) -> Self {
        if is_new {
            Self::Claude {
                side: 2_576,
                tokens: 4_784,
            }
        } else {
            Self::Claude {
                side: 1_568,
                tokens: 1_568,
            }
        }
    }

    /// Returns what Gemini's models take: 258 a tile; since Gemini 3 at least 1,120 an image, which is the default there
    /// as far as is commonly known.
    pub fn gemini(model: &str) -> Self {
        let older = ["gemini-1", "gemini-2"].iter().any(|name| model.contains(name));
        Self::Gemini {
            least: if older { 258 } else { 1_120 },
        }
    }

    /// Returns the tokens of an image; the most of any image that is looked at, where its size is unknown.
    pub fn tokens(self, dimensions: Option<Dimensions>, detail: Detail) -> u64 {
        let dimensions = dimensions
            .map(|Dimensions { width, height }| (width.clamp(1, SIDE_MAX), height.clamp(1, SIDE_MAX)));
        match self {
            Self::Tiles { base, .. } if detail == Detail::Low => base,
            Self::Tiles { base, tile } => base + tile * dimensions.map_or(TILES_MAX, tiles),
            Self::Patches {
                percent,
                high,
                original,
            } => {
                let budget = match detail {
                    Detail::Low | Detail::High => high,
                    Detail::Original | Detail::Auto => original,
                };
                let patches = dimensions.map_or(budget, |(width, height)| squares(width, height, 32));
                (patches.min(budget) * percent).div_ceil(100)
            }
            Self::Claude { side, tokens } => dimensions.map_or(tokens, |(width, height)| {
                let (width, height) = fit(width, height, side);
                squares(width, height, 28).min(tokens)
            }),
            Self::Gemini { least } => dimensions
                .map_or(GEMINI_TILES, gemini_tiles)
                .saturating_mul(258)
                .max(least),
        }
    }
}

/// The most tiles of an image: 2,048 × 768.
const TILES_MAX: u64 = 8;

/// Tiles of an image of unknown size: 3,072 × 3,072, or any with sides of 3 to 2.
const GEMINI_TILES: u64 = 16;

fn tiles((width, height): (u32, u32)) -> u64 {
    let (width, height) = fit(width, height, 2_048);
    let shorter = width.min(height);
    if shorter <= 768 {
        return squares(width, height, 512);
    }
    let scaled = |side: u32| (u64::from(side) * 768).div_ceil(u64::from(shorter)) as u32;
    squares(scaled(width), scaled(height), 512)
}

/// One tile up to 384 × 384; else tiles of two thirds of the shorter side, 256 to 768 pixels, as is commonly known.
fn gemini_tiles((width, height): (u32, u32)) -> u64 {
    if width.max(height) <= 384 {
        return 1;
    }
    let side = (width.min(height) * 2 / 3).clamp(256, 768);
    squares(width, height, side)
}

/// Scales down, rounding up, so that the longer side is at most so many pixels.
fn fit(width: u32, height: u32, side: u32) -> (u32, u32) {
    let longer = width.max(height);
    if longer <= side {
        return (width, height);
    }
    let scaled = |of: u32| (u64::from(of) * u64::from(side)).div_ceil(u64::from(longer)) as u32;
    (scaled(width), scaled(height))
}

fn squares(width: u32, height: u32, side: u32) -> u64 {
    u64::from(width.div_ceil(side)) * u64::from(height.div_ceil(side))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cost: ImageCost, size: (u32, u32), detail: Detail, tokens: u64) {
        let (width, height) = size;
        let dimensions = Some(Dimensions { width, height });
        assert_eq!(
            cost.tokens(dimensions, detail),
            tokens,
            "{cost:?} {size:?} {detail:?}"
        );
        assert!(
            cost.tokens(None, detail) >= tokens.min(20_000),
            "{cost:?} {size:?} {detail:?}"
        );
    }

    #[test]
    fn openai_counts_tiles() {
        let cost = ImageCost::openai("gpt-4o-2024-08-06");
        check(cost, (1_024, 1_024), Detail::High, 765);
        check(cost, (2_048, 4_096), Detail::High, 1_105);
        check(cost, (4_096, 8_192), Detail::Low, 85);
        check(cost, (512, 512), Detail::Auto, 255);
        check(cost, (1, 1), Detail::Auto, 255);
        check(cost, (u32::MAX, 1), Detail::Auto, 85 + 4 * 170);
        check(cost, (u32::MAX, u32::MAX), Detail::Auto, 765);
        check(
            ImageCost::openai("gpt-4o-mini"),
            (1_024, 1_024),
            Detail::High,
            2_833 + 4 * 5_667,
        );
        check(
            ImageCost::openai("gpt-5"),
            (1_024, 1_024),
            Detail::High,
            70 + 4 * 140,
        );
        check(ImageCost::openai("gpt-5.1"), (1_024, 1_024), Detail::Low, 70);
        check(ImageCost::openai("o3"), (512, 512), Detail::High, 225);
        check(
            ImageCost::openai("computer-use-preview"),
            (512, 512),
            Detail::High,
            194,
        );
    }

    #[test]
    fn openai_counts_patches() {
        check(
            ImageCost::openai("gpt-4.1-mini"),
            (1_024, 1_024),
            Detail::Auto,
            1_659,
        );
        check(
            ImageCost::openai("gpt-4.1-mini"),
            (1_800, 2_400),
            Detail::Auto,
            2_489,
        );
        check(ImageCost::openai("gpt-5-nano"), (32, 32), Detail::High, 3);
        check(
            ImageCost::openai("o4-mini-2025-04-16"),
            (1_024, 1_024),
            Detail::Auto,
            1_762,
        );
        check(
            ImageCost::openai("gpt-5.4-mini"),
            (1_800, 2_400),
            Detail::High,
            4_050,
        );
        check(
            ImageCost::openai("gpt-5.4"),
            (3_200, 3_200),
            Detail::Original,
            10_000,
        );
        check(
            ImageCost::openai("openai/gpt-5.6"),
            (6_400, 3_200),
            Detail::Auto,
            20_000,
        );
    }

    #[test]
    fn claude_counts_patches() {
        let (older, newer) = (ImageCost::claude(false), ImageCost::claude(true));
        check(older, (200, 200), Detail::Auto, 64);
        check(older, (1_000, 1_000), Detail::Auto, 1_296);
        check(older, (1_920, 1_080), Detail::Auto, 1_568);
        check(newer, (1_920, 1_080), Detail::Auto, 2_691);
        check(newer, (u32::MAX, u32::MAX), Detail::Auto, 4_784);
    }

    #[test]
    fn gemini_counts_tiles() {
        let cost = ImageCost::gemini("gemini-2.5-flash");
        check(cost, (384, 384), Detail::Auto, 258);
        check(cost, (960, 540), Detail::Auto, 6 * 258);
        check(ImageCost::gemini("gemini-3-pro"), (10, 10), Detail::Auto, 1_120);
    }
}
