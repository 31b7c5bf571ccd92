//! Which connections begin with an encrypted handshake (MSE, `proto::mse`), and what of them an engine
//! decides. The handshake itself is had elsewhere: what comes here is plain, or was made so on the way.

use super::versions::Name;
use super::*;

/// What the operator wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// It is neither taken nor offered.
    Off,
    /// Taken from who offers it, and offered to who hangs up on a plain handshake: a plain stream may leave
    /// memory without a copy.
    #[default]
    Accept,
    /// Offered first; plain to who does not know it.
    Prefer,
    /// Nothing else, and RC4 to the end.
    Require,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// With BitTorrent's handshake.
    Plain,
    /// With an encrypted one.
    Encrypted,
}

impl Encryption {
    /// How an address is dialled for the first time.
    pub const fn first(self) -> Manner {
        match self {
            Self::Off | Self::Accept => Manner::Plain,
            Self::Prefer | Self::Require => Manner::Encrypted,
        }
    }

    /// How one is dialled that hung up when it was dialled like `this`.
    pub const fn after(self, this: Manner) -> Manner {
        match (self, this) {
            (Self::Off | Self::Require, _) => self.first(),
            (_, Manner::Plain) => Manner::Encrypted,
            (_, Manner::Encrypted) => Manner::Plain,
        }
    }

    /// Whether who connects to us may begin like this.
    pub const fn takes(self, manner: Manner) -> bool {
        match manner {
            Manner::Plain => !matches!(self, Self::Require),
            Manner::Encrypted => !matches!(self, Self::Off),
        }
    }
}

impl Engine {
    /// The same with another policy than the usual one.
    #[must_use]
    pub const fn with_encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = encryption;
        self
    }

    /// The first bytes of a connection are no BitTorrent handshake. True if they may be an encrypted one:
    /// `Action::Decrypt` was given, and nothing more is to be read.
    pub fn handle_cipher(&mut self, conn: ConnId) -> bool {
        let takes = self.encryption.takes(Manner::Encrypted) && !self.stopping;
        let stranger = |peer: &&Peer| {
            peer.origin == Origin::Incoming
                && peer.manner == Manner::Plain
                && peer.stage == Stage::Handshaking
        };
        let passes = takes && self.peers.get(conn).filter(stranger).is_some();
        if passes {
            self.actions.push_back(Action::Decrypt(conn));
        }
        passes
    }

    /// A connection comes back whose encrypted handshake is over: they opened it.
    pub fn handle_decrypted(&mut self, conn: ConnId, address: SocketAddr, now: Instant) {
        self.handle_accepted(conn, address, now);
        self.note_encrypted(conn);
    }

    /// The same, and we opened it, for a torrent by one of its names.
    pub fn handle_encrypted_dial(
        &mut self,
        conn: ConnId,
        address: SocketAddr,
        dialled: (TorrentId, Name),
        now: Instant,
    ) {
        self.handle_dialing(conn, address, dialled, now);
        self.note_encrypted(conn);
        self.handle_dialed(conn, true, now);
    }

    fn note_encrypted(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.manner = Manner::Encrypted;
        }
    }

    /// Whether a BitTorrent handshake of `conn` may be heard at all.
    pub(super) fn may_shake(&self, peer: &Peer) -> bool {
        peer.origin != Origin::Incoming || self.encryption.takes(peer.manner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_up_is_dialled_the_other_way_unless_there_is_only_one() {
        use Encryption::{Accept, Off, Prefer, Require};
        for (policy, ways) in [
            (Off, [Manner::Plain; 3]),
            (Accept, [Manner::Plain, Manner::Encrypted, Manner::Plain]),
            (Prefer, [Manner::Encrypted, Manner::Plain, Manner::Encrypted]),
            (Require, [Manner::Encrypted; 3]),
        ] {
            let second = policy.after(policy.first());
            assert_eq!([policy.first(), second, policy.after(second)], ways, "{policy:?}");
        }
        assert!(!Require.takes(Manner::Plain) && Require.takes(Manner::Encrypted));
        assert!(Off.takes(Manner::Plain) && !Off.takes(Manner::Encrypted));
    }
}
