//! How many connections by HTTP a stranger's address, and a group of them, has at a time (threat N14): nobody
//! takes all places. Local networks and friends are the operator's own and exempt.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::base::address::{GroupKey, home};
use crate::base::limits::{SERVED_CONNECTIONS_PER_ADDRESS_MAX, SERVED_CONNECTIONS_PER_GROUP_MAX};
use crate::base::network::Grouping;

/// See the module. Invariant: who is counted here has a connection.
#[derive(Debug, Default)]
pub(super) struct Guests {
    grouping: Grouping,
    homes: RefCell<HashMap<IpAddr, usize>>,
    groups: RefCell<HashMap<GroupKey, usize>>,
}

/// The place of one connection, free again once it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    guests: Rc<Guests>,
    /// Where a stranger comes from.
    stranger: Option<(IpAddr, GroupKey)>,
}

impl Guests {
    /// Nobody yet; who is a stranger is for the operator to say.
    pub(super) fn new(grouping: Grouping) -> Self {
        Self { grouping, ..Self::default() }
    }

    /// A place for a connection from `address`; `None` if it has too many.
    pub(super) fn enter(self: &Rc<Self>, address: IpAddr) -> Option<Place> {
        let stranger = self.grouping.is_stranger(address);
        let stranger = stranger.then(|| (home(address), self.grouping.group_key(address)));
        if let Some((home, group)) = stranger {
            let (mut homes, mut groups) = (self.homes.borrow_mut(), self.groups.borrow_mut());
            let of_home = homes.get(&home).copied().unwrap_or(0);
            let of_group = groups.get(&group).copied().unwrap_or(0);
            let full =
                of_home >= SERVED_CONNECTIONS_PER_ADDRESS_MAX || of_group >= SERVED_CONNECTIONS_PER_GROUP_MAX;
            if full {
                return None;
            }
            homes.insert(home, of_home + 1);
            groups.insert(group, of_group + 1);
        }
        Some(Place { guests: Rc::clone(self), stranger })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((home, group)) = self.stranger else { return };
        release(&mut self.guests.homes.borrow_mut(), home);
        release(&mut self.guests.groups.borrow_mut(), group);
    }
}

/// One less; whoever has none is forgotten.
fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    match counts.get_mut(&key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(counts.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::network::GroupPrefixes;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn n14_one_address_has_so_many_connections_at_a_time_and_gets_their_places_back() {
        let guests = Rc::new(Guests::new(Grouping::default()));
        let most = SERVED_CONNECTIONS_PER_ADDRESS_MAX;
        for (a, b) in [("8.8.8.8", "::ffff:8.8.8.8"), ("2600::1", "2600::ffff:0:0:2")] {
            let mut places: Vec<Place> = (0..most - 1).map(|_| guests.enter(ip(a)).unwrap()).collect();
            places.push(guests.enter(ip(b)).expect("the last one"));
            assert!(guests.enter(ip(a)).is_none() && guests.enter(ip(b)).is_none(), "one too many");
            drop(places.pop());
            assert!(guests.enter(ip(b)).is_some(), "one left, one may come");
        }
        assert!(guests.homes.borrow().is_empty() && guests.groups.borrow().is_empty());
    }

    #[test]
    fn n14_a_group_has_so_many_connections_and_others_may_still_come() {
        let guests = Rc::new(Guests::new(Grouping::default()));
        let address = |n: usize| IpAddr::from([8, 8, 8, n as u8]);
        let most = SERVED_CONNECTIONS_PER_GROUP_MAX;
        let places: Vec<Place> =
            (0..most).map(|n| guests.enter(address(n)).expect("room in the group")).collect();
        assert!(guests.enter(address(most)).is_none());
        assert!(guests.enter(ip("9.9.9.9")).is_some());
        drop(places);
        assert!(guests.enter(address(most)).is_some());
    }

    #[test]
    fn neighbours_and_friends_have_as_many_as_they_like() {
        let friends = vec!["8.8.0.0/16".parse().unwrap()];
        let grouping = Grouping::new(friends, GroupPrefixes::default()).unwrap();
        let guests = Rc::new(Guests::new(grouping));
        for address in ["127.0.0.1", "10.1.2.3", "::1", "fd00::1", "8.8.8.8"] {
            let places: Vec<_> =
                (0..2 * SERVED_CONNECTIONS_PER_GROUP_MAX).map(|_| guests.enter(ip(address))).collect();
            assert!(places.iter().all(Option::is_some), "{address}");
        }
    }
}
