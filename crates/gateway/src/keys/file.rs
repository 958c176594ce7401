//! The file of keys: read whole, written whole.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Date, DateError, KEYS_MAX, Key, KeyDigest};
use crate::config::is_name;

/// The largest file that is read: room for the most keys.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// How the file begins.
const HEAD: &str = "\
# Hashes of the keys of Tidegate's tenants. Written by `tidegate keys new` and `tidegate keys revoke`, which write the whole
# file anew: comments of your own are lost then. The keys themselves are nowhere.
";

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than any file of keys.
    #[error("{}: is larger than {max} bytes; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest that is read.
        max: u64,
    },
    /// Its form is wrong.
    #[error("{}:{line}: {what}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// One of the keys in it is wrong.
    #[error("{}: keys[{at}]{what}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Which, from 0.
        at: usize,
        /// What is wrong with it.
        what: String,
    },
    /// It has too many keys.
    #[error("{}: there are {count} keys; expected at most {KEYS_MAX}: revoke those that have expired", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// It is being written by somebody else.
    #[error(
        "{}: is there already: another `tidegate keys` is writing, or one broke off; remove the file in that case",
        path.display()
    )]
    Busy {
        /// The file that stands for the one that writes.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    keys: Vec<RawKey>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: String,
    tenant: String,
    sha256: String,
    created: String,
    expires: Option<String>,
}

/// Reads a file of keys.
///
/// # Errors
///
/// Returns what is wrong with it, worded for the person who wrote it.
pub fn read(path: &Path) -> Result<Vec<Key>, KeysError> {
    let owned = || path.to_owned();
    let unreadable = |source| KeysError::Unreadable {
        path: owned(),
        source,
    };
    let mut text = String::new();
    File::open(path)
        .map_err(unreadable)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(KeysError::TooLarge {
            path: owned(),
            max: FILE_BYTES_MAX,
        });
    }
    let raw: RawFile = toml::from_str(&text).map_err(|error| KeysError::Form {
        path: owned(),
        line: 1 + error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(0, |before| before.matches('\n').count()),
        // Only the message: the error as a whole shows the line it stands in, and a key may stand there.
        what: error.message().replace('\n', ", "),
    })?;
    if raw.keys.len() > KEYS_MAX {
        return Err(KeysError::TooMany {
            path: owned(),
            count: raw.keys.len(),
        });
    }
    let keys = raw.keys.into_iter().enumerate().map(|(at, raw)| {
        key(raw).map_err(|what| KeysError::Key {
            path: owned(),
            at,
            what,
        })
    });
    keys.collect()
}

fn key(raw: RawKey) -> Result<Key, String> {
    let date =
        |name: &str, text: &str| Date::parse(text).map_err(|error: DateError| format!(".{name} {error}"));
    if !is_name(&raw.tenant) {
        return Err(
            ".tenant cannot be a name: use at most 64 lower-case letters, digits, - and _".to_owned(),
        );
    }
    if raw.id.is_empty() || raw.id.len() > 64 || !raw.id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(".id must be a short word, such as the first ten digits of sha256".to_owned());
    }
    Ok(Key {
        digest: KeyDigest::parse(&raw.sha256).ok_or_else(|| {
            ".sha256 must be 64 hexadecimal digits: the hash of the key, not the key".to_owned()
        })?,
        created: date("created", &raw.created)?,
        expires: raw.expires.map(|text| date("expires", &text)).transpose()?,
        id: raw.id,
        tenant: raw.tenant,
    })
}

/// Changes a file of keys: reads it, lets `edit` change what is in it, and puts the new file in its place at once. A file
/// that is not there counts as empty if `may_begin`.
///
/// # Errors
///
/// Returns what stands in the way; the file is then as it was.
pub fn change<T>(
    path: &Path,
    may_begin: bool,
    edit: impl FnOnce(&mut Vec<Key>) -> T,
) -> Result<T, KeysError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // While this file is there, nobody else changes the keys: two that write at one time would lose a key.
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside);
    let file = new.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeysError::Busy { path: beside.clone() },
        _ => KeysError::Unwritable {
            path: beside.clone(),
            source,
        },
    })?;
    let done = rewrite(path, &beside, file, may_begin, edit);
    if done.is_err() {
        // What could not be finished is of no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    done
}

