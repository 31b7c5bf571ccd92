//! What must hold of an order of service between any two steps; tests look after each.

use super::Scheduler;
use super::party::AGAIN;

impl Scheduler {
    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        let (mut queued, mut parked) = (0, 0);
        for party in 0..self.parties.len() as u32 {
            let places = [self.queue.holds(party), self.parked_links.is_listed(party)];
            assert_ne!(places, [true; 2], "party {party} waits in two places");
            let waits = !self.parties.at(party).waiting.is_empty();
            assert_eq!(waits, places != [false; 2], "whether party {party} has a place");
            queued += usize::from(places[0]);
            parked += usize::from(places[1]);
        }
        assert_eq!((queued, parked), (self.queue.len(), self.parked_count), "parties that wait");
        let waiting =
            (0..self.parties.len() as u32).map(|party| self.links.iter(self.parties.at(party).waiting));
        let waiting: Vec<(u32, u32)> =
            waiting.enumerate().flat_map(|(party, all)| all.map(move |conn| (party as u32, conn))).collect();
        for &(party, index) in &waiting {
            let seat = self.seats[index as usize].expect("who waits has a seat");
            assert_eq!(seat.party, party, "{:?} waits where it does not belong", seat.conn);
            assert!([seat.identity, seat.group, AGAIN].contains(&party), "{:?} waits elsewhere", seat.conn);
        }
        let listed = self.seats.iter().flatten().filter(|seat| self.links.is_listed(seat.conn.index)).count();
        assert_eq!(listed, waiting.len(), "connections that wait");
    }
}
