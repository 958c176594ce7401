//! Calls to the book of tenants' and routes' limits as its script reads them, and replies as it writes them.
//!
//! The script's second argument is the call in MessagePack, as values one after the other: replica, sequence, patience, whether it
//! leaves and whether it trusts an empty book (1 or 0); then a list for each owner: its epoch, and of each limit eight numbers:
//! name, amount, life, keep, need, least, want, spent.

use tidegate_core::escrow::{Call, Reply, Wakening};
use tidegate_core::{Owner, RouteId, TenantId};

use super::{Packed, plain};

/// The script. It runs as it is: nothing is ever put into its text.
pub const SCRIPT: &str = include_str!("../escrow.lua");

/// The hash tag of all keys: whatever prefix they have, a cluster keeps those of all owners at one node.
pub const TAG: &str = "escrow";

/// A message to a process begins with this word, and the owner follows.
const WORD: &str = "escrow ";

/// Returns the keys of a call: one for each owner.
pub fn keys(prefix: &str, call: &Call) -> Vec<String> {
    let prefix = plain(prefix);
    let key = |owner| format!("{prefix}:{{{TAG}}}:{}", name(owner));
    call.owners.iter().map(|claims| key(claims.owner)).collect()
}

/// Writes a call as the script's second argument.
pub fn write_call(call: &Call) -> Vec<u8> {
    let mut out = Packed(Vec::with_capacity(64 + 64 * call.owners.len()));
    let flags = [call.leaves, call.trusts_empty].map(u64::from);
    out.numbers([call.replica, call.sequence, call.patience]);
    out.numbers(flags);
    for claims in &call.owners {
        out.list(1 + claims.limits.len() * 8);
        out.number(claims.epoch);
        for claim in &claims.limits {
            out.numbers([
                claim.name.number(),
                claim.amount,
                claim.life,
                claim.keep,
                claim.need,
                claim.least,
                claim.want,
                claim.spent,
            ]);
        }
    }
    out.0
}

/// Reads what the script returned: the reply, and whom it told to call.
pub fn read_reply(call: &Call, numbers: &[u64]) -> Option<(Reply, Vec<Wakening>)> {
    let (count, rest) = numbers.split_last()?;
    let wakenings = usize::try_from(*count).ok()?.checked_mul(2)?;
    let (reply, wakenings) = rest.split_at_checked(rest.len().checked_sub(wakenings)?)?;
    let wakening = |pair: &[u64]| {
        let owner = usize::try_from(pair[0]).ok()?.checked_sub(1)?;
        Some(Wakening {
            owner: call.owners.get(owner)?.owner,
            replica: pair[1],
        })
    };
    let wakenings: Option<Vec<Wakening>> = wakenings.chunks_exact(2).map(wakening).collect();
    Some((Reply::from_numbers(call, reply)?, wakenings?))
}

/// Reads a message of the channel of a process that tells it to call about an owner; `None` if it is about something else.
pub fn read_wakening(message: &str) -> Option<Owner> {
    let name = message.strip_prefix(WORD)?;
    let number = u64::from_str_radix(name.get(1..)?, 16).ok()?;
    match name.get(..1)? {
        "t" => Some(Owner::Tenant(TenantId::from_value(number))),
        "r" => Some(Owner::Route(RouteId::from_value(number))),
        _ => None,
    }
}

fn name(owner: Owner) -> String {
    match owner {
        Owner::Tenant(tenant) => format!("t{:x}", tenant.value()),
        Owner::Route(route) => format!("r{:x}", route.value()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read() {
        let tenant = Owner::Tenant(TenantId::from_value(0xbeef));
        assert_eq!(read_wakening("escrow tbeef"), Some(tenant));
        let route = Owner::Route(RouteId::from_value(u64::MAX));
        assert_eq!(read_wakening(&format!("{WORD}{}", name(route))), Some(route));
        for other in ["escrow ", "escrow x1", "escrow t", "gpt-4o 4097 1", ""] {
            assert_eq!(read_wakening(other), None, "{other}");
        }
        assert_eq!(super::super::read_wakening("escrow tbeef"), None);
    }
}
