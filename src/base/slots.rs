//! A table with a fixed capacity whose places are reused under a new generation.

use super::ids::ConnId;

/// Up to `capacity` values, addressed by index and generation; a stale id finds nothing.
///
/// Invariant: `free` holds exactly the indices whose entry is empty.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    capacity: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    /// An empty table; memory grows as it fills, up to `capacity` entries.
    pub const fn new(capacity: u32) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), capacity }
    }

    /// Puts `value` in a free place, or gives it back if there is none.
    pub fn insert(&mut self, value: T) -> Result<ConnId, T> {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            debug_assert!(entry.value.is_none());
            entry.value = Some(value);
            return Ok(ConnId { index, generation: entry.generation });
        }
        if self.entries.len() as u32 == self.capacity {
            return Err(value);
        }
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Ok(ConnId { index: self.entries.len() as u32 - 1, generation: 0 })
    }

    /// Takes the value out; its id is stale from now on.
    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// The value, if the id is still good.
    pub fn get(&self, id: ConnId) -> Option<&T> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation == id.generation { entry.value.as_ref() } else { None }
    }

    /// The value, if the id is still good.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation { entry.value.as_mut() } else { None }
    }

    /// How many values there are.
    pub fn len(&self) -> u32 {
        (self.entries.len() - self.free.len()) as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `insert` would fail.
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// Every value with its id, in table order.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let id = ConnId { index: index as u32, generation: entry.generation };
            entry.value.as_ref().map(|value| (id, value))
        })
    }

    /// Every id, in table order.
    pub fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_a_limit_and_a_stale_id_finds_nothing() {
        let mut slots = Slots::new(2);
        let a = slots.insert('a').unwrap();
        let b = slots.insert('b').unwrap();
        assert_eq!(slots.insert('c'), Err('c'));
        assert_eq!(slots.remove(a), Some('a'));
        let c = slots.insert('c').unwrap();
        assert_eq!((c.index, slots.get(a)), (a.index, None));
        assert_eq!(slots.remove(a), None);
        assert_eq!((slots.get(b), slots.get(c), slots.len()), (Some(&'b'), Some(&'c'), 2));
    }
}
