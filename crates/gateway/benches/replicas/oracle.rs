//! What the providers themselves counted.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A provider's statistics.
#[derive(Debug, Deserialize)]
pub(crate) struct Stats {
    elapsed_seconds: f64,
    pub(crate) admitted: u64,
    /// Its refusals for rate.
    pub(crate) rate_limited: u64,
    series: Vec<Second>,
    /// When they were asked for.
    #[serde(skip)]
    at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Second {
    second: u64,
    admitted: u64,
    refused: u64,
    tokens: u64,
}

impl Stats {
    /// Asks a provider for them.
    pub(crate) async fn of(address: SocketAddr) -> Result<Self, String> {
        let asking = async {
            let mut stream = TcpStream::connect(address).await?;
            let request = "GET /mock/stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = asking.await.map_err(|error| error.to_string())?;
        let at = Instant::now();
        let body = memchr::memchr(b'{', &answer).map_or(&[][..], |start| &answer[start..]);
        // What follows the object, where the body came in chunks, is not of it.
        let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Self>();
        let mut stats = values
            .next()
            .ok_or("the provider tells no statistics")?
            .map_err(|error| error.to_string())?;
        stats.at = Some(at);
        Ok(stats)
    }

    /// Returns what was used in each second since `began`.
    pub(crate) fn since(&self, began: Instant, counts_requests: bool) -> Vec<u64> {
        let Some(at) = self.at else { return Vec::new() };
        // The provider's seconds count from its own start.
        let offset = self.elapsed_seconds - at.saturating_duration_since(began).as_secs_f64();
        let mut used = vec![0; at.saturating_duration_since(began).as_secs() as usize + 2];
        for second in &self.series {
            let index = (second.second as f64 + 0.5 - offset).floor();
            if index >= 0.0
                && let Some(used) = used.get_mut(index as usize)
            {
                *used += if counts_requests {
                    second.admitted
                } else {
                    second.tokens
                };
            }
        }
        used
    }

    /// Returns the seconds in which it refused anything, since `began`.
    pub(crate) fn refusals(&self, began: Instant) -> Vec<(i64, u64)> {
        let Some(at) = self.at else { return Vec::new() };
        let offset = self.elapsed_seconds - at.saturating_duration_since(began).as_secs_f64();
        let refused = self.series.iter().filter(|second| second.refused > 0);
        refused
            .map(|second| ((second.second as f64 - offset).round() as i64, second.refused))
            .collect()
    }
}

/// Returns how much of the limit was used, as the mean over all windows that lie in a stretch of time.
pub(crate) fn used(seconds: &[u64], from: Duration, to: Duration, window: Duration, limit: u64) -> f64 {
    let (from, to) = (
        from.as_secs() as usize,
        (to.as_secs() as usize).min(seconds.len()),
    );
    let length = window.as_secs() as usize;
    let windows = seconds.get(from..to).unwrap_or_default().windows(length);
    let (sum, count) = windows.fold((0, 0), |(sum, count), window| {
        (sum + window.iter().sum::<u64>(), count + 1)
    });
    sum as f64 / f64::from(count) / limit as f64
}

/// Returns how long after `from` a window began in which so much of the limit was used. Use may come in lumps that are
/// one window and a margin apart, so a second more is looked at, for as much more.
pub(crate) fn back(
    seconds: &[u64],
    from: Duration,
    window: Duration,
    limit: u64,
    share: f64,
) -> Option<Duration> {
    let length = window.as_secs() as usize + 1;
    let need = share * limit as f64 * length as f64 / window.as_secs_f64();
    let from = from.as_secs() as usize;
    let windows = seconds.get(from..).unwrap_or_default().windows(length);
    let after = windows
        .enumerate()
        .find(|(_, window)| window.iter().sum::<u64>() as f64 >= need);
    after.map(|(after, _)| Duration::from_secs(after as u64))
}
