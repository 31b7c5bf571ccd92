//! The run queue of one core: parties that wait, by class and bucket. Every step is O(1): a bitmap of 64
//! buckets a class, a list a bucket.
//!
//! Keys of *rest* are amounts of service that only grow. Its buckets are a ring: it begins where service
//! was last given, and who is beyond its end stands in the last bucket until it is looked at again.

use super::class::{BUCKETS, CLASSES, Class, Place};
use super::lists::{Links, List};

/// See the module.
#[derive(Debug)]
pub struct RunQueue {
    links: Links,
    classes: [Buckets; CLASSES],
    /// Bucket of each party that waits.
    places: Vec<(Class, u8)>,
    /// Key at which the ring of *rest* begins.
    base: u64,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Buckets {
    filled: u64,
    lists: [List; BUCKETS as usize],
}

impl Default for RunQueue {
    fn default() -> Self {
        let empty = Buckets { filled: 0, lists: [List::default(); BUCKETS as usize] };
        Self { links: Links::default(), classes: [empty; CLASSES], places: Vec::new(), base: 0, len: 0 }
    }
}

impl RunQueue {
    /// How many wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the party waits.
    pub fn holds(&self, party: u32) -> bool {
        self.links.is_listed(party)
    }

    /// Where the ring of *rest* begins: nobody's service counts as less.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Puts a party that does not wait behind those of its bucket.
    pub fn push(&mut self, party: u32, place: Place) {
        self.push_to(party, place, Links::push_back);
    }

    /// Puts a party that does not wait before those of its bucket.
    pub fn push_front(&mut self, party: u32, place: Place) {
        self.push_to(party, place, Links::push_front);
    }

    fn push_to(&mut self, party: u32, place: Place, push: fn(&mut Links, &mut List, u32)) {
        let bucket = self.bucket(place);
        if self.places.len() <= party as usize {
            self.places.resize(party as usize + 1, (Class::Rest, 0));
        }
        self.places[party as usize] = (place.class, bucket);
        let buckets = &mut self.classes[place.class as usize];
        push(&mut self.links, &mut buckets.lists[bucket as usize], party);
        buckets.filled |= 1 << bucket;
        self.len += 1;
    }

    /// Takes a party out.
    pub fn remove(&mut self, party: u32) {
        let (class, bucket) = self.places[party as usize];
        let buckets = &mut self.classes[class as usize];
        let list = &mut buckets.lists[bucket as usize];
        self.links.remove(list, party);
        if list.is_empty() {
            buckets.filled &= !(1 << bucket);
        }
        self.len -= 1;
    }

    /// The first of a class.
    pub fn first(&self, class: Class) -> Option<u32> {
        let buckets = &self.classes[class as usize];
        if buckets.filled == 0 {
            return None;
        }
        let start = if class == Class::Rest { (self.base % u64::from(BUCKETS)) as u32 } else { 0 };
        let bucket = (buckets.filled.rotate_right(start).trailing_zeros() + start) % BUCKETS;
        buckets.lists[bucket as usize].first()
    }

    /// Whether a party that waits stands where `place` says.
    pub fn stands(&self, party: u32, place: Place) -> bool {
        self.places[party as usize] == (place.class, self.bucket(place))
    }

    /// A party that waits in *rest*, and is the first there, is served: the ring begins with it from now on.
    pub fn advance_to(&mut self, party: u32) {
        let (class, bucket) = self.places[party as usize];
        debug_assert!(class == Class::Rest && self.holds(party));
        let start = self.base % u64::from(BUCKETS);
        self.base += (u64::from(bucket) + u64::from(BUCKETS) - start) % u64::from(BUCKETS);
    }

    fn bucket(&self, place: Place) -> u8 {
        let last = u64::from(BUCKETS) - 1;
        if place.class == Class::Rest {
            (place.key.clamp(self.base, self.base + last) % u64::from(BUCKETS)) as u8
        } else {
            place.key.min(last) as u8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(class: Class, key: u64) -> Place {
        Place { class, key }
    }

    #[test]
    fn a_class_is_served_by_key_and_then_by_arrival() {
        let mut queue = RunQueue::default();
        for (party, key) in [(1, 5), (2, 3), (3, 3), (4, 63), (5, 1_000)] {
            queue.push(party, at(Class::Owed, key));
        }
        let mut order = Vec::new();
        while let Some(party) = queue.first(Class::Owed) {
            queue.remove(party);
            order.push(party);
        }
        assert_eq!(order, [2, 3, 1, 4, 5]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn the_ring_of_rest_goes_round_and_nobody_is_before_its_begin() {
        let mut queue = RunQueue::default();
        for step in 0..1_000u64 {
            queue.push(1, at(Class::Rest, step));
            queue.push(2, at(Class::Rest, step + 5));
            queue.push(3, at(Class::Rest, step + 10_000));
            queue.push(4, at(Class::Rest, 0));
            let mut order = Vec::new();
            while let Some(party) = queue.first(Class::Rest) {
                queue.remove(party);
                order.push(party);
            }
            assert_eq!(order, [1, 4, 2, 3], "step {step}");
            queue.push(5, at(Class::Rest, step + 1));
            queue.advance_to(5);
            queue.remove(5);
            assert_eq!(queue.base(), step + 1);
        }
    }

    #[test]
    fn removing_from_the_middle_leaves_the_others_in_order() {
        let mut queue = RunQueue::default();
        (0..5).for_each(|party| queue.push(party, at(Class::Excess, 7)));
        queue.remove(2);
        queue.remove(0);
        assert!(queue.stands(1, at(Class::Excess, 7)) && !queue.stands(1, at(Class::Excess, 8)));
        assert_eq!((queue.first(Class::Excess), queue.len(), queue.holds(2)), (Some(1), 3, false));
    }
}
