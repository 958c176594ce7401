//! The file of the state: one JSON document, read whole, and replaced whole.
//!
//! Beside it stands a lock file for as long as the program runs, since the file itself is another one after each
//! replacement. It holds the hashes of clients' keys, salted and cut to 64 bits, but neither keys nor prompts.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidegate::{Memory, SavedMemory, Timestamp};

use crate::config::Salt;

/// The version of the file's form.
const VERSION: u32 = 1;

/// The largest file that is read or written. What is remembered is bounded by the number of accounts and tenants.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Why the state cannot be kept. The gateway does not start then.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error(
        "state file {}: another process uses it; give each its own `server.state_file`, or stop the other one \
         (limits that several processes share are kept in a `[store]`, not in files)",
        path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be locked or written.
    #[error(
        "state file {}: cannot be {what}: {source}; see to it that its folder is there and writable, or name another \
         `server.state_file`",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Why what the file says is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("is damaged: {0}")]
    Form(#[from] serde_json::Error),
    #[error("is damaged: it is empty")]
    Empty,
    #[error("is of version {0}, and this program knows version {VERSION}")]
    Version(u32),
}

/// What is found at the start.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is no file: nothing ran before.
    Nothing,
    /// Somebody wrote it.
    State(State),
    /// It is of no use.
    Damaged(Damage),
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) memory: Memory,
    /// Whether the program said goodbye.
    pub(crate) ended: bool,
    /// If it did not: when it was gone at the latest, since it would have written the file again by then.
    pub(crate) gone_by: Timestamp,
    /// What the accounts in the memory are salted with.
    pub(crate) salt: Salt,
}

/// The file, locked for this process.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// Unlocked when it is dropped.
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    tidegate_state: u32,
    ended: bool,
    gone_by: u64,
    salt: String,
    memory: SavedMemory,
}

/// What every version has.
#[derive(Debug, Deserialize)]
struct AnyPage {
    tidegate_state: u32,
}

impl StateFile {
    /// Locks the file and reads it. Nothing is written yet.
    ///
    /// # Errors
    ///
    /// Returns an error if another process has it, or if it cannot be locked.
    pub(crate) fn open(path: &Path) -> Result<(Self, Found), StateError> {
        let path = path.to_owned();
        let unlockable = |source| StateError::Unwritable {
            path: path.clone(),
            what: "locked",
            source,
        };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(beside(&path, ".lock"))
            .map_err(unlockable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(unlockable(source)),
        }
        let found = match read(&path) {
            Ok(found) => found,
            Err(Damage::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
            Err(damage) => Found::Damaged(damage),
        };
        Ok((Self { path, _lock: lock }, found))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file. It is on the disk when this returns.
    ///
    /// If that fails, the file is emptied if possible: what it says would be taken for newer than it is.
    ///
    /// # Errors
    ///
    /// Returns what stands in the way.
    pub(crate) fn write(&self, state: &State) -> Result<(), StateError> {
        let written = self.replace(state);
        if written.is_err() {
            let _ = OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|file| file.set_len(0));
        }
        written.map_err(|source| StateError::Unwritable {
            path: self.path.clone(),
            what: "written",
            source,
        })
    }

    fn replace(&self, state: &State) -> io::Result<()> {
        let page = Page {
            tidegate_state: VERSION,
            ended: state.ended,
            gone_by: state.gone_by.as_micros(),
            salt: hexadecimal(&state.salt),
            memory: SavedMemory::from(&state.memory),
        };
        let text = serde_json::to_vec(&page)?;
        if text.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it is larger than {FILE_BYTES_MAX} bytes"
            )));
        }
        let new = beside(&self.path, ".new");
        // One that is left over is nobody's: the lock is ours.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // So that the new name outlasts a loss of power as well, where the system can do that for folders.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Found, Damage> {
    let mut text = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut text)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(Damage::TooLarge);
    }
    if text.is_empty() {
        return Err(Damage::Empty);
    }
    let any: AnyPage = serde_json::from_slice(&text)?;
    if any.tidegate_state != VERSION {
        return Err(Damage::Version(any.tidegate_state));
    }
    let page: Page = serde_json::from_slice(&text)?;
    let memory = Memory::from(page.memory);
    if memory.version != Memory::VERSION {
        return Err(Damage::Version(memory.version));
    }
    let salt =
        salt(&page.salt).ok_or_else(|| serde::de::Error::custom("its salt is no 64 hexadecimal digits"));
    Ok(Found::State(State {
        memory,
        ended: page.ended,
        gone_by: Timestamp::from_micros(page.gone_by),
        salt: salt.map_err(|error: serde_json::Error| Damage::Form(error))?,
    }))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn hexadecimal(salt: &Salt) -> String {
    salt.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn salt(text: &str) -> Option<Salt> {
    let mut salt = Salt::default();
    if text.len() != 2 * salt.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in salt.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(salt)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tidegate_core::{Engine, Plan};

    use super::*;

    fn state(ended: bool) -> State {
        let now = Timestamp::from_secs(9);
        State {
            memory: Engine::new(now, Plan::default(), 1).remember(now),
            ended,
            gone_by: Timestamp::from_secs(15),
            salt: [1; 32],
        }
    }

    #[test]
    fn what_is_written_is_found_and_only_the_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.state");
        let (file, found) = StateFile::open(&path).unwrap();
        assert!(matches!(found, Found::Nothing));
        fs::write(folder.path().join("a.state.new"), "left over").unwrap();
        file.write(&state(false)).unwrap();
        file.write(&state(true)).unwrap();
        let busy = StateFile::open(&path).unwrap_err();
        assert!(busy.to_string().contains("another process uses it"), "{busy}");
        drop(file);
        for name in ["a.state", "a.state.lock"] {
            let mode = folder.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert!(!folder.path().join("a.state.new").exists());
        let (_, found) = StateFile::open(&path).unwrap();
        assert!(
            matches!(&found, Found::State(read) if *read == state(true)),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_of_no_use_is_said_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.state");
        let (file, _) = StateFile::open(&path).unwrap();
        file.write(&state(true)).unwrap();
        drop(file);
        let good = fs::read_to_string(&path).unwrap();
        for (text, expect) in [
            (String::new(), "it is empty"),
            (good[..good.len() / 2].to_owned(), "is damaged"),
            (
                good.replace("\"tidegate_state\":1", "\"tidegate_state\":7"),
                "is of version 7",
            ),
            (good.replace("\"version\":1", "\"version\":8"), "is of version 8"),
            (good.replace("0101", "01zz"), "its salt"),
            ("[1, 2]".to_owned(), "is damaged"),
        ] {
            fs::write(&path, &text).unwrap();
            let (_, found) = StateFile::open(&path).unwrap();
            let Found::Damaged(damage) = found else {
                panic!("{text}: {found:?}")
            };
            assert!(damage.to_string().contains(expect), "{text}: {damage}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.state");
        let (file, _) = StateFile::open(&path).unwrap();
        file.write(&state(false)).unwrap();
        // A folder in the way of the new file, with something in it.
        fs::create_dir_all(folder.path().join("a.state.new/x")).unwrap();
        let error = file.write(&state(false)).unwrap_err();
        assert!(error.to_string().contains("cannot be written"), "{error}");
        assert_eq!(path.metadata().unwrap().len(), 0);
        let missing = folder.path().join("nowhere/a.state");
        let error = StateFile::open(&missing).unwrap_err();
        assert!(error.to_string().contains("cannot be locked"), "{error}");
    }
}
