//! The nodes that are known to answer, more of those that are near (BEP 5).
//!
//! Invariants: one bucket for each length of common prefix, with at most [`BUCKET`] nodes; only who answered
//! a query of ours comes in, so that nobody enters somebody else's address; of a public address one node,
//! and one whose id does not fit its address (BEP 42) gives way to one whose id does.

use std::net::SocketAddr;

use crate::base::address::AddressClass;
use crate::base::time::{Instant, Span};
use crate::proto::krpc::{Contact, NodeId, fits};

/// Nodes in a bucket, in a reply, and nodes that keep an announce (k of BEP 5).
pub const BUCKET: usize = 8;

/// A node that was silent for so long is asked whether it is still there (BEP 5).
const SILENT: Span = Span::from_secs(15 * 60);

/// Queries in a row without an answer after which a node is forgotten.
const FAILURES_MAX: u32 = 2;

const BUCKETS: usize = 160;

#[derive(Clone, Copy, Debug)]
struct Node {
    contact: Contact,
    heard_at: Instant,
    failures: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Table {
    own: NodeId,
    buckets: Vec<Vec<Node>>,
}

impl Table {
    /// An empty table of a node named `own`.
    pub fn new(own: NodeId) -> Self {
        Self { own, buckets: vec![Vec::new(); BUCKETS] }
    }

    /// Whose it is.
    pub const fn own(&self) -> NodeId {
        self.own
    }

    /// A node answered.
    pub fn handle_answer(&mut self, contact: Contact, now: Instant) {
        if contact.id == self.own {
            return;
        }
        let fresh = Node { contact, heard_at: now, failures: 0 };
        let twin = self.same_host(contact);
        let bucket = &mut self.buckets[prefix_len(self.own, contact.id)];
        if let Some(node) = bucket.iter_mut().find(|node| node.contact.id == contact.id) {
            // An id that moves to another address is somebody else's claim, while the first one answers.
            if node.contact.address == contact.address || node.failures > 0 {
                *node = fresh;
            }
            return;
        }
        if twin {
            return;
        }
        if bucket.len() < BUCKET {
            bucket.push(fresh);
            return;
        }
        let is_fit = |node: &Node| fits(node.contact.id, node.contact.address.ip());
        let worst = bucket.iter_mut().find(|node| node.failures > 0 || (!is_fit(node) && is_fit(&fresh)));
        if let Some(node) = worst {
            *node = fresh;
        }
    }

    /// A node did not answer.
    pub fn handle_silence(&mut self, id: NodeId, address: SocketAddr) {
        let bucket = &mut self.buckets[prefix_len(self.own, id)];
        let at = bucket.iter().position(|node| node.contact == Contact { id, address });
        let Some(at) = at else { return };
        bucket[at].failures += 1;
        if bucket[at].failures >= FAILURES_MAX {
            bucket.swap_remove(at);
        }
    }

    /// Whether a node that asks us is worth a question whether it answers.
    pub fn wants(&self, contact: Contact) -> bool {
        let bucket = &self.buckets[prefix_len(self.own, contact.id)];
        let known = bucket.iter().any(|node| node.contact.id == contact.id);
        let room = bucket.len() < BUCKET || bucket.iter().any(|node| node.failures > 0);
        contact.id != self.own && !known && room && !self.same_host(contact)
    }

    /// The nodes closest to `target`, the closest first.
    pub fn closest(&self, target: NodeId, count: usize) -> Vec<Contact> {
        let mut all: Vec<Contact> = self.contacts().collect();
        all.sort_by_key(|contact| contact.id.distance(target));
        all.truncate(count);
        all
    }

    /// All nodes, the nearest ones last.
    pub fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.buckets.iter().flatten().map(|node| node.contact)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    /// The node that has been silent for longest, if that is long.
    pub fn stalest(&self, now: Instant) -> Option<Contact> {
        let stalest = self.buckets.iter().flatten().min_by_key(|node| node.heard_at)?;
        (now.since(stalest.heard_at) >= SILENT).then_some(stalest.contact)
    }

