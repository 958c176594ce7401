//! The tokens of a request to a language model, counted before it is sent.
//!
//! A limiter has to know what a request will be charged before the provider says so. What providers charge differs:
//! OpenAI's limiter looks at characters, most others at real tokens, and only some tokenizers are public. [`Counting`] says
//! which way is right for a platform and a model, [`Encoding`] counts real tokens where that can be done, [`ImageCost`]
//! knows what an image costs from its width and height.
//!
//! Where something is unknown, the count is too high rather than too low. Everything is linear in the length of the text
//! and bounded by it, and no input reaches a panic.
//!
//! ```
//! use tidegate_tokens::Encoding;
//!
//! let encoding = Encoding::for_model("gpt-oss-120b").expect("its tokenizer is public");
//! assert_eq!(encoding.count("Who is Joseph Conrad?"), 5);
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod chat;
mod class;
mod counting;
mod encoding;
mod image;
mod merge;
mod split;
mod tools;
mod vocabulary;

pub use chat::{ChatFrame, claude_tools_tokens};
pub use counting::{Counting, Platform, Ratio, TextCount};
pub use encoding::Encoding;
pub use image::{Detail, Dimensions, ImageCost};
pub use tools::FunctionCount;
