//! What the input of a request is charged, estimated before it is sent.

use tidegate_core::{TextShape, Tokens};
use tidegate_tokens::{ChatFrame, Counting, Detail, Encoding, ImageCost, Platform, claude_tools_tokens};

use super::tally::Tally;
use super::{Endpoint, Provider};

/// Tokens around a message, where the tokenizer is not public.
const FRAME_TOKENS: u64 = 8;

/// Tokens of one clip, or of one page: of Claude's 1,500 to 3,000, and of others' what four tiles of an image are.
const CLAUDE_PAGE_TOKENS: u64 = 3_000;
const PAGE_TOKENS: u64 = 765;

/// How one provider charges the input of one operation for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Input<'m> {
    endpoint: Endpoint,
    platform: Platform,
    counting: Counting,
    model: &'m str,
}

impl<'m> Input<'m> {
    /// Of an operation at a provider.
    pub(super) fn of(endpoint: Endpoint, provider: Provider, model: &'m str) -> Self {
        let platform = match provider {
            Provider::OpenAi | Provider::Azure => Platform::OpenAi,
            Provider::Anthropic => Platform::Anthropic,
            Provider::Gemini | Provider::Vertex => Platform::Gemini,
            Provider::Bedrock | Provider::BedrockMantle => Platform::Bedrock,
            Provider::Groq
            | Provider::Mistral
            | Provider::OpenRouter
            | Provider::DeepSeek
            | Provider::Cohere
            | Provider::Compatible => Platform::Other,
        };
        Self {
            endpoint,
            platform,
            counting: Counting::of(platform, model),
            model,
        }
    }

    /// Of an operation before anything is known of where it goes.
    pub(super) fn unattributed(endpoint: Endpoint) -> Self {
        Self::of(
            endpoint,
            if is_claude(endpoint) {
                Provider::Anthropic
            } else {
                Provider::OpenAi
            },
            "",
        )
    }

    /// Returns the encoding in which the texts are to be counted, if they are.
    pub(super) fn encoding(&self) -> Option<Encoding> {
        match self.counting {
            Counting::Encoded(encoding) => Some(encoding),
            Counting::Quarter | Counting::Bytes(_) => None,
        }
    }

    /// Returns the tokens of a request with these texts, which are counted in [`Self::encoding`] where there is one.
    pub(super) fn tokens(&self, text: &Tally, has_tools: bool) -> Tokens {
        let shape = TextShape {
            characters: text.characters,
            messages: text.messages,
            attachments: 0,
        };
        let is_conversation = !takes_inputs(self.endpoint);
        let texts = match self.counting {
            Counting::Quarter if is_conversation => shape.openai_tokens().value(),
            Counting::Quarter => shape.embedding_tokens().value(),
            Counting::Encoded(_) if is_conversation => {
                let frame = ChatFrame::for_model(self.model).tokens(text.messages, 0);
                text.tokens.saturating_add(frame)
            }
            Counting::Encoded(_) => text.tokens.saturating_add(text.messages),
            Counting::Bytes(ratio) => {
                let bytes = text.characters.saturating_add(text.bytes_beyond);
                let frame = if is_conversation { FRAME_TOKENS } else { 1 };
                ratio
                    .tokens(bytes)
                    .saturating_add(text.messages.saturating_mul(frame))
            }
        };
        let mut tokens = texts.saturating_add(self.attachments(text));
        // Whether one of them has to be used is not read; that is the larger prompt.
        let is_claude = match self.model {
            "" => is_claude(self.endpoint),
            model => self.endpoint == Endpoint::Messages || model.contains("claude"),
        };
        if has_tools && is_claude {
            tokens = tokens.saturating_add(claude_tools_tokens(self.model, true));
        }
        Tokens::new(tokens)
    }

    /// Returns the tokens of images, clips and pages.
    fn attachments(&self, text: &Tally) -> u64 {
        let cost = Counting::image_cost(self.platform, self.model);
        let pictures = text
            .pictures
            .iter()
            .map(|picture| cost.tokens(picture.dimensions, picture.detail));
        let pictures = pictures.fold(0, u64::saturating_add);
        let page = match cost {
            ImageCost::Claude { tokens, .. } => tokens.max(CLAUDE_PAGE_TOKENS),
            ImageCost::Gemini { .. } => cost.tokens(None, Detail::Auto),
            ImageCost::Tiles { .. } | ImageCost::Patches { .. } => PAGE_TOKENS,
        };
        let others = text.attachments.saturating_sub(text.pictures.len() as u64);
        pictures.saturating_add(others.saturating_mul(page))
    }
}

/// Whether an operation is most often Claude's: its own, and Bedrock's.
fn is_claude(endpoint: Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::Messages
            | Endpoint::Converse
            | Endpoint::ConverseStream
            | Endpoint::InvokeModel
            | Endpoint::InvokeModelStream
    )
}

