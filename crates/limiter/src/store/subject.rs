//! What a call to the store is about.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::escrow::Call as EscrowCall;
use tidegate_core::ledger::{Call, CallKey, Status};
use tidegate_core::{QuotaId, QuotaKey};

use super::fault::Fault;
use super::link::{Link, unread};
use super::wire::{self, Place};
use crate::limiter::Shared;

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The limits of tenants and routes.
    Escrow,
    /// A quota group.
    Group(QuotaKey),
}

/// A call that is to be made.
pub(super) enum Request {
    Escrow(EscrowCall),
    Group(QuotaKey, Arc<Place>, Box<Call>),
}

/// A call that was made, as its answer is understood.
pub(super) enum Sent {
    Escrow(EscrowCall),
    Group(QuotaKey, CallKey),
}

impl Request {
    /// Makes the call over a connection.
    pub(super) async fn send(
        self,
        link: Link,
        prefix: &str,
        time: Duration,
        asking: bool,
    ) -> (Sent, Result<Vec<u64>, Fault>) {
        match self {
            Self::Escrow(call) => {
                let result = link.call_escrow(prefix, &call, time, asking).await;
                (Sent::Escrow(call), result)
            }
            Self::Group(quota, place, call) => {
                let result = link.call(&place, &call, time, asking).await;
                (Sent::Group(quota, call.key()), result)
            }
        }
    }
}

impl Sent {
    pub(super) const fn subject(&self) -> Subject {
        match self {
            Self::Escrow(_) => Subject::Escrow,
            Self::Group(quota, _) => Subject::Group(*quota),
        }
    }

    /// Hands back what was answered. Returns whether it was of use.
    pub(super) fn answer(&self, limiter: Option<&Arc<Shared>>, numbers: &[u64]) -> Result<bool, Fault> {
        match self {
            Self::Escrow(call) => {
                let (reply, _) = wire::escrow::read_reply(call, numbers).ok_or_else(unread)?;
                if let Some(limiter) = limiter {
                    limiter.escrow_answer(call.sequence, &reply);
                }
                Ok(true)
            }
            Self::Group(quota, call) => {
                let (reply, _) = wire::read_reply(numbers).ok_or_else(unread)?;
                if let Some(limiter) = limiter {
                    limiter.answer(*quota, *call, &reply);
                }
                Ok(!matches!(reply.status, Status::Lost | Status::Stale))
            }
        }
    }
}

/// Reads which group a name in keys is of.
pub(super) fn quota_of(group: &str) -> Option<QuotaKey> {
    let (rest, account) = group.rsplit_once('.')?;
    let (_, id) = rest.rsplit_once('.')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(QuotaKey {
        id: QuotaId::from_value(number(id)?),
        account: number(account)?,
    })
}
