//! Calls as the script reads them, and replies as it writes them.
//!
//! The script's second argument is the call in MessagePack, as values one after the other:
//!
//! | Value | |
//! |---|---|
//! | numbers | replica, sequence, epoch, next epoch, server, time, shares, share life, lease, trusts empty, leaves, wants view (1 or 0), version of the facts, the four tiers' shares |
//! | list | limits, seven numbers each: name, life, width, amount, since, ends, held |
//! | list | corrections, four values each: 1, limit, moment, amount (a refund); 2, limit, moment, amount (a charge); 3, limit, amount, 0 (what the provider counts); 4, limit, amount, source (what it allows); 5, moment, 0, 0 (a pause); 6, tier, tenant, service |
//! | list | requests: tier, tenant, cost, service, arrived, count, then limit, take and hold so many times |
//! | list | calls whose answers were given up, a list each: sequence, list of corrections, list of what its requests would have taken of each limit |
//! | lists | with a seed only: its own charges (limit, moment, amount), what was seen (limit, slot, amount), the replicas |
//!
//! Limits are counted from 1, in the order of the call. Tenants are texts of eight bytes, because the script's numbers hold
//! 53 bits.

pub mod escrow;

use tidegate_core::ledger::{Ask, Call, Entry, JOINS, LimitName, Missed, Reply, Seed, Terms, Wakening};

/// The script. It runs as it is: nothing is ever put into its text.
pub const SCRIPT: &str = concat!(
    include_str!("ledger/head.lua"),
    include_str!("ledger/common.lua"),
    include_str!("ledger/shared.lua"),
    include_str!("ledger/ring.lua"),
    include_str!("ledger/state.lua"),
    include_str!("ledger/line.lua"),
    include_str!("ledger/answer.lua"),
    include_str!("ledger/write.lua"),
);

/// Where the ledger of a quota group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    prefix: String,
    group: String,
}

impl Place {
    /// Names the ledger of a group among those of a prefix. Whatever is in the names, all keys have one hash tag.
    pub fn new(prefix: &str, group: &str) -> Self {
        Self {
            prefix: plain(prefix),
            group: plain(group),
        }
    }

    /// Returns the group's name as it is in keys and in messages.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Returns the keys of a call: the ledger's own two, and one for each limit.
    pub fn keys(&self, limits: &[Terms]) -> Vec<String> {
        let own = ["state", "tags"].map(|name| format!("{}:{{{}}}:{name}", self.prefix, self.group));
        own.into_iter()
            .chain(limits.iter().map(|terms| self.ring(terms.name)))
            .collect()
    }

    /// Returns the key of a limit's charges.
    pub fn ring(&self, name: LimitName) -> String {
        format!("{}:{{{}}}:r:{}", self.prefix, self.group, name.number())
    }

    /// Returns the channel on which the process of a replica is told when to call.
    pub fn channel(&self, replica: u64) -> String {
        channel(&self.prefix, replica / JOINS)
    }
}

/// Returns the channel on which a process is told which of its replicas should call, and when. A message is a group's name
/// as in keys, the replica and the moment.
pub fn channel(prefix: &str, process: u64) -> String {
    format!("{}:wake:{process}", plain(prefix))
}

/// Reads a message of the channel of a process: the group's name as in keys, which replica should call, and when.
pub fn read_wakening(message: &str) -> Option<(&str, Wakening)> {
    let (rest, at) = message.rsplit_once(' ')?;
    let (group, replica) = rest.rsplit_once(' ')?;
    Some((
        group,
        Wakening {
            replica: replica.parse().ok()?,
            at: at.parse().ok()?,
        },
    ))
}

/// Writes a call as the script's second argument.
pub fn write_call(call: &Call) -> Vec<u8> {
    let mut out = Packed(Vec::with_capacity(256));
    out.numbers([
        call.replica,
        call.sequence,
        call.epoch,
        call.next_epoch,
        call.server,
        call.time,
        call.shares,
        call.share_life,
        call.lease,
        u64::from(call.trusts_empty),
        u64::from(call.leaves),
        u64::from(call.wants_view),
        call.facts,
    ]);
    out.numbers(call.tiers.map(u64::from));
    out.list(call.limits.len() * 7);
    for terms in &call.limits {
        out.numbers([
            terms.name.number(),
            terms.life,
            terms.width,
            terms.amount,
            terms.since,
            terms.ends,
            terms.held,
        ]);
    }
    out.entries(&call.entries);
    let limits = call.limits.len();
    out.list(
        call.asks
            .iter()
            .map(|ask| 6 + 3 * wants(ask, limits).count())
            .sum(),
    );
    for ask in &call.asks {
        out.ask(ask, limits);
    }
    out.list(call.missed.len());
    for missed in &call.missed {
        out.missed(missed, limits);
    }
    if let Some(seed) = &call.seed {
        out.seed(seed);
    }
    out.0
}

/// Reads what the script returned: the reply, and whom it told to call.
pub fn read_reply(numbers: &[u64]) -> Option<(Reply, Vec<Wakening>)> {
    let (count, rest) = numbers.split_last()?;
    let wakenings = usize::try_from(*count).ok()?.checked_mul(2)?;
    let (reply, wakenings) = rest.split_at_checked(rest.len().checked_sub(wakenings)?)?;
    let wakenings = wakenings.chunks_exact(2).map(|pair| Wakening {
        replica: pair[0],
        at: pair[1],
    });
    Some((Reply::from_numbers(reply)?, wakenings.collect()))
}

