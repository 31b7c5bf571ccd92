//! What a completion belongs to, packed into the 64 bits that the kernel hands back.

use crate::base::ids::ConnId;

/// The kinds of operations in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The listener's multishot accept.
    Accept,
    /// The read of the wake-up eventfd.
    Wake,
    /// A cancellation; the id is that of the connection whose operation it ends.
    Cancel,
    /// A connection's connect.
    Connect,
    /// A connection's receive.
    Recv,
    /// A connection's send.
    Send,
    /// A connection's send without a copy; the id is its place in the table of those.
    ZeroCopy,
    /// A file operation; the id is its place in the table of those.
    File,
}

const KINDS: [Kind; 8] = [
    Kind::Accept,
    Kind::Wake,
    Kind::Cancel,
    Kind::Connect,
    Kind::Recv,
    Kind::Send,
    Kind::ZeroCopy,
    Kind::File,
];

/// Kind and id of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) id: ConnId,
}

/// Places that an index can name: it has 24 bits, the generation 32, the kind 8.
pub(super) const INDEX_LIMIT: u32 = 1 << 24;

impl Key {
    /// The key of the one operation of its kind on the ring.
    pub(super) const fn only(kind: Kind) -> Self {
        Self { kind, id: ConnId { index: 0, generation: 0 } }
    }

    /// As user data of an operation.
    pub(super) const fn pack(self) -> u64 {
        debug_assert!(self.id.index < INDEX_LIMIT);
        (self.kind as u64) << 56 | (self.id.index as u64) << 32 | self.id.generation as u64
    }

    /// From the user data of a completion; `None` if no operation of ours had it.
    pub(super) fn unpack(data: u64) -> Option<Self> {
        let kind = *KINDS.get((data >> 56) as usize)?;
        let index = (data >> 32) as u32 & (INDEX_LIMIT - 1);
        Some(Self { kind, id: ConnId { index, generation: data as u32 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_kernel() {
        for kind in KINDS {
            for (index, generation) in [(0, 0), (1, u32::MAX), (INDEX_LIMIT - 1, 7)] {
                let key = Key { kind, id: ConnId { index, generation } };
                assert_eq!(Key::unpack(key.pack()), Some(key));
            }
        }
        assert_eq!(Key::unpack(u64::MAX), None);
        assert_eq!(Key::unpack((KINDS.len() as u64) << 56), None);
    }
}
