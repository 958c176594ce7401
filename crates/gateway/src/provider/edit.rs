//! Small changes to a request's body, every other byte as it is.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// A change to a body: some bytes replaced by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Splice {
    pub(super) at: Range<usize>,
    pub(super) with: Cow<'static, str>,
}

impl Splice {
    /// Replaces some bytes.
    pub(super) fn replace(at: Range<usize>, with: impl Into<Cow<'static, str>>) -> Self {
        Self {
            at,
            with: with.into(),
        }
    }

    /// Puts an entry into an object, in front of all others. `object` is where its opening brace stands.
    pub(super) fn insert(object: usize, is_empty: bool, entry: &str) -> Self {
        let comma = if is_empty { "" } else { "," };
        let start = object + 1;
        Self::replace(start..start, format!("{entry}{comma}"))
    }
}

/// Returns the body with all changes; `None` if they overlap or lie outside it.
pub(super) fn apply(body: &[u8], mut splices: Vec<Splice>) -> Option<Bytes> {
    splices.sort_by_key(|splice| splice.at.start);
    let added: usize = splices.iter().map(|splice| splice.with.len()).sum();
    let mut changed = BytesMut::with_capacity(body.len() + added);
    let mut at = 0;
    for splice in splices {
        changed.put_slice(body.get(at..splice.at.start)?);
        changed.put_slice(splice.with.as_bytes());
        at = splice.at.end;
    }
    changed.put_slice(body.get(at..)?);
    Some(changed.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_made_where_they_belong() {
        let body = b"{\"a\":1}";
        let check = |splices: &[Splice], expect: Option<&str>| {
            let changed = apply(body, splices.to_vec());
            assert_eq!(changed.as_deref(), expect.map(str::as_bytes), "{splices:?}");
        };
        check(&[], Some("{\"a\":1}"));
        check(&[Splice::replace(5..6, "27")], Some("{\"a\":27}"));
        check(
            &[
                Splice::replace(5..6, "27"),
                Splice::insert(0, false, "\"b\":2"),
                Splice::insert(0, false, "\"c\":3"),
            ],
            Some("{\"b\":2,\"c\":3,\"a\":27}"),
        );
        check(&[Splice::insert(0, true, "\"b\":2")], Some("{\"b\":2\"a\":1}"));
        check(&[Splice::replace(4..6, ""), Splice::replace(5..7, "")], None);
        check(&[Splice::replace(7..9, "")], None);
        check(&[Splice::replace(9..9, "")], None);
    }
}
