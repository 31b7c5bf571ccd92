//! Bytes on their way into the kernel, by when they began: what takes too long stops counting.
//!
//! A peer that reads slowly must not keep the others waiting, nor its own party. So a send counts for
//! [`PATIENCE`] epochs, the one in which it began included, and no longer.

use crate::base::time::Span;

/// One epoch at least: the unit of patience. On a link so slow that less than `SEND_WINDOW_BYTES_MIN`
/// passes in it, epochs are longer.
pub const EPOCH: Span = Span::from_ms(25);

/// The longest epoch: that of a link of 16 KiB a second. Where epochs are shorter than it takes such a link
/// to send what is in flight, sends seem stuck, and every connection is served at once (ARCHITECTURE.md, "On
/// a slow link patience is as long as what is in flight takes").
pub const EPOCH_MAX: Span = Span::from_secs(2);

/// An epoch while nobody knows how fast the link is, since nothing that is in flight has ended: a link of
/// 16 KiB a second has sent what is in flight at first before that seems stuck.
pub const EPOCH_AT_FIRST: Span = Span::from_ms(500);

/// Epochs for which a send counts.
pub const PATIENCE: usize = 8;

/// Payload in flight of a class or of a party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// Counted bytes by the epoch in which they began; the newest at `epoch % PATIENCE`.
    bytes_by_epoch: [u64; PATIENCE],
    /// The epoch that it was last rolled to.
    epoch: u64,
    /// Sum of the above.
    counted_bytes: u64,
}

impl Flight {
    /// Bytes that count.
    pub const fn counted_bytes(&self) -> u64 {
        self.counted_bytes
    }

    /// Bytes of sends that began in this epoch or the one before.
    pub const fn young_bytes(&self) -> u64 {
        let [this, before] = [self.epoch, self.epoch.wrapping_sub(1)];
        self.bytes_by_epoch[place(this)] + self.bytes_by_epoch[place(before)]
    }

    /// A send begins; `epoch` is never less than before.
    #[cfg(test)]
    pub fn begin(&mut self, epoch: u64, bytes: u64) {
        self.begin_aged(epoch, epoch, bytes);
    }

    /// The same; it counts as if it had begun in the epoch `begun`, which still counts.
    pub fn begin_aged(&mut self, epoch: u64, begun: u64, bytes: u64) {
        debug_assert!(begun <= epoch && epoch - begun < PATIENCE as u64);
        self.roll_to(epoch);
        self.bytes_by_epoch[place(begun)] += bytes;
        self.counted_bytes += bytes;
    }

    /// A send that began in the epoch `begun` ended.
    pub fn end(&mut self, epoch: u64, begun: u64, bytes: u64) {
        self.roll_to(epoch);
        if epoch - begun < PATIENCE as u64 {
            self.bytes_by_epoch[place(begun)] -= bytes;
            self.counted_bytes -= bytes;
        }
    }

    /// It is `epoch` by now. Bytes that no longer count since.
    pub fn roll_to(&mut self, epoch: u64) -> u64 {
        let mut stuck_bytes = 0;
        for passed in 1..=(epoch - self.epoch).min(PATIENCE as u64) {
            stuck_bytes += std::mem::take(&mut self.bytes_by_epoch[place(self.epoch + passed)]);
        }
        self.epoch = epoch;
        self.counted_bytes -= stuck_bytes;
        stuck_bytes
    }
}

const fn place(epoch: u64) -> usize {
    (epoch % PATIENCE as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn a_send_counts_for_so_many_epochs_and_is_young_for_two() {
        let mut flight = Flight::default();
        flight.begin(3, 100);
        for epoch in 3..3 + PATIENCE as u64 {
            assert_eq!(flight.roll_to(epoch), 0);
            assert_eq!(flight.counted_bytes(), 100, "epoch {epoch}");
            assert_eq!(flight.young_bytes(), if epoch <= 4 { 100 } else { 0 }, "epoch {epoch}");
        }
        assert_eq!(flight.roll_to(3 + PATIENCE as u64), 100);
        flight.end(100, 3, 100);
        assert_eq!(flight.counted_bytes(), 0, "its end is counted once");
    }

    #[test]
    fn it_counts_what_a_list_of_sends_counts() {
        let mut rng = Rng::new(5);
        let (mut flight, mut epoch, mut sends) = (Flight::default(), 0, Vec::new());
        for _ in 0..10_000 {
            match rng.below(3) {
                0 => epoch += u64::from(rng.below(12)) / 3,
                1 => {
                    let bytes = u64::from(rng.below(1_000));
                    flight.begin(epoch, bytes);
                    sends.push((epoch, bytes));
                }
                _ if !sends.is_empty() => {
                    let (begun, bytes) = sends.swap_remove(rng.below(sends.len() as u32) as usize);
                    flight.end(epoch, begun, bytes);
                }
                _ => {}
            }
            flight.roll_to(epoch);
            let of = |epochs: u64| sends.iter().filter(move |&&(begun, _)| epoch - begun < epochs);
            let sum = |epochs| of(epochs).map(|&(_, bytes)| bytes).sum::<u64>();
            assert_eq!((flight.counted_bytes(), flight.young_bytes()), (sum(PATIENCE as u64), sum(2)));
        }
    }
}
