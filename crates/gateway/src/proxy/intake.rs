//! Reading a request's body: bounded, counted, and in time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

/// The bounds within which a body is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct IntakeBounds {
    /// The most bytes.
    pub(super) bytes_max: usize,
    /// How long the body may stand still, and what it is given before [`BYTES_PER_SECOND_MIN`] is asked of it.
    pub(super) patience: Duration,
}

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IntakeError {
    /// It is larger than allowed.
    TooLarge,
    /// It came too slowly.
    TooSlow,
    /// The client left, or broke the framing.
    Broken,
}

/// The slowest that a body may come in the long run (theory.md §6.2).
const BYTES_PER_SECOND_MIN: usize = 1024;

/// The most memory set aside on a client's word that its body will be that long.
const RESERVE_BYTES_MAX: usize = 256 * 1024;

/// Reads a whole body.
///
/// A body that is too large is read on for a while and thrown away: a connection that is closed with bytes unread is
/// reset, and the client would never see the answer.
///
/// # Errors
///
/// Returns why the body was not read to its end.
pub(super) async fn read(mut body: Incoming, bounds: IntakeBounds) -> Result<Bytes, IntakeError> {
    let declared = body.size_hint().exact().map(usize::try_from);
    let declared = match declared {
        Some(Ok(declared)) if declared <= bounds.bytes_max => Some(declared),
        Some(_) => {
            discard(body, bounds).await;
            return Err(IntakeError::TooLarge);
        }
        None => None,
    };
    let mut pace = Pace::new(bounds.patience);
    let Some(first) = pace.next(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if Some(first.len()) == declared {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(
        declared
            .unwrap_or(0)
            .clamp(first.len(), RESERVE_BYTES_MAX.max(first.len())),
    );
    let mut next = Some(first);
    while let Some(part) = next {
        if whole.len().saturating_add(part.len()) > bounds.bytes_max {
            drop(whole);
            discard(body, bounds).await;
            return Err(IntakeError::TooLarge);
        }
        whole.extend_from_slice(&part);
        next = pace.next(&mut body).await?;
    }
    Ok(whole.freeze())
}

async fn discard(mut body: Incoming, bounds: IntakeBounds) {
    let mut pace = Pace::new(bounds.patience);
    let mut left = bounds.bytes_max;
    while let Ok(Some(part)) = pace.next(&mut body).await {
        match left.checked_sub(part.len()) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// How fast a body comes.
struct Pace {
    patience: Duration,
    begun: Option<Instant>,
    received: usize,
}

impl Pace {
    const fn new(patience: Duration) -> Self {
        Self {
            patience,
            begun: None,
            received: 0,
        }
    }

    /// Returns the next bytes of the body, or `None` at its end.
    async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, IntakeError> {
        loop {
            // Nearly every body is complete after its first bytes; no clock is read and no timer set for those.
            let ready = poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;
            let frame = match ready {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let timer = pin!(tokio::time::sleep_until(self.deadline()));
                    wait(body, timer).await?
                }
            };
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(IntakeError::Broken),
                Some(Ok(frame)) => {
                    // Trailers mean nothing to providers and are dropped.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.received = self.received.saturating_add(data.len());
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The earlier of two: from the last progress, and from the beginning at the slowest pace allowed.
    fn deadline(&mut self) -> Instant {
        let now = Instant::now();
        let begun = *self.begun.get_or_insert(now);
        let earned = Duration::from_secs((self.received / BYTES_PER_SECOND_MIN) as u64);
        (now + self.patience).min(begun + self.patience + earned)
    }
}

async fn wait(
    body: &mut Incoming,
    mut timer: Pin<&mut tokio::time::Sleep>,
) -> Result<Option<Result<http_body::Frame<Bytes>, hyper::Error>>, IntakeError> {
    poll_fn(|cx| {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(Ok(frame));
        }
        timer.as_mut().poll(cx).map(|()| Err(IntakeError::TooSlow))
    })
    .await
}
