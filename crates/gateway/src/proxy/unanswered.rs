//! Why no upstream's answer is relayed.

use crate::metrics::{Refused, RequestOutcome};
use crate::provider::ErrorReply;

/// The gateway's own answer to a request, and what it counts as.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) reply: ErrorReply,
    pub(super) outcome: RequestOutcome,
    pub(super) refused: Option<Refused>,
}

impl Unanswered {
    /// The gateway did not send the request.
    pub(super) const fn refused(reply: ErrorReply, refused: Refused) -> Self {
        Self {
            reply,
            outcome: RequestOutcome::Refused,
            refused: Some(refused),
        }
    }

    /// The upstream could not be reached, or gave no answer.
    pub(super) const fn failed(reply: ErrorReply) -> Self {
        Self {
            reply,
            outcome: RequestOutcome::UpstreamError,
            refused: None,
        }
    }

    /// The upstream gave no answer in time.
    pub(super) const fn timeout(reply: ErrorReply) -> Self {
        Self {
            reply,
            outcome: RequestOutcome::Timeout,
            refused: None,
        }
    }
}
