//! Lists of small numbers, linked through one array: whatever is in a list can leave it in O(1), and
//! nothing is allocated once the array has grown.

/// No number.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    listed: bool,
}

/// The links of all lists over one kind of number. A number is in one list at most.
#[derive(Debug, Default)]
pub struct Links(Vec<Link>);

/// One list, first in first out.
#[derive(Clone, Copy, Debug)]
pub struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl List {
    /// The number that is next.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

impl Links {
    /// Whether the number is in a list.
    pub fn is_listed(&self, number: u32) -> bool {
        self.0.get(number as usize).is_some_and(|link| link.listed)
    }

    /// The numbers of a list, in order.
    pub fn iter(&self, list: List) -> impl Iterator<Item = u32> {
        let real = |number: u32| (number != NONE).then_some(number);
        std::iter::successors(real(list.first), move |&number| real(self.0[number as usize].after))
    }

    /// Appends a number that is in no list.
    pub fn push_back(&mut self, list: &mut List, number: u32) {
        assert!(!self.is_listed(number), "{number} is in a list already");
        self.reserve(number);
        self.0[number as usize] = Link { before: list.last, after: NONE, listed: true };
        match list.last {
            NONE => list.first = number,
            last => self.0[last as usize].after = number,
        }
        list.last = number;
    }

    /// Puts a number that is in no list before the others.
    pub fn push_front(&mut self, list: &mut List, number: u32) {
        let first = list.first;
        if first == NONE {
            return self.push_back(list, number);
        }
        assert!(!self.is_listed(number), "{number} is in a list already");
        self.reserve(number);
        self.0[number as usize] = Link { before: NONE, after: first, listed: true };
        self.0[first as usize].before = number;
        list.first = number;
    }

    /// Takes a number out of the list that it is in.
    pub fn remove(&mut self, list: &mut List, number: u32) {
        let Link { before, after, listed } = self.0[number as usize];
        assert!(listed, "{number} is in no list");
        match before {
            NONE => list.first = after,
            before => self.0[before as usize].after = after,
        }
        match after {
            NONE => list.last = before,
            after => self.0[after as usize].before = before,
        }
        self.0[number as usize].listed = false;
    }

    fn reserve(&mut self, number: u32) {
        if self.0.len() <= number as usize {
            self.0.resize(number as usize + 1, Link { before: NONE, after: NONE, listed: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn lists_do_what_a_queue_with_removal_does() {
        let (mut links, mut lists) = (Links::default(), [List::default(); 3]);
        let mut oracle: [Vec<u32>; 3] = Default::default();
        let mut rng = Rng::new(7);
        for _ in 0..10_000 {
            let (number, at) = (rng.below(20), rng.below(3) as usize);
            match oracle.iter().position(|list| list.contains(&number)) {
                None if rng.below(4) == 0 => {
                    links.push_front(&mut lists[at], number);
                    oracle[at].insert(0, number);
                }
                None => {
                    links.push_back(&mut lists[at], number);
                    oracle[at].push(number);
                }
                Some(at) => {
                    links.remove(&mut lists[at], number);
                    oracle[at].retain(|&other| other != number);
                }
            }
            for (list, oracle) in lists.iter().zip(&oracle) {
                assert!(links.iter(*list).eq(oracle.iter().copied()));
                assert_eq!(list.first(), oracle.first().copied());
                assert_eq!(list.is_empty(), oracle.is_empty());
            }
            assert_eq!(links.is_listed(number), oracle.iter().any(|list| list.contains(&number)));
        }
    }
}