fn rewrite<T>(
    path: &Path,
    beside: &Path,
    mut file: File,
    may_begin: bool,
    edit: impl FnOnce(&mut Vec<Key>) -> T,
) -> Result<T, KeysError> {
    let mut keys = match read(path) {
        Err(KeysError::Unreadable { source, .. })
            if may_begin && source.kind() == io::ErrorKind::NotFound =>
        {
            Vec::new()
        }
        read => read?,
    };
    let edited = edit(&mut keys);
    if keys.len() > KEYS_MAX {
        return Err(KeysError::TooMany {
            path: path.to_owned(),
            count: keys.len(),
        });
    }
    let write = || {
        file.write_all(page(&keys).as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, path)
    };
    let written = { write }();
    written.map_err(|source| KeysError::Unwritable {
        path: path.to_owned(),
        source,
    })?;
    Ok(edited)
}

/// Writes keys as a file. Nothing in it needs to be escaped: names, digits and dates.
fn page(keys: &[Key]) -> String {
    let mut page = HEAD.to_owned();
    for key in keys {
        let (id, tenant, sha256) = (&key.id, &key.tenant, key.digest.hexadecimal());
        let _ = write!(
            page,
            "\n[[keys]]\nid = {}\ntenant = \"{tenant}\"\nsha256 = \"{sha256}\"\ncreated = \"{}\"\n",
            toml::Value::from(id.as_str()),
            key.created
        );
        if let Some(expires) = key.expires {
            let _ = writeln!(page, "expires = \"{expires}\"");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_only_the_owner_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let created = Date::parse("2026-11-28").unwrap();
        let (_, one) = Key::generate("a", created, None).unwrap();
        let (_, two) =
            Key::generate("b-c", created, Some(Date::parse("2027-01-01T00:00:01Z").unwrap())).unwrap();
        let error = change(&path, false, |_| ()).unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
        for key in [&one, &two] {
            change(&path, true, |keys| keys.push(key.clone())).unwrap();
        }
        assert_eq!(read(&path).unwrap(), [one.clone(), two]);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        change(&path, false, |keys| keys.retain(|key| key.id == one.id)).unwrap();
        assert_eq!(read(&path).unwrap(), [one]);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        fs::write(folder.path().join("keys.toml.new"), "").unwrap();
        let error = change(&path, true, |_| ()).unwrap_err();
        assert!(
            error.to_string().contains("keys.toml.new: is there already"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_shows_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let hash = "ab".repeat(32);
        let good =
            format!("[[keys]]\nid = \"1\"\ntenant = \"a\"\nsha256 = \"{hash}\"\ncreated = \"2026-11-28\"\n");
        for (text, expect) in [
            ("keys = 3".to_owned(), ":1: "),
            (format!("{good}key = \"tg-canary\"\n"), ":6: unknown field `key`"),
            (
                format!("{good}[[keys]]\nid = \"2\"\n"),
                ":6: missing field `tenant`",
            ),
            (
                good.replace(&hash, "tg-canary"),
                "keys[0].sha256 must be 64 hexadecimal digits",
            ),
            (
                good.replace("\"a\"", "\"A B\""),
                "keys[0].tenant cannot be a name",
            ),
            (good.replace("2026-11-28", "today"), "keys[0].created is no date"),
            (
                format!("{good}expires = \"soon\"\n"),
                "keys[0].expires is no date",
            ),
            (good.replace("\"1\"", "\"\""), "keys[0].id must be"),
            ("sha256 = \"tg-canary".to_owned(), ":1: "),
        ] {
            fs::write(&path, &text).unwrap();
            let error = read(&path).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expect), "{text}: {shown}");
            assert!(!shown.contains("canary"), "{shown}");
        }
        fs::write(&path, good).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
    }
}
