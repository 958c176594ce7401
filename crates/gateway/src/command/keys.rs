//! `tidegate keys`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::CommandError;
use crate::config::{duration, is_name};
use crate::keys::{self, Date, Key};

/// Arguments of `tidegate keys`.
#[derive(Debug, clap::Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// Make a key for a tenant and print it, once; the file gets its hash.
    New(NewArgs),
    /// Print whose keys there are, and until when they are good.
    List(FileArgs),
    /// Take a key out of the file.
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// The file of keys, as `server.keys_file` names it.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Whose key it is.
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// How long it is good, such as 90d; without it, until it is revoked.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Which key: its `id`, as `tidegate keys list` prints it.
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) fn run(args: &KeysArgs) -> Result<ExitCode, CommandError> {
    match &args.command {
        KeysCommand::New(args) => new(args),
        KeysCommand::List(args) => list(args),
        KeysCommand::Revoke(args) => revoke(args),
    }
}

fn new(args: &NewArgs) -> Result<ExitCode, CommandError> {
    if !is_name(&args.tenant) {
        return Err("--tenant: cannot be a name; use at most 64 lower-case letters, digits, - and _".into());
    }
    let created = keys::now();
    let expires = match &args.expires {
        None => None,
        Some(text) => {
            let time = duration::parse(text)
                .map_err(|error| format!("--expires: is not a length of time; {error}"))?;
            if time.is_zero() {
                return Err(
                    "--expires: the key would be refused at once; write a time such as \"90d\"".into(),
                );
            }
            Some(created.after(time))
        }
    };
    let (text, key) = Key::generate(&args.tenant, created, expires)?;
    let note = match key.expires {
        Some(expires) => format!("key {} of {}, good until {expires}", key.id, key.tenant),
        None => format!("key {} of {}, good until it is revoked", key.id, key.tenant),
    };
    keys::change(&args.file.file, true, |keys| keys.push(key))?;
    eprintln!("{note}; it is shown this once");
    println!("{}", text.expose());
    Ok(ExitCode::SUCCESS)
}

fn list(args: &FileArgs) -> Result<ExitCode, CommandError> {
    print!("{}", table(&keys::read(&args.file)?, keys::now()));
    Ok(ExitCode::SUCCESS)
}

/// Returns the keys as a table; nothing of their hashes but the digits that are their names.
fn table(keys: &[Key], now: Date) -> String {
    let expires = |key: &Key| match key.expires {
        None => "never".to_owned(),
        Some(expires) if expires <= now => format!("{expires} (expired)"),
        Some(expires) => expires.to_string(),
    };
    let head = ["ID", "TENANT", "CREATED", "EXPIRES"].map(str::to_owned);
    let rows = keys.iter().map(|key| {
        [
            key.id.clone(),
            key.tenant.clone(),
            key.created.to_string(),
            expires(key),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [id, tenant, created, expires] = row;
        let [a, b, c] = widths;
        format!("{id:a$}  {tenant:b$}  {created:c$}  {expires}\n")
    };
    rows.iter().map(line).collect()
}

fn revoke(args: &RevokeArgs) -> Result<ExitCode, CommandError> {
    let path = &args.file.file;
    let taken = keys::change(path, false, |keys| {
        let before = keys.len();
        keys.retain(|key| key.id != args.id);
        before - keys.len()
    })?;
    if taken == 0 {
        // What was typed is not repeated: it may be the key itself.
        let file = path.display();
        return Err(format!(
            "{file}: there is no key of that id; `tidegate keys list --file {file}` prints them"
        )
        .into());
    }
    eprintln!("revoked; a gateway that runs refuses it within about a second");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_whose_keys_there_are() {
        let created = Date::parse("2026-11-28").unwrap();
        let expires = Date::parse("2027-01-01").unwrap();
        let (_, one) = Key::generate("a", created, None).unwrap();
        let (_, two) = Key::generate("search-team", created, Some(expires)).unwrap();
        let now = Date::parse("2027-01-01T00:00:00Z").unwrap();
        let expect = format!(
            "ID          TENANT       CREATED     EXPIRES\n\
             {}  a            2026-11-28  never\n\
             {}  search-team  2026-11-28  2027-01-01 (expired)\n",
            one.id, two.id
        );
        assert_eq!(table(&[one, two], now), expect);
    }
}