    /// Whether another node of its public address is known.
    fn same_host(&self, contact: Contact) -> bool {
        let ip = contact.address.ip();
        AddressClass::of(ip).is_stranger()
            && self.contacts().any(|node| node.address.ip() == ip && node.id != contact.id)
    }
}

/// Bits that two ids have in common at their front; of equal ones the last bucket.
fn prefix_len(a: NodeId, b: NodeId) -> usize {
    let distance = a.distance(b);
    let zeros = distance.iter().take_while(|&&byte| byte == 0).count();
    let bits = distance.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (8 * zeros + bits).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::krpc::fitting_id;

    const NOW: Instant = Instant(1_000_000_000);

    /// An id that differs from zeros at bit `bit`, and in its end.
    fn id(bit: usize, end: u8) -> NodeId {
        let mut id = NodeId([0; 20]);
        id.0[bit / 8] = 0x80 >> (bit % 8);
        id.0[18] ^= end;
        id
    }

    fn local(bit: usize, end: u8) -> Contact {
        Contact { id: id(bit, end), address: SocketAddr::from(([10, 0, 0, end], 1)) }
    }

    fn table() -> Table {
        Table::new(NodeId([0; 20]))
    }

    #[test]
    fn a_bucket_has_so_many_and_the_closest_come_first() {
        let mut table = table();
        for bit in 0..10 {
            (0..=BUCKET as u8).for_each(|end| table.handle_answer(local(bit, end), NOW));
        }
        assert_eq!(table.count(), 10 * BUCKET);
        let closest = table.closest(NodeId([0; 20]), BUCKET);
        assert!(closest.iter().all(|contact| prefix_len(contact.id, NodeId([0; 20])) == 9), "{closest:?}");
        assert!(!table.wants(local(3, 100)) && table.wants(local(20, 100)));
        table.handle_answer(Contact { id: NodeId([0; 20]), address: local(0, 1).address }, NOW);
        assert_eq!(table.count(), 10 * BUCKET, "its own name is nobody else's");
    }

    #[test]
    fn who_is_silent_gives_way_and_is_forgotten() {
        let mut table = table();
        (0..BUCKET as u8).for_each(|end| table.handle_answer(local(0, end), NOW));
        let gone = local(0, 3);
        table.handle_silence(gone.id, gone.address);
        assert_eq!(table.count(), BUCKET);
        table.handle_answer(local(0, 77), NOW);
        assert!(table.contacts().all(|contact| contact != gone) && table.count() == BUCKET);
        for _ in 0..FAILURES_MAX {
            table.handle_silence(local(0, 77).id, local(0, 77).address);
        }
        assert_eq!(table.count(), BUCKET - 1);
        assert_eq!(table.stalest(NOW + SILENT).map(|contact| contact.id.0[0]), Some(0x80));
        assert_eq!(table.stalest(NOW), None);
    }

    #[test]
    fn d2_a_public_address_has_one_place_and_no_name_of_others() {
        let mut table = table();
        let at = |end, host: u8| Contact { id: id(1, end), address: SocketAddr::from(([8, 8, 8, host], 1)) };
        table.handle_answer(at(1, 1), NOW);
        table.handle_answer(at(2, 1), NOW);
        assert_eq!(table.count(), 1, "many ids of one address");
        table.handle_answer(at(1, 9), NOW);
        assert_eq!(table.contacts().next(), Some(at(1, 1)), "an id that another address claims");
        for host in 2..=BUCKET as u8 {
            table.handle_answer(at(host, host), NOW);
        }
        assert_eq!(table.count(), BUCKET);
        // One whose id fits takes the place of one whose does not.
        let ip = [8, 8, 4, 4];
        let fit = Contact { id: fitting_id(id(1, 99), ip.into()), address: SocketAddr::from((ip, 1)) };
        let mut table = Table::new(NodeId(std::array::from_fn(|at| fit.id.0[at] ^ id(1, 7).0[at])));
        for host in 1..=BUCKET as u8 {
            let id = NodeId(std::array::from_fn(|at| fit.id.0[at] ^ if at == 19 { host } else { 0 }));
            let mut contact = Contact { id, address: SocketAddr::from(([8, 8, 8, host], 1)) };
            contact.id.0[2] ^= 0x10;
            table.handle_answer(contact, NOW);
        }
        let before = table.count();
        table.handle_answer(fit, NOW);
        assert!(table.contacts().any(|contact| contact == fit), "{before}");
        assert_eq!(table.count(), before);
    }
}
