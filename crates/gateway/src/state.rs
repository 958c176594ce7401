//! State that survives a restart: what the limiter knows, in a file.
//!
//! ```text
//!  start: lock, read ──► ended?  yes: recall ──────────────► write "running" ──► every few seconds: write it again
//!                                no:  recall, and presume                         end: write "ended", after the drain
//!                        damaged?     presume everything
//! ```
//!
//! A file that says "running" when nothing runs is left over from a crash: what was sent since it was written, nobody knows.

mod file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate::{Gap, Limiter, Timestamp};
use tokio::time::Instant;

use crate::config::{AccountHasher, Salt};
use crate::keys::Date;
use crate::phase::{Phase, Phases};

pub use file::StateError;
use file::{Found, State, StateFile};

/// How often the file is written while the program runs.
const WRITE_EVERY: Duration = Duration::from_secs(3);

/// Remembering takes the limiter's lock, so with thousands of accounts it is done more seldom: it may take this part of the
/// time, up to …
const REMEMBERING_PART: u32 = 500;
/// … so long between two writings.
const WRITE_EVERY_MAX: Duration = Duration::from_secs(60);

/// Keeps the state of the program in its file.
pub(crate) struct StateKeeper {
    file: StateFile,
    salt: Salt,
    status: Arc<StateStatus>,
}

/// What the state was at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing was known.
    Fresh,
    /// Everything was.
    Restored,
    /// After a crash: limits count as used up, until this time at the latest.
    Presumed(Timestamp),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("fresh"),
            Self::Restored => f.write_str("restored"),
            Self::Presumed(until) => write!(f, "presumed used until {}", date(*until)),
        }
    }
}

/// What people are told of the state.
#[derive(Debug)]
pub(crate) struct StateStatus {
    pub(crate) path: PathBuf,
    start: Mutex<Start>,
    written: Mutex<Written>,
}

/// What became of writing the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) at: Option<Instant>,
    pub(crate) failed: Option<(Instant, String)>,
}

impl StateStatus {
    pub(crate) fn start(&self) -> Start {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn written(&self) -> Written {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What is to be recalled once there is a limiter.
pub(crate) struct Past(Found);

impl StateKeeper {
    /// Opens the file. Nothing is written before [`StateKeeper::begin`].
    ///
    /// # Errors
    ///
    /// Returns an error if another process has it, or if it cannot be locked.
    pub(crate) fn open(path: &Path) -> Result<(Self, Past), StateError> {
        let (file, found) = StateFile::open(path)?;
        let salt = match &found {
            Found::State(state) => state.salt,
            Found::Nothing | Found::Damaged(_) => *AccountHasher::default().salt(),
        };
        let status = StateStatus {
            path: file.path().to_owned(),
            start: Mutex::new(Start::Fresh),
            written: Mutex::default(),
        };
        let keeper = Self {
            file,
            salt,
            status: Arc::new(status),
        };
        Ok((keeper, Past(found)))
    }

    /// Returns what tells accounts apart as it did before the restart.
    pub(crate) fn accounts(&self) -> AccountHasher {
        AccountHasher::with_salt(self.salt)
    }

    pub(crate) fn status(&self) -> Arc<StateStatus> {
        Arc::clone(&self.status)
    }

    /// Tells the limiter what is known of the past, before its first request.
    pub(crate) fn recall(&self, limiter: &Limiter, past: Past) {
        let path = self.file.path().display();
        let start = match past.0 {
            Found::Nothing => {
                tracing::info!(file = %path, "no state from before: a fresh start");
                Start::Fresh
            }
            Found::State(State {
                memory,
                ended,
                gone_by,
                ..
            }) => {
                if let Err(error) = limiter.recall(&memory) {
                    // The file was read by its version, so this is not reached; nothing known is the safe side.
                    tracing::error!(file = %path, %error, "the state cannot be used");
                }
                let alive = date(memory.at);
                let presumed = if ended {
                    None
                } else {
                    limiter.presume(Gap {
                        since: memory.at,
                        until: gone_by,
                    })
                };
                match (ended, presumed) {
                    (true, _) => tracing::info!(file = %path, ended = %alive, "state restored"),
                    (false, None) => tracing::warn!(
                        file = %path,
                        last_alive = %alive,
                        "the program before this one ended without saying goodbye, but every window has passed since: \
                         state restored"
                    ),
                    (false, Some(until)) => tracing::warn!(
                        file = %path,
                        last_alive = %alive,
                        until = %date(until),
                        "the program before this one ended without saying goodbye: state restored, and limits count as used up \
                         until their windows have passed or answers tell what is left"
                    ),
                }
                presumed.map_or(Start::Restored, Start::Presumed)
            }
            Found::Damaged(damage) => {
                let presumed = limiter.presume(Gap {
                    since: Timestamp::ZERO,
                    until: limiter.now(),
                });
                tracing::warn!(
                    file = %path,
                    until = presumed.map(|until| date(until).to_string()),
                    "the state file {damage}; charges, learned limits and budgets from before are not known, and limits count as \
                     used up until their windows have passed or answers tell what is left. If nothing was sent lately, stop \
                     Tidegate, remove the file and start again; it is written anew in any case"
                );
                presumed.map_or(Start::Fresh, Start::Presumed)
            }
        };
        *self.status.start.lock().unwrap_or_else(PoisonError::into_inner) = start;
    }

    /// Says in the file that the program runs.
    ///
    /// # Errors
    ///
    /// Returns what stands in the way of writing it.
    pub(crate) fn begin(&self, limiter: &Limiter) -> Result<(), StateError> {
        self.write(limiter, false).map(|_| ())
    }

    /// Writes the file every few seconds until the program ends.
    pub(crate) async fn keep(&self, limiter: &Limiter, phases: &Phases) {
        let ended = phases.reached(Phase::Ended);
        let mut ended = std::pin::pin!(ended);
        let mut pause = WRITE_EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut ended => return,
            }
            let failed_before = self.status.written().failed.is_some();
            match self.write(limiter, false) {
                Ok(next) => {
                    pause = next;
                    if failed_before {
                        tracing::info!("the state file can be written again");
                    }
                }
                Err(error) if failed_before => tracing::debug!(%error, "the state is still not kept"),
                Err(error) => tracing::error!(
                    %error,
                    "the state is not kept: after a crash now, limits would count as used up, and budgets as unused"
                ),
            }
        }
    }

    /// Says goodbye in the file: nothing is under way any more.
    pub(crate) fn end(&self, limiter: &Limiter) {
        match self.write(limiter, true) {
            Ok(_) => tracing::info!(file = %self.file.path().display(), "state saved"),
            Err(error) => {
                tracing::error!(%error, "the state is not saved: the next start takes this one for a crash");
            }
        }
    }

    /// Returns after how long the file is to be written again: it says that the program is gone if that takes twice as long.
    fn write(&self, limiter: &Limiter, ended: bool) -> Result<Duration, StateError> {
        let begun = Instant::now();
        let memory = limiter.remember();
        let pause = (begun.elapsed() * REMEMBERING_PART).clamp(WRITE_EVERY, WRITE_EVERY_MAX);
        let result = self.file.write(&State {
            gone_by: memory.at + pause * 2,
            memory,
            ended,
            salt: self.salt,
        });
        let now = Instant::now();
        let mut written = self.status.written.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                *written = Written {
                    at: Some(now),
                    failed: None,
                };
            }
            Err(error) => written.failed = Some((now, error.to_string())),
        }
        result.map(|()| pause)
    }
}

fn date(at: Timestamp) -> Date {
    Date::from_unix(at.as_micros() / 1_000_000)
}
