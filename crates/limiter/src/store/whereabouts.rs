//! Where the keys of a group are: at the one server, at the one that sentinels tell of, or at a node of a cluster.

use std::collections::BTreeMap;

use redis::{Cmd, FromRedisValue, Value};

use super::address::Address;
use super::fault::{Fault, StoreError};
use super::link::{Dialer, unread};
use super::options::Topology;

/// Keys are in one of so many slots.
const SLOTS: u16 = 16_384;

/// Which slots are where: the last slot of each stretch, the first of it, and its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Whereabouts(BTreeMap<u16, (u16, Address)>);

impl Whereabouts {
    fn of_one(address: Address) -> Self {
        Self(BTreeMap::from([(SLOTS - 1, (0, address))]))
    }

    /// Returns the node of a slot.
    pub(super) fn node(&self, slot: u16) -> Option<&Address> {
        let (_, (first, address)) = self.0.range(slot..).next()?;
        (*first <= slot).then_some(address)
    }

    /// Returns some node.
    pub(super) fn first(&self) -> Option<&Address> {
        self.0.values().map(|(_, address)| address).next()
    }

    /// Returns whether a node has any slots.
    pub(super) fn has(&self, node: &Address) -> bool {
        self.0.values().any(|(_, address)| address == node)
    }

    /// A slot was moved to another node.
    pub(super) fn moved(&mut self, slot: u16, to: Address) {
        let stretch = self.0.range(slot..).next();
        if let Some((last, (first, address))) = stretch.map(|(last, stretch)| (*last, stretch.clone()))
            && first <= slot
        {
            self.0.remove(&last);
            if first < slot {
                self.0.insert(slot - 1, (first, address.clone()));
            }
            if slot < last {
                self.0.insert(last, (slot + 1, address));
            }
        }
        self.0.insert(slot, (slot, to));
    }
}

/// Finds out where everything is. `known` are nodes that were heard of, to be asked too.
pub(super) async fn find(dialer: &Dialer, known: &[Address]) -> Result<Whereabouts, Fault> {
    let nodes = dialer.options.addresses();
    match &dialer.options.topology {
        Topology::Single => nodes
            .into_iter()
            .next()
            .map(Whereabouts::of_one)
            .ok_or_else(unread),
        Topology::Sentinel(name) => {
            let mut question = redis::cmd("SENTINEL");
            question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
            let read = |_: &Address, value| read_master(value, name);
            ask_any(dialer, nodes.iter(), &question, read)
                .await
                .map(Whereabouts::of_one)
        }
        Topology::Cluster => {
            let mut question = redis::cmd("CLUSTER");
            question.arg("SLOTS");
            ask_any(dialer, known.iter().chain(&nodes), &question, read_slots).await
        }
    }
}

/// Asks one after the other until one answers.
async fn ask_any<T>(
    dialer: &Dialer,
    nodes: impl Iterator<Item = &Address>,
    question: &Cmd,
    read: impl Fn(&Address, Value) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut last = unread();
    for node in nodes {
        match dialer
            .ask(node, question)
            .await
            .and_then(|value| read(node, value))
        {
            Ok(found) => return Ok(found),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

fn read_master(value: Value, name: &str) -> Result<Address, Fault> {
    if value == Value::Nil {
        return Err(Fault::new(
            StoreError::NotFound,
            format!("the sentinels know no server called {name}"),
        ));
    }
    let (host, port) = FromRedisValue::from_redis_value(value).map_err(|_| unread())?;
    Ok(Address::Tcp(host, port))
}

fn read_slots(asked: &Address, value: Value) -> Result<Whereabouts, Fault> {
    let Value::Array(stretches) = value else {
        return Err(unread());
    };
    let mut found = Whereabouts::default();
    for stretch in stretches {
        let (first, last, node) = read_stretch(asked, stretch).ok_or_else(unread)?;
        found.0.insert(last, (first, node));
    }
    if found.0.is_empty() {
        return Err(Fault::new(StoreError::ClusterDown, "the cluster has no slots"));
    }
    Ok(found)
}

/// First slot, last slot, and then the nodes, each with its address and port first.
fn read_stretch(asked: &Address, value: Value) -> Option<(u16, u16, Address)> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let mut number = || u16::from_redis_value(parts.next()?).ok();
    let (first, last) = (number()?, number()?);
    let Value::Array(node) = parts.next()? else {
        return None;
    };
    let mut node = node.into_iter();
    let host: Option<String> = Option::from_redis_value(node.next()?).ok()?;
    let port = u16::from_redis_value(node.next()?).ok()?;
    // A node that does not know its own address is where it was asked.
    let host = host
        .filter(|host| !host.is_empty() && host != "?")
        .or_else(|| asked.host().map(str::to_owned))?;
    Some((first, last, Address::Tcp(host, port)))
}

/// Returns the slot of a group's keys, which is that of their tag (CRC-16 of XMODEM).
pub(super) fn slot_of(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Address {
        Address::Tcp("n".to_owned(), port)
    }

    #[test]
    fn slots_are_those_of_the_servers() {
        // From the specification of the cluster, and of `CLUSTER KEYSLOT`.
        assert_eq!(slot_of("123456789"), 0x31c3);
        assert_eq!(slot_of("foo"), 12_182);
    }

    #[test]
    fn a_slot_that_moves_leaves_its_neighbors() {
        let mut slots = Whereabouts::of_one(node(1));
        slots.moved(100, node(2));
        slots.moved(0, node(3));
        slots.moved(16_383, node(4));
        let expected = [
            (0, 3),
            (1, 1),
            (99, 1),
            (100, 2),
            (101, 1),
            (16_382, 1),
            (16_383, 4),
        ];
        for (slot, port) in expected {
            assert_eq!(slots.node(slot), Some(&node(port)), "{slot}");
        }
        slots.moved(100, node(1));
        assert!(!slots.has(&node(2)));
    }
}
