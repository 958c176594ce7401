use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use crate::azure;
use crate::body::Answering;
use crate::problem::{ANTHROPIC_ORGANIZATION, Context, OPENAI_ORGANIZATION, Problem, write_headers};
use crate::provider::Provider;
use crate::state::State;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What every response of one request carries.
pub(crate) struct Stamp {
    provider: Provider,
    pub(crate) id: u64,
    /// When the request had arrived.
    arrived: Instant,
    pub(crate) headers: HeaderMap,
}

impl Stamp {
    pub(crate) fn new(provider: Provider, id: u64) -> Self {
        Self {
            provider,
            id,
            arrived: Instant::now(),
            headers: HeaderMap::with_capacity(16),
        }
    }

    pub(crate) fn problem(
        mut self,
        state: &State,
        name: &'static str,
        problem: &Problem,
        context: &Context<'_>,
    ) -> Response<Answering> {
        let told = problem.told(context);
        write_headers(&told, &mut self.headers);
        self.response(state, name, told.status, JSON, Answering::whole(told.body))
    }

    pub(crate) fn response(
        mut self,
        state: &State,
        name: &'static str,
        status: u16,
        kind: HeaderValue,
        body: Answering,
    ) -> Response<Answering> {
        state.record(|recorder| recorder.answer(name, status));
        self.write_identity();
        self.headers.insert(CONTENT_TYPE, kind);
        let mut response = Response::new(body);
        // Statuses are bounded where they are set: 100 to 599.
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        response
    }

    /// Adds the request's id, under the provider's name for it.
    fn write_identity(&mut self) {
        let text = request_id(self.id);
        let id = HeaderValue::from_str(&text).expect("ids are plain ASCII");
        let headers = &mut self.headers;
        match self.provider {
            Provider::OpenAi => {
                headers.insert(HeaderName::from_static("x-request-id"), id);
                let organization = HeaderValue::from_static(OPENAI_ORGANIZATION);
                headers.insert(HeaderName::from_static("openai-organization"), organization);
                let version = HeaderValue::from_static("2020-10-01");
                headers.insert(HeaderName::from_static("openai-version"), version);
                let millis = u64::try_from(self.arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
                let millis = HeaderValue::from(millis.max(1));
                headers.insert(HeaderName::from_static("openai-processing-ms"), millis);
            }
            Provider::Anthropic => {
                headers.insert(HeaderName::from_static("request-id"), id);
                let organization = HeaderValue::from_static(ANTHROPIC_ORGANIZATION);
                headers.insert(HeaderName::from_static("anthropic-organization-id"), organization);
            }
            Provider::Azure => azure::write_identity(&text, headers),
            Provider::Bedrock => {
                headers.insert(HeaderName::from_static("x-amzn-requestid"), id);
            }
            Provider::Mistral => {
                headers.insert(HeaderName::from_static("mistral-correlation-id"), id);
            }
            // Google's answers carry their id in the body.
            Provider::Gemini | Provider::Vertex => {}
            Provider::Groq
            | Provider::OpenRouter
            | Provider::DeepSeek
            | Provider::Cohere
            | Provider::Vllm => {
                headers.insert(HeaderName::from_static("x-request-id"), id);
            }
        }
    }
}

pub(crate) fn request_id(id: u64) -> String {
    format!("req_{id:024x}")
}