/// Whether an operation takes texts one by one, with nothing around them.
fn takes_inputs(endpoint: Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::EmbedContent
            | Endpoint::BatchEmbedContents
            | Endpoint::Predict
            | Endpoint::CohereEmbed
            | Endpoint::Rerank
    )
}

#[cfg(test)]
mod tests {
    use super::super::RequestFacts;
    use super::*;

    /// Input tokens of a body at a provider, for the model that the body names.
    fn check(provider: Provider, endpoint: Endpoint, body: &str, expected: u64) {
        let mut facts =
            RequestFacts::read(endpoint, body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        let model = facts.model.clone();
        facts.count(body.as_bytes(), provider, model.as_deref());
        assert_eq!(facts.demand().input, Tokens::new(expected), "{provider}: {body}");
    }

    #[test]
    fn texts_are_counted_as_they_are_charged() {
        use Endpoint::{ChatCompletions, Embeddings, Messages};
        let body = |model: &str| {
            format!(
                r#"{{"messages":[{{"role":"user","content":"Who is Joseph Conrad?"}}],"model":"{model}"}}"#
            )
        };
        // 21 characters; 5 tokens, and 12 were reported for gpt-4.
        check(Provider::OpenAi, ChatCompletions, &body("gpt-4"), 10);
        check(Provider::Azure, ChatCompletions, &body("gpt-4o"), 10);
        check(Provider::Compatible, ChatCompletions, &body("gpt-4"), 12);
        check(Provider::OpenRouter, ChatCompletions, &body("openai/gpt-4o"), 12);
        check(Provider::Groq, ChatCompletions, &body("openai/gpt-oss-120b"), 107);
        check(
            Provider::Groq,
            ChatCompletions,
            &body("llama-3.3-70b-versatile"),
            15,
        );
        check(Provider::Mistral, ChatCompletions, &body("mistral-large"), 15);
        check(Provider::Gemini, ChatCompletions, &body("gemini-2.5-pro"), 14);
        check(Provider::Anthropic, Messages, &body("claude-sonnet-4-5"), 14);
        check(Provider::Anthropic, Messages, &body("claude-opus-5"), 16);
        check(
            Provider::Bedrock,
            Endpoint::Converse,
            &body("anthropic.claude-opus-4-8"),
            16,
        );
        let inputs = r#"{"model":"text-embedding-3-small","input":["Hello, world?","\u4f60\u597d"]}"#;
        check(Provider::OpenAi, Embeddings, inputs, 6);
        check(Provider::Compatible, Embeddings, inputs, 8);
    }

    #[test]
    fn tokens_given_as_numbers_are_tokens() {
        let body = r#"{"model":"text-embedding-3-small","input":[[1,22222,3],[4]]}"#;
        check(Provider::Compatible, Endpoint::Embeddings, body, 6);
        check(Provider::OpenAi, Endpoint::Embeddings, body, 6);
    }

    #[test]
    fn images_cost_by_their_size() {
        // A PNG of 640 × 480, as far as its first bytes.
        let png = "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAIAAAC6s0uzAAAA";
        let chat = |model: &str, detail: &str| {
            format!(
                r#"{{"model":"{model}","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{png}","detail":"{detail}"}}}}]}}]}}"#
            )
        };
        use Endpoint::{ChatCompletions, GenerateContent, Messages};
        check(
            Provider::OpenAi,
            ChatCompletions,
            &chat("gpt-4o", "high"),
            4 + 85 + 2 * 170,
        );
        check(Provider::OpenAi, ChatCompletions, &chat("gpt-4o", "low"), 4 + 85);
        check(
            Provider::OpenAi,
            ChatCompletions,
            &chat("gpt-4.1-mini", "auto"),
            4 + 486,
        );
        let message = |model: &str| {
            format!(
                r#"{{"model":"{model}","messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{png}"}}}}]}}]}}"#
            )
        };
        check(
            Provider::Anthropic,
            Messages,
            &message("claude-sonnet-4-5"),
            8 + 23 * 18,
        );
        let url = r#"{"model":"claude-opus-5","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}]}]}"#;
        check(Provider::Anthropic, Messages, url, 8 + 4_784);
        let parts = format!(
            r#"{{"model":"gemini-2.5-flash","contents":[{{"role":"user","parts":[{{"inlineData":{{"mimeType":"image/png","data":"{png}"}}}}]}}]}}"#
        );
        check(Provider::Gemini, GenerateContent, &parts, 8 + 4 * 258);
    }

    #[test]
    fn tools_bring_a_prompt_of_claudes_own() {
        let body = r#"{"model":"claude-opus-4-6","messages":[],"tools":[{"name":"f","input_schema":{}}]}"#;
        let schema = 4 + 2 + 1 + 12 + 2;
        check(
            Provider::Anthropic,
            Endpoint::Messages,
            body,
            589 + (schema * 10_u64).div_ceil(35),
        );
    }
}
