//! How much may be asked for, over all limits: of the node, of each torrent, and apart from both of the
//! peers of local networks.

use super::egress::Locality;
use super::tap::{Tap, claim_both};
use crate::base::time::Instant;
use crate::shared::budget::{Budgets, LanBudget};

/// See the module.
#[derive(Debug)]
pub struct Ingress {
    node: Option<Tap>,
    lan: Lan,
    /// When somebody who was refused may ask again.
    opens_at: Option<Instant>,
}

/// What limits local networks.
#[derive(Debug)]
enum Lan {
    Shared,
    Apart(Option<Tap>),
}

impl Ingress {
    /// Nothing is drawn.
    pub fn new(budgets: &Budgets) -> Self {
        let lan = match &budgets.lan {
            LanBudget::Shared => Lan::Shared,
            LanBudget::Exempt => Lan::Apart(None),
            LanBudget::Own(budget) => Lan::Apart(Some(Tap::new(budget.clone()))),
        };
        Self { node: budgets.node.clone().map(Tap::new), lan, opens_at: None }
    }

    /// Takes `bytes` of what limits a peer of that network, `torrent` among it; false while that is shut.
    pub fn claim(&mut self, locality: Locality, torrent: Option<&mut Tap>, bytes: u32, now: Instant) -> bool {
        let [mut one, mut other] = self.taps(locality, torrent);
        if claim_both(one.as_deref_mut(), other.as_deref_mut(), bytes, now) {
            return true;
        }
        let shut = one.into_iter().chain(other).filter_map(|tap| tap.shut_until(now)).max();
        // What another core has just given back is there at once.
        let opens_at = shut.unwrap_or(now);
        self.opens_at = Some(self.opens_at.map_or(opens_at, |at| at.min(opens_at)));
        false
    }

    /// What was claimed was not asked for after all.
    pub fn put_back(&mut self, locality: Locality, torrent: Option<&mut Tap>, bytes: u32) {
        self.taps(locality, torrent).into_iter().flatten().for_each(|tap| tap.put_back(bytes));
    }

    /// This core asks for no more for now.
    pub fn give_back(&mut self) {
        let lan = match &mut self.lan {
            Lan::Shared => None,
            Lan::Apart(tap) => tap.as_mut(),
        };
        self.node.iter_mut().chain(lan).for_each(Tap::give_back);
    }

    /// When somebody who was refused may ask again.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.opens_at
    }

    /// Whether that time has come; told once.
    pub fn opens(&mut self, now: Instant) -> bool {
        self.opens_at.take_if(|at| *at <= now).is_some()
    }

    fn taps<'a>(&'a mut self, locality: Locality, torrent: Option<&'a mut Tap>) -> [Option<&'a mut Tap>; 2] {
        match (&mut self.lan, locality) {
            (Lan::Apart(tap), Locality::Local) => [tap.as_mut(), None],
            _ => [torrent, self.node.as_mut()],
        }
    }
}