/// Returns a name without what would end a hash tag or a message's first word; different names stay different.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    for letter in name.chars() {
        if matches!(letter, '{' | '}' | '%') || letter.is_whitespace() || letter.is_control() {
            plain.push_str(&format!("%{:x}%", u32::from(letter)));
        } else {
            plain.push(letter);
        }
    }
    // An empty tag is none.
    if plain.is_empty() { "%".to_owned() } else { plain }
}

/// Returns what a request wants of each limit, counted from 1: take and hold.
fn wants(ask: &Ask, limits: usize) -> impl Iterator<Item = [u64; 3]> {
    let of = |amounts: &[u64], at: usize| amounts.get(at).copied().unwrap_or(0);
    let wants = (0..limits).map(move |at| [place(at), of(&ask.take, at), of(&ask.hold, at)]);
    wants.filter(|[_, take, hold]| take + hold > 0)
}

fn place(limit: usize) -> u64 {
    limit as u64 + 1
}

/// Values in MessagePack.
struct Packed(Vec<u8>);

impl Packed {
    fn number(&mut self, number: u64) {
        match number {
            0..=0x7f => self.0.push(number.to_le_bytes()[0]),
            0x80..=0xff => self.tagged(0xcc, &number.to_be_bytes()[7..]),
            0x100..=0xffff => self.tagged(0xcd, &number.to_be_bytes()[6..]),
            0x1_0000..=0xffff_ffff => self.tagged(0xce, &number.to_be_bytes()[4..]),
            _ => self.tagged(0xcf, &number.to_be_bytes()),
        }
    }

    fn signed(&mut self, number: i64) {
        match u64::try_from(number) {
            Ok(number) => self.number(number),
            Err(_) => self.tagged(0xd3, &number.to_be_bytes()),
        }
    }

    fn numbers(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.number(number);
        }
    }

    fn tenant(&mut self, tenant: u64) {
        self.tagged(0xa8, &tenant.to_be_bytes());
    }

    /// Begins a list of so many values.
    fn list(&mut self, length: usize) {
        match u16::try_from(length) {
            Ok(length @ 0..=15) => self.0.push(0x90 | length.to_be_bytes()[1]),
            Ok(length) => self.tagged(0xdc, &length.to_be_bytes()),
            Err(_) => self.tagged(0xdd, &u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()),
        }
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(bytes);
    }

    fn entries(&mut self, entries: &[Entry]) {
        self.list(entries.len() * 4);
        for entry in entries {
            self.entry(entry);
        }
    }

    fn entry(&mut self, entry: &Entry) {
        match *entry {
            Entry::Refund { limit, stamp, amount } => self.numbers([1, place(limit), stamp, amount]),
            Entry::Charge { limit, stamp, amount } => self.numbers([2, place(limit), stamp, amount]),
            Entry::Used { limit, amount } => self.numbers([3, place(limit), amount, 0]),
            Entry::Amount {
                limit,
                amount,
                source,
            } => self.numbers([4, place(limit), amount, source]),
            Entry::Pause { until } => self.numbers([5, until, 0, 0]),
            Entry::Service { tier, tenant, by } => {
                self.numbers([6, u64::from(tier)]);
                self.tenant(tenant);
                self.signed(by);
            }
        }
    }

    fn ask(&mut self, ask: &Ask, limits: usize) {
        self.number(u64::from(ask.tier & 3));
        self.tenant(ask.tenant);
        self.numbers([ask.cost, ask.service, ask.arrived]);
        self.number(wants(ask, limits).count() as u64);
        for want in wants(ask, limits) {
            self.numbers(want);
        }
    }

    fn missed(&mut self, missed: &Missed, limits: usize) {
        self.list(3);
        self.number(missed.sequence);
        self.entries(&missed.entries);
        self.list(missed.asks.len() * limits);
        for takes in &missed.asks {
            self.numbers((0..limits).map(|at| takes.get(at).copied().unwrap_or(0)));
        }
    }

    fn seed(&mut self, seed: &Seed) {
        for charges in [&seed.own, &seed.seen] {
            self.list(charges.len() * 3);
            for (limit, moment, amount) in charges {
                self.numbers([place(*limit), *moment, *amount]);
            }
        }
        self.list(seed.names.len());
        self.numbers(seed.names.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_tag_whatever_the_names_are() {
        let place = Place::new("tide{gate", "a} b%");
        assert_eq!(
            place.keys(&[]),
            [
                "tide%7b%gate:{a%7d%%20%b%25%}:state",
                "tide%7b%gate:{a%7d%%20%b%25%}:tags"
            ]
        );
        assert_ne!(Place::new("t", "%7d%"), Place::new("t", "}"));
        assert_eq!(Place::new("t", "").keys(&[])[0], "t:{%}:state");
    }

    #[test]
    fn wakenings_are_split_off() {
        let reply = Reply::from_numbers(&[2, 7, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut numbers = reply.numbers();
        numbers.extend([5, 100, 6, 200, 2]);
        let (read, wakenings) = read_reply(&numbers).unwrap();
        assert_eq!(read, reply);
        assert_eq!(
            wakenings
                .iter()
                .map(|one| (one.replica, one.at))
                .collect::<Vec<_>>(),
            [(5, 100), (6, 200)]
        );
        assert_eq!(read_reply(&[]), None);
        assert_eq!(read_reply(&[9]), None);
    }

    #[test]
    fn messages_are_read() {
        let wakening = Wakening {
            replica: 4_097,
            at: 1_700_000_000_000_000,
        };
        assert_eq!(
            read_wakening("gpt-4o 4097 1700000000000000"),
            Some(("gpt-4o", wakening))
        );
        assert_eq!(read_wakening("gpt-4o 1700000000000000"), None);
        assert_eq!(Place::new("t", "gpt-4o").channel(4_097), "t:wake:1");
    }
}
