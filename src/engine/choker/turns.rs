//! Who waits to be unchoked: groups of addresses take turns, and the connections of a group among
//! themselves, so that a group with many connections waits no less than one with a single one.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::base::ids::ConnId;
use crate::shared::ledger::AccountId;

/// Connections of one group, and its place in the order.
#[derive(Debug)]
struct Group {
    waiting: VecDeque<ConnId>,
    ticket: u64,
}

/// See the module. Invariant: a group has a ticket while a connection of it waits.
#[derive(Debug, Default)]
pub struct Turns {
    groups: HashMap<AccountId, Group>,
    order: BTreeMap<u64, AccountId>,
    next_ticket: u64,
    count: usize,
}

impl Turns {
    /// How many wait.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nobody waits.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A connection comes to wait, behind the others of its group.
    pub fn push(&mut self, conn: ConnId, group: AccountId) {
        self.count += 1;
        if let Some(known) = self.groups.get_mut(&group) {
            known.waiting.push_back(conn);
        } else {
            let ticket = self.draw(group);
            self.groups.insert(group, Group { waiting: VecDeque::from([conn]), ticket });
        }
    }

    /// Whose turn it is; its group goes to the end.
    pub fn pop(&mut self) -> Option<ConnId> {
        let (_, group) = self.order.pop_first()?;
        let ticket = self.draw(group);
        let known = self.groups.get_mut(&group)?;
        known.ticket = ticket;
        let conn = known.waiting.pop_front()?;
        self.count -= 1;
        self.drop_empty(group);
        Some(conn)
    }

    /// A connection waits no more; nothing happens if it did not.
    pub fn remove(&mut self, conn: ConnId, group: AccountId) {
        let Some(known) = self.groups.get_mut(&group) else { return };
        if let Some(at) = known.waiting.iter().position(|&other| other == conn) {
            known.waiting.remove(at);
            self.count -= 1;
            self.drop_empty(group);
        }
    }

    /// Whether a connection waits.
    #[cfg(test)]
    pub fn holds(&self, conn: ConnId, group: AccountId) -> bool {
        self.groups.get(&group).is_some_and(|group| group.waiting.contains(&conn))
    }

    fn draw(&mut self, group: AccountId) -> u64 {
        self.next_ticket += 1;
        self.order.insert(self.next_ticket, group);
        self.next_ticket
    }

    fn drop_empty(&mut self, group: AccountId) {
        if let Some(known) = self.groups.get(&group).filter(|group| group.waiting.is_empty()) {
            self.order.remove(&known.ticket);
            self.groups.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    #[test]
    fn groups_take_turns_however_many_connections_they_bring() {
        let mut turns = Turns::default();
        let [many, few] = [1, 2].map(AccountId::from_index);
        (0..4).for_each(|index| turns.push(conn(index), many));
        (10..12).for_each(|index| turns.push(conn(index), few));
        let order: Vec<u32> = std::iter::from_fn(|| turns.pop()).map(|conn| conn.index).collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 3]);
        assert!(turns.is_empty() && turns.groups.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn who_leaves_and_comes_back_stands_at_the_end() {
        let mut turns = Turns::default();
        let groups = [1, 2, 3].map(AccountId::from_index);
        (0..3).for_each(|index| turns.push(conn(index), groups[index as usize]));
        turns.remove(conn(0), groups[0]);
        turns.remove(conn(0), groups[0]);
        turns.remove(conn(9), groups[1]);
        assert_eq!((turns.len(), turns.order.len()), (2, 2), "nothing is left of it");
        turns.push(conn(0), groups[0]);
        let order: Vec<u32> = std::iter::from_fn(|| turns.pop()).map(|conn| conn.index).collect();
        assert_eq!(order, [1, 2, 0]);
    }
}
