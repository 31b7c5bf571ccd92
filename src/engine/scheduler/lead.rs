//! How far a party of *rest* may get ahead of others that are being served.
//!
//! Who has one connection does not wait while its send is under way, and so has no place in the order; a
//! party of many would go on and on meanwhile, and fill the kernel with more than the link carries in
//! seconds. So nobody begins a send who stands further ahead of a prompt reader than the window is large.
//! Only sends that began a moment ago count, in this epoch or the one before: who is slow holds nobody up.

/// Sends of one epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Young {
    /// Least key of them, and whose: a little too low when that one has ended and others have not.
    least: Option<(u64, u32)>,
    open: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Lead {
    epoch: u64,
    /// By parity of the epoch.
    young: [Young; 2],
}

impl Lead {
    /// A send of a party that stands at `key` begins.
    pub fn begin(&mut self, epoch: u64, key: u64, party: u32) {
        self.roll_to(epoch);
        let young = &mut self.young[(epoch % 2) as usize];
        young.open += 1;
        if young.least.is_none_or(|(least, _)| key < least) {
            young.least = Some((key, party));
        }
    }

    /// A send that began in the epoch `begun` ended.
    pub fn end(&mut self, epoch: u64, begun: u64) {
        self.roll_to(epoch);
        if epoch - begun > 1 {
            return;
        }
        let young = &mut self.young[(begun % 2) as usize];
        young.open -= 1;
        if young.open == 0 {
            young.least = None;
        }
    }

    /// Whether a party at `key` is more than `most` ahead of another one.
    pub fn is_ahead(&mut self, epoch: u64, key: u64, party: u32, most: u64) -> bool {
        self.roll_to(epoch);
        let others = self.young.iter().filter_map(|young| young.least).filter(|&(_, other)| other != party);
        others.map(|(least, _)| least).min().is_some_and(|least| key > least + most)
    }

    fn roll_to(&mut self, epoch: u64) {
        for passed in 1..=(epoch - self.epoch).min(2) {
            self.young[((self.epoch + passed) % 2) as usize] = Young::default();
        }
        self.epoch = epoch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_may_be_so_far_ahead_of_another_and_no_further() {
        let mut lead = Lead::default();
        lead.begin(7, 100, 1);
        for (key, ahead) in [(109, false), (110, false), (111, true)] {
            assert_eq!(lead.is_ahead(7, key, 2, 10), ahead, "{key}");
            assert!(!lead.is_ahead(7, key, 1, 10), "nobody waits for itself");
        }
        lead.end(7, 7);
        assert!(!lead.is_ahead(7, 1_000, 2, 10));
    }

    #[test]
    fn a_send_holds_others_up_in_its_epoch_and_the_next() {
        let mut lead = Lead::default();
        lead.begin(7, 100, 1);
        lead.begin(8, 105, 3);
        assert!(lead.is_ahead(8, 111, 2, 10));
        assert!(!lead.is_ahead(9, 111, 2, 10), "the first is slow");
        assert!(lead.is_ahead(9, 116, 2, 10), "the second is not yet");
        lead.end(9, 7);
        assert!(lead.is_ahead(9, 116, 2, 10), "what counts no longer ends nothing");
        assert!(!lead.is_ahead(50, 116, 2, 10));
    }
}
