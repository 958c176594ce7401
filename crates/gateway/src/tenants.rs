//! Who asks: by a key, by the word of a trusted proxy, or nobody in particular.
//!
//! Keys are looked up by their SHA-256, so the time that a look-up takes tells something about a hash at most, and the
//! comparison that decides takes the same time for every key, known or not.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use tidegate_core::{TenantId, TenantPlan};

use crate::config::{Auth, Config};
use crate::keys::{Date, KeyDigest, OWN_PREFIX};
use crate::provider::AuthStyle;

/// The longest name that a header may give, in bytes.
const NAME_MAX: usize = 64;

/// The longest key that is hashed, in bytes: longer than any provider's tokens, and no work for whoever sends more.
const KEY_MAX: usize = 8 * 1024;

/// The tenants of a configuration, and how they are known.
pub(crate) struct TenantBook {
    auth: Auth,
    header: Option<HeaderName>,
    /// Those that are listed.
    names: HashMap<Arc<str>, usize>,
    each_other: Option<usize>,
    /// By the first bytes of the digest.
    keys: HashMap<u64, Vec<Known>>,
    /// Compared with where nothing is found, so that this takes as long.
    dummy: KeyDigest,
}

/// A known key.
struct Known {
    digest: KeyDigest,
    who: Who,
    /// From when on it is refused, in seconds since 1970.
    expires: Option<u64>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    /// Its identifier in the engine.
    pub(crate) id: TenantId,
    /// Its name; nobody in particular has none.
    pub(crate) name: Option<Arc<str>>,
    /// The place in [`Config::tenants`] of what holds for it, which may be the template.
    pub(crate) rules: Option<usize>,
    /// Whether it showed a key of Tidegate's own, which is never sent upstream.
    pub(crate) has_own_key: bool,
}

/// Why it is not known who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// No key was sent.
    KeyMissing,
    /// The key is not known, or has expired.
    KeyWrong,
    /// The header that names the tenant holds no name, or more than one.
    BadName,
}

impl TenantBook {
    /// Makes the book of a configuration and of the keys in its file.
    pub(crate) fn new(config: &Config) -> Self {
        let each_other = config.each_other();
        let mut book = Self {
            auth: config.server.auth,
            header: config.server.tenant_header.clone(),
            names: HashMap::new(),
            each_other,
            keys: HashMap::new(),
            dummy: KeyDigest::of(b""),
        };
        for (at, tenant) in config.tenants.iter().enumerate() {
            if tenant.name != TenantPlan::EACH_OTHER {
                book.names.insert(Arc::from(tenant.name.as_str()), at);
            }
        }
        for tenant in &config.tenants {
            for key in &tenant.keys {
                book.learn(key.digest, &tenant.name, key.is_own, None);
            }
        }
        for key in config.keys.iter() {
            book.learn(key.digest, &key.tenant, true, key.expires.map(Date::unix));
        }
        book
    }

    /// Returns whether anybody is told apart from anybody else.
    pub(crate) fn tells_apart(&self) -> bool {
        self.header.is_some() || !self.keys.is_empty() || !self.names.is_empty() || self.each_other.is_some()
    }

    fn learn(&mut self, digest: KeyDigest, tenant: &str, is_own: bool, expires: Option<u64>) {
        let who = Who {
            has_own_key: is_own,
            ..self.named(tenant)
        };
        let known = Known { digest, who, expires };
        self.keys.entry(digest.head()).or_default().push(known);
    }

    /// Returns who asks. `now` is asked for the seconds since 1970 only where a key expires.
    pub(crate) fn identify(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: impl FnOnce() -> u64,
    ) -> Result<Who, Unknown> {
        if let Some(header) = &self.header {
            let mut values = headers.get_all(header).iter();
            if let Some(value) = values.next() {
                let name = value.to_str().map(str::trim).unwrap_or("\n");
                if !is_sendable(name) || values.next().is_some() {
                    return Err(Unknown::BadName);
                }
                if !name.is_empty() {
                    // Names in the configuration are lower case only, so this is whom the proxy means.
                    return Ok(self.named(&name.to_ascii_lowercase()));
                }
            }
        }
        if self.keys.is_empty() && self.auth == Auth::Open {
            return Ok(self.anyone(false));
        }
        let Some(key) = AuthStyle::client_key(headers, query) else {
            return match self.auth {
                Auth::Keys => Err(Unknown::KeyMissing),
                Auth::Open => Ok(self.anyone(false)),
            };
        };
        match self.known(key) {
            Some(known) if known.expires.is_some_and(|expires| now() >= expires) => Err(Unknown::KeyWrong),
            Some(known) => Ok(known.who.clone()),
            None if self.auth == Auth::Keys => Err(Unknown::KeyWrong),
            None => Ok(self.anyone(key.starts_with(OWN_PREFIX))),
        }
    }

    fn known(&self, key: &str) -> Option<&Known> {
        if key.len() > KEY_MAX {
            return None;
        }
        let digest = KeyDigest::of(key.as_bytes());
        let Some(candidates) = self.keys.get(&digest.head()) else {
            // What it says is no matter: the comparison is made for its time.
            let _ = std::hint::black_box(self.dummy.matches(&digest));
            return None;
        };
        candidates.iter().find(|known| known.digest.matches(&digest))
    }

    /// Returns the tenant of that name.
    fn named(&self, name: &str) -> Who {
        let listed = self.names.get_key_value(name);
        Who {
            id: TenantId::of(name),
            name: Some(listed.map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name))),
            rules: listed.map(|(_, at)| *at).or(self.each_other),
            has_own_key: false,
        }
    }

    fn anyone(&self, has_own_key: bool) -> Who {
        Who {
            id: TenantId::ANYONE,
            name: None,
            rules: self.each_other,
            has_own_key,
        }
    }
}

/// Returns whether a header's text can be a tenant's name, or is empty. What else a proxy may send by mistake (a list, a
/// whole address, the template's name) would quietly become a tenant of its own.
fn is_sendable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte);
    name.len() <= NAME_MAX && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::keys::Key;

    const NOW: u64 = 1_800_000_000;

    fn config(text: &str, keys: Vec<Key>) -> Config {
        let environment = |name: &str| Ok(format!("key-of-{name}"));
        let mut config = Config::from_toml_with(text, "test", environment).unwrap();
        config.keys = keys.into();
        config
    }

    fn who(
        book: &TenantBook,
        headers: &[(&str, &str)],
    ) -> Result<(Option<String>, Option<usize>, bool), Unknown> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let who = book.identify(&map, None, || NOW)?;
        let id = who.name.as_deref().map_or(TenantId::ANYONE, TenantId::of);
        assert_eq!(who.id, id);
        Ok((who.name.map(|name| name.to_string()), who.rules, who.has_own_key))
    }

    fn named(
        name: &str,
        rules: Option<usize>,
        own: bool,
    ) -> Result<(Option<String>, Option<usize>, bool), Unknown> {
        Ok((Some(name.to_owned()), rules, own))
    }

    #[test]
    fn nobody_is_told_apart_where_nothing_is_configured() {
        let book = TenantBook::new(&config("", Vec::new()));
        assert_eq!(who(&book, &[]), Ok((None, None, false)));
        assert_eq!(
            who(&book, &[("x-api-key", "tg-x"), ("x-tidegate-tenant", "a")]),
            Ok((None, None, false))
        );
    }

    #[test]
    fn keys_say_who_asks() {
        let text = "[server]\nauth = \"keys\"\n[[tenants]]\nname = \"*\"\n\
                    [[tenants]]\nname = \"a\"\nkey = \"env:A\"\nkeys = [\"env:B\"]\n\
                    key_sha256 = [\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"]";
        let created = Date::from_unix(NOW - 100);
        let (unlisted, one) = Key::generate("b", created, None).unwrap();
        let (listed, two) = Key::generate("a", created, Some(Date::from_unix(NOW + 1))).unwrap();
        let (expired, three) = Key::generate("a", created, Some(Date::from_unix(NOW))).unwrap();
        let book = TenantBook::new(&config(text, vec![one, two, three]));
        let bearer = |key: &str| who(&book, &[("authorization", &format!("Bearer {key}"))]);
        assert_eq!(bearer("key-of-A"), named("a", Some(1), false));
        assert_eq!(bearer("key-of-B"), named("a", Some(1), false));
        assert_eq!(bearer("abc"), named("a", Some(1), true), "known by its hash");
        assert_eq!(
            bearer(unlisted.expose()),
            named("b", Some(0), true),
            "the template holds for it"
        );
        assert_eq!(bearer(listed.expose()), named("a", Some(1), true));
        assert_eq!(bearer(expired.expose()), Err(Unknown::KeyWrong));
        assert_eq!(bearer("key-of-C"), Err(Unknown::KeyWrong));
        assert_eq!(bearer(&"k".repeat(KEY_MAX + 1)), Err(Unknown::KeyWrong));
        assert_eq!(who(&book, &[]), Err(Unknown::KeyMissing));
        assert_eq!(
            who(&book, &[("x-api-key", "key-of-A")]),
            named("a", Some(1), false)
        );
    }

    #[test]
    fn keys_are_not_needed_where_it_is_open() {
        let text = "[server]\nauth = \"open\"\n[[tenants]]\nname = \"a\"\nkey = \"env:A\"";
        let (expired, key) = Key::generate("a", Date::from_unix(1), Some(Date::from_unix(2))).unwrap();
        let book = TenantBook::new(&config(text, vec![key]));
        let sent = |key: &str| who(&book, &[("x-api-key", key)]);
        assert_eq!(sent("key-of-A"), named("a", Some(0), false));
        assert_eq!(sent("sk-anything"), Ok((None, None, false)));
        assert_eq!(
            sent("tg-revoked"),
            Ok((None, None, true)),
            "never sent upstream all the same"
        );
        assert_eq!(sent(expired.expose()), Err(Unknown::KeyWrong));
        assert_eq!(who(&book, &[]), Ok((None, None, false)));
    }

    #[test]
    fn a_trusted_header_goes_before_keys() {
        let text = "[server]\ntenant_header = \"x-tenant\"\n[[tenants]]\nname = \"a\"\nkey = \"env:A\"";
        let book = TenantBook::new(&config(text, Vec::new()));
        assert_eq!(who(&book, &[("x-tenant", " a ")]), named("a", Some(0), false));
        assert_eq!(
            who(
                &book,
                &[("x-tenant", "Some.One@else:1"), ("x-api-key", "key-of-A")]
            ),
            named("some.one@else:1", None, false)
        );
        assert_eq!(who(&book, &[("x-tenant", "A")]), named("a", Some(0), false));
        let longest = "n".repeat(NAME_MAX);
        assert_eq!(
            who(&book, &[("x-tenant", &longest)]),
            named(&longest, None, false)
        );
        assert_eq!(
            who(&book, &[("x-tenant", ""), ("x-api-key", "key-of-A")]),
            named("a", Some(0), false)
        );
        assert_eq!(who(&book, &[("x-tenant", "")]), Err(Unknown::KeyMissing));
        for bad in [
            "*",
            "a\tb",
            "a b",
            "a,b",
            "a/b",
            "\"a\"",
            &"n".repeat(NAME_MAX + 1),
        ] {
            assert_eq!(who(&book, &[("x-tenant", bad)]), Err(Unknown::BadName), "{bad}");
        }
        assert_eq!(
            who(&book, &[("x-tenant", "a"), ("x-tenant", "b")]),
            Err(Unknown::BadName)
        );
    }
}
