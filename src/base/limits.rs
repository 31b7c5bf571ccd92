//! Every bound, by name. A peer, a torrent or a tracker that reaches one meets back-pressure or a
//! clear refusal, never a crash. Most of what one input can reach (a .torrent, a link, a message, a reply)
//! is tested at the limit and beyond it. Times, and bounds of the whole process or of load tests, are not
//! all: some have no test of their own.

use super::time::Span;

mod answers;
mod bench;
mod cache;
mod discovery;
mod injection;
mod layers;
mod leaves;
mod metadata;
mod mse;
mod web_seed;

pub use answers::*;
pub use bench::*;
pub use cache::*;
pub use discovery::*;
pub use injection::*;
pub use layers::*;
pub use leaves::*;
pub use metadata::*;
pub use mse::*;
pub use web_seed::*;

// ---- Metainfo (threats T1 to T26) ----

/// Largest .torrent file that is read: room for `PIECES_MAX` hashes (40 MiB) and `FILES_MAX` files.
pub const METAINFO_BYTES_MAX: usize = 64 << 20;
/// Deepest nesting of lists and dictionaries in a .torrent file: room for a tree of the longest paths (BEP
/// 52).
pub const METAINFO_DEPTH_MAX: usize = PATH_ELEMENTS_MAX + 4;
/// Most bencode tokens in a .torrent file.
pub const METAINFO_TOKENS_MAX: usize = 2_000_000;
/// Deepest nesting in a message from a peer or tracker.
pub const MESSAGE_DEPTH_MAX: usize = 8;
/// Most bencode tokens in a message from a peer or tracker.
pub const MESSAGE_TOKENS_MAX: usize = 20_000;
/// Most pieces in a torrent.
pub const PIECES_MAX: u32 = 1 << 21;
/// Longest piece.
pub const PIECE_BYTES_MAX: u32 = 64 << 20;
/// Largest torrent: 1 PiB.
pub const TOTAL_BYTES_MAX: u64 = 1 << 50;
/// Most files in a torrent.
pub const FILES_MAX: usize = 200_000;
/// Most directories above a file, the file itself included.
pub const PATH_ELEMENTS_MAX: usize = 32;
/// Longest file or directory name, in bytes (Linux NAME_MAX).
pub const PATH_ELEMENT_BYTES_MAX: usize = 255;
/// Longest path below the download directory, in bytes.
pub const PATH_BYTES_MAX: usize = 3072;
/// Most tracker URLs of a torrent that are used.
pub const TRACKERS_MAX: usize = 64;
/// Longest URL of a tracker or web seed.
pub const URL_BYTES_MAX: usize = 2048;
/// Longest magnet link.
pub const MAGNET_BYTES_MAX: usize = 8 << 10;

// ---- Metadata that is given to others (BEP 9; threat P30); of what is looked for see metadata.rs ----

/// Requests for pieces of the metadata that wait to be answered, of one peer; more are rejected.
pub const METADATA_REQUESTS_QUEUED_MAX: usize = 512;
/// Copies of the metadata that one peer is sent in [`METADATA_COPIES_SPAN`]; then its requests are rejected.
pub const METADATA_COPIES_MAX: u64 = 2;
/// See [`METADATA_COPIES_MAX`].
pub const METADATA_COPIES_SPAN: Span = Span::from_secs(600);
/// Rejects of such requests that wait for the next send; who asks on without reading them is in error.
pub const METADATA_REJECTS_WAITING_MAX: u32 = 64;

// ---- Peer wire (threats P1 to P45) ----

/// Longest message but `piece` and `bitfield`.
pub const MESSAGE_BYTES_MAX: u32 = 64 << 10;
/// Longest block that is served or accepted: what every client asks for is 16 KiB, BEP 3 allows more.
pub const REQUEST_BYTES_MAX: u32 = 128 << 10;
/// Requests of one peer that wait to be served; announced as `reqq` (BEP 10).
pub const REQUESTS_QUEUED_MAX: usize = 512;
/// Requests to one peer that wait for an answer.
pub const REQUESTS_OUT_MAX: usize = 512;
/// Fewest requests kept outstanding at a peer that answers.
pub const REQUESTS_OUT_MIN: usize = 4;
/// Requests that a core keeps outstanding at all its peers together at least.
pub const APPETITE_BLOCKS_MIN: usize = 16;
/// As many as came in so many seconds: a link of 30 KiB/s is asked for ten blocks at a time, whoever has
/// them, and a fast one for as much as all peers together may have.
pub const APPETITE_SECS: u64 = 5;
/// Blocks have to come in so many seconds before what came is a measure: until then nothing bounds them. The
/// first second may be a short one.
pub const APPETITE_FREE_SECS: u32 = 2;
/// While no more seeds than so many give, each is asked for `REQUESTS_OUT_MIN` blocks in any case.
pub const APPETITE_SEEDS_FEW: u32 = 4;
/// What is outstanding on a core is the end of a torrent if it is so many chunks and one of each
/// `ENDGAME_PART` of all, at most. In a small torrent with many peers everything is asked for from the start.
pub const ENDGAME_CHUNKS: usize = 4;
/// See above.
pub const ENDGAME_PART: usize = 32;
/// A chunk that was claimed so long ago is raced for all the same: its giver is slow.
pub const ENDGAME_AGE: Span = Span::from_secs(5);
/// The same of a torrent whose chunks take long: so many times as long as they do.
pub const ENDGAME_SPANS: u64 = 2;
/// Peers that are asked for the same block at most.
pub const ENDGAME_COPIES: u8 = 2;
/// Peers that could be asked for more and are looked at when a block has made room: all are by the tick.
pub const HUNGRY_LOOKS_MAX: usize = 32;
/// Invalid requests after which a peer is dropped.
pub const STRIKES_MAX: u32 = 100;
/// Bytes nobody asked for after which a peer is dropped.
pub const UNSOLICITED_BYTES_MAX: u64 = 1 << 20;
/// Total time for a handshake, from accept or dial.
pub const HANDSHAKE_TIMEOUT: Span = Span::from_secs(10);
/// Silence after which a peer is dropped (BEP 3 suggests two minutes).
pub const IDLE_TIMEOUT: Span = Span::from_secs(150);
/// Silence after which we send a keep-alive.
pub const KEEPALIVE_INTERVAL: Span = Span::from_secs(100);
/// Without a block for so long, an unchoked peer with requests counts as snubbing us.
pub const SNUB_TIMEOUT: Span = Span::from_secs(20);
/// The same of a peer that has long pauses: four times as long as those, but no longer than this, which is
/// how long one is waited for that alone gives what it was asked for.
pub const SNUB_TIMEOUT_MAX: Span = Span::from_secs(60);
/// From its last block on, a peer that snubs us is asked for nothing for so long, unless one comes after all.
pub const SNUBBED_TIME: Span = Span(2 * SNUB_TIMEOUT.0);
/// How long a late peer is waited for that alone gives some of what it was asked for: it may be a seed that
/// holds us back.
pub const HELD_BACK_TIME: Span = GIFT_FRESH_TIME;
/// A peer that was relieved of its requests for being late is left alone for so long, the next time for twice
/// that, and at last for `SNUBBED_TIME`; unless a block comes after all.
pub const RELIEVED_TIME: Span = Span::from_secs(2);
/// How often a peer that was relieved of its requests is asked again as soon as a block comes after all
/// (threat P37). Then it is left alone until its time is over, as one that stays silent.
pub const COMEBACKS_MAX: u32 = 8;
/// A send that makes no progress for so long ends the connection, if nothing comes from it either.
pub const SEND_STALL_TIMEOUT: Span = Span::from_secs(60);
/// The same, whatever comes from it (threats P13, P35): the kernel tells of progress when a third of
/// its buffer is free, which a slow link fills with little.
pub const SEND_STUCK_TIMEOUT: Span = Span::from_secs(180);
/// Payload that a peer must drain in `DRAIN_WINDOW` of time with slots pinned for it, while others wait
/// for slots (threat P35): a block a minute. `engine/allowance.rs` says why so little.
pub const DRAIN_BYTES_MIN: u64 = 16 << 10;
/// See above.
pub const DRAIN_WINDOW: Span = Span::from_secs(60);
/// Bytes that may be read from disk for a peer before it was sent anything (threat P15).
pub const COLD_READ_GRANT_BYTES: u64 = 16 << 20;
/// Bytes that may be read for a peer for each byte that it was sent.
pub const COLD_READ_PER_SENT: u64 = 4;
/// Bytes that may be read for a peer each second besides: 20 chunks.
pub const COLD_READ_BYTES_PER_SEC: u64 = 5 << 20;
/// Slots that the sends of all connections may pin together, as a part of all: one in so many (threat P35).
pub const SEND_SLOTS_PART: usize = 2;
/// Slots that one send may pin however many connections there are: a block may lie in two.
pub const SEND_SLOTS_MIN: usize = 2;
/// What a request or a cancel costs its peer, in bytes of payload that it has to be sent for it (threats P14,
/// P16): who asks for less, or takes it all back, is read from at the rate below.
pub const ASK_COST_BYTES: u64 = 4 << 10;
/// Credit of a fresh peer, and the most that it saves up: four full queues.
pub const ASK_GRANT_BYTES: u64 = 4 * REQUESTS_QUEUED_MAX as u64 * ASK_COST_BYTES;
/// Credit that each second brings: 256 messages.
pub const ASK_BYTES_PER_SEC: u64 = 1 << 20;
/// Pieces of a torrent on one core that are fetched again from one peer alone (threat P21).
pub const PAROLE_PIECES_MAX: usize = 8;
/// Peers that are tried in turn for such a piece before anybody may give blocks of it.
pub const PAROLE_GIVERS_MAX: usize = 3;
/// Messages that change nothing (keep-alives, unknown ids, repeated interest, chokes) that one
/// connection may send in a second.
pub const IDLE_MESSAGES_MAX: u32 = 200;
/// Valid requests in a row that we cannot serve, after which a peer is dropped: it asks while choked, or
/// for pieces we never had. Twice what may be under way when we lose a piece.
pub const VAIN_REQUESTS_MAX: u32 = 2 * REQUESTS_QUEUED_MAX as u32;
/// Bytes of control messages that wait for a peer and beyond which it is asked for nothing more.
pub const REQUEST_FRAMES_WAITING_MAX: usize = 32 << 10;
/// The same, beyond which it is told of no more new pieces before some have left: one that reads nothing
/// lives for minutes.
pub const HAVE_FRAMES_WAITING_MAX: usize = 32 << 10;
/// Rejects that wait because the peer does not read.
pub const REJECTS_WAITING_MAX: u32 = 4 * REQUESTS_QUEUED_MAX as u32;

// ---- Peer exchange and hole punching (BEP 11, 55; threats P31, P43) ----

/// Added peers of one family that are used of one message; more are ignored.
pub const PEX_USED_MAX: usize = 100;
/// Peers that one message of ours names as added, and as many as dropped (BEP 11).
pub const PEX_TOLD_MAX: usize = 50;
/// Between two messages to one peer: what BEP 11 has, and a second for those who measure it.
pub const PEX_INTERVAL: Span = Span::from_secs(61);
/// One message of a peer is used in so long, on average: less than a minute, since networks are late.
pub const PEX_TAKEN_INTERVAL: Span = Span::from_secs(45);
/// Messages of a peer that may come at once: the first, and one that is early.
pub const PEX_TAKEN_AT_ONCE: u32 = 2;
/// Peers that left and that are remembered for those who were not told yet.
pub const PEX_DROPPED_MAX: usize = 500;
/// Messages made in one look at a torrent; the rest are made in the next.
pub const PEX_FRAMES_PER_LOOK: usize = 128;
/// Addresses known by hearsay alone, of all that are remembered per torrent: trackers keep their place.
pub const PEX_CANDIDATES_MAX: usize = CANDIDATES_MAX / 2;
/// The same from one group of addresses: nobody fills the place of others.
pub const PEX_CANDIDATES_PER_GROUP_MAX: usize = 200;
/// Ports of one stranger's address that are known by hearsay: a host is not to be flooded through us.
pub const PEX_PORTS_PER_ADDRESS_MAX: usize = 2;
/// Rendezvous that a peer may ask for, or be asked to, in `PUNCH_INTERVAL` on average.
pub const PUNCHES_AT_ONCE: u32 = 8;
/// See above.
pub const PUNCH_INTERVAL: Span = Span::from_secs(10);
/// Peers of whom it is remembered who named them, so as to ask for a rendezvous if they cannot be dialled.
pub const PUNCH_TARGETS_MAX: usize = PEX_CANDIDATES_MAX;
/// How often one of them is asked for.
pub const PUNCH_ASKS_PER_TARGET_MAX: u32 = 2;
/// Who is said to wait for our dial is dialled before its time, once in so long.
pub const PUNCH_HASTE_INTERVAL: Span = Span::from_secs(30);

// ---- The tracker that we are (threats N14 to N16) ----

/// Torrents of a tracker of ours; of more, the one goes that nobody announced for longest.
pub const SERVED_TORRENTS_MAX: usize = 1 << 16;
/// Peers of one torrent; of more, the one goes that announced longest ago.
pub const SERVED_SWARM_MAX: usize = 10_000;
/// Peers of all torrents: some 300 bytes each.
pub const SERVED_PEERS_MAX: usize = 1 << 20;
/// Entries of one group of strangers' addresses, over all torrents; of more, its oldest goes.
pub const SERVED_GROUP_ENTRIES_MAX: usize = 2_048;
/// Peers that an answer names if nothing is said of it, and at most.
pub const SERVED_NUMWANT: u32 = 50;
/// See above. An answer by UDP has room for 80 of IPv6 within 1,500 bytes.
pub const SERVED_NUMWANT_MAX: u32 = 80;
/// Peers that are looked at for each that is wanted: some may not be named to everybody.
pub const SERVED_LOOKS_PER_PEER: usize = 4;
/// Torrents of one question of BEP 48: what fits a datagram (BEP 15).
pub const SERVED_SCRAPES_MAX: usize = 74;
/// Between two announces, if nothing else is said; and what may be said.
pub const SERVED_INTERVAL: Span = Span::from_secs(300);
/// See above.
pub const SERVED_INTERVAL_MIN: Span = Span::from_secs(5);
/// See above.
pub const SERVED_INTERVAL_MAX: Span = Span::from_secs(24 * 3600);
/// Peers that announced to a relay's own tracker and that it has not heard of yet; more are not dialled.
pub const SERVED_MET_MAX: usize = 1_024;
/// Connections of clients by HTTP at a time; more wait until one has gone.
pub const SERVED_CONNECTIONS_MAX: usize = 1_024;
/// Of these, of one stranger's address (IPv6: of its /64) at a time; more are hung up on.
pub const SERVED_CONNECTIONS_PER_ADDRESS_MAX: usize = 16;
/// The same of one group of strangers' addresses.
pub const SERVED_CONNECTIONS_PER_GROUP_MAX: usize = SERVED_CONNECTIONS_MAX / 16;
/// Time of one such connection, from its begin to the end of the answer.
pub const SERVED_CONNECTION_TIME: Span = Span::from_secs(5);
/// Longest request line and headers.
pub const SERVED_REQUEST_BYTES_MAX: usize = 16 << 10;
/// A connection id of BEP 15 is good for so long at least, and for twice that at most.
pub const SERVED_CONNECTION_ID_TIME: Span = Span::from_secs(60);
/// Longest list of torrents that may be announced.
pub const SERVED_ALLOW_BYTES_MAX: u64 = 16 << 20;

// ---- Process ----

/// Workers at most; a core is one bit of a wait mask.
pub const CORES_MAX: usize = 64;
/// Connections per worker.
pub const CONNECTIONS_PER_CORE_MAX: u32 = 16_384;
/// Connections per worker of one stranger's public address (IPv6: of its /64); private and loopback
/// networks are exempt.
pub const CONNECTIONS_PER_PUBLIC_ADDRESS_MAX: u32 = 4;
/// Connections per worker of one group of strangers' addresses: what an IPv4 /24 may bring. More than so many
/// /64s are one host's (threat P5).
pub const CONNECTIONS_PER_GROUP_MAX: u32 = CONNECTIONS_PER_CORE_MAX / 16;
/// Connections per worker of all strangers; the other places are for whom we dial, and for local networks.
pub const STRANGERS_MAX: u32 = CONNECTIONS_PER_CORE_MAX / 16 * 15;
/// Connections without a handshake yet, per worker, of strangers' public addresses. When one more comes, the
/// oldest of the group that has most is closed (threat P3).
pub const HALF_OPEN_MAX: u32 = 1024;
/// Torrents of one process.
pub const TORRENTS_MAX: usize = 65_536;
/// Torrents of a relay that are all kept open. Of more, the complete ones are open once a peer asked.
pub const TORRENTS_KEPT_AWAKE: usize = 64;
/// Torrents that start at once: each has a directory, a journal, a lock and its files open meanwhile.
pub const TORRENTS_STARTING_MAX: usize = 32;
/// Connections per worker that wait for a torrent to be opened; more are closed.
pub const CONNECTIONS_PARKED_MAX: usize = 256;
/// Threads that digest what lies on disk: far more than any disk gives work to.
pub const HASH_THREADS_MAX: usize = 16;
/// Memory of `create`, `verify` or a check for what was read and is not digested yet. The reader waits for a
/// buffer when it is full.
pub const HASH_BUFFERS_BYTES_MAX: usize = 160 << 20;
/// Addresses remembered per torrent.
pub const CANDIDATES_MAX: usize = 2_000;
/// Ports of one public address that anybody but the operator has us dial.
pub const CANDIDATE_PORTS_MAX: usize = 8;
/// Banned addresses remembered.
pub const BANS_MAX: usize = 4_096;

/// Places in which the account of a party may be. More parties than that hash to one place and are all
/// connected when the table is full, or if somebody chose them, and the hash is secret.
pub const LEDGER_PROBES_MAX: usize = 16;
/// Accounts of parties, connected or remembered: identities and groups. A power of two; 64
/// bytes each.
pub const LEDGER_ACCOUNTS: usize = 1 << 16;

/// Accounts of an engine that shares them with no other core.
pub const LEDGER_ACCOUNTS_OF_ONE: usize = 1 << 10;

// ---- Who is unchoked (engine/choker.rs) ----

/// Peers of other networks that a core unchokes at least, however slow its uplink is.
pub const UNCHOKED_MIN: usize = 8;
/// What an unchoked peer is to be served at, in bytes a second. When the uplink is full, only so many are
/// unchoked that each gets that.
pub const UNCHOKED_RATE_MIN: u64 = 256 << 10;
/// Between two looks at whom to choke; who was unchoked stays so for at least as long.
pub const CHOKE_ROUND: Span = Span::from_secs(10);
/// Who was unchoked because it was its turn stays so for at least so long.
pub const UNCHOKED_TURN: Span = Span::from_secs(30);
/// One in so many unchoked peers is there because it waited longest, whatever it gave.
pub const UNCHOKED_TURNS_PART: usize = 5;
/// And so many at least.
pub const UNCHOKED_TURNS_MIN: usize = 2;
/// One round chokes one in so many of the unchoked peers at most.
pub const CHOKE_PART: usize = 3;
/// But so many it may.
pub const CHOKES_MIN: usize = 4;
/// Peers that one look unchokes at most.
pub const UNCHOKES_MAX: usize = 16;
/// How long it is remembered how many unchoked peers it took to fill the uplink.
pub const UNCHOKED_NEEDED_TIME: Span = Span::from_secs(60);
/// An unchoked peer that waits so long for a block gets one out of turn: no partner may take us for one
/// that snubs it. Looked at once a second, so it is served within 20 s, the window of its rates.
pub const SERVED_WITHIN: Span = Span::from_secs(15);
/// One part in so many of what is sent may go out of turn for that.
pub const SERVED_OUT_OF_TURN_PART: u64 = 16;
/// What is saved up for it.
pub const SERVED_OUT_OF_TURN_BYTES_MAX: u64 = 1 << 20;
/// Pieces that a newcomer may ask for while it is choked (BEP 6).
pub const ALLOWED_FAST_PIECES: usize = 10;
/// How often it may ask for each block of them (threat P26).
pub const ALLOWED_FAST_COPIES: u32 = 3;
/// Such pieces that are remembered of one peer (threat P27); further ones are left out.
pub const ALLOWED_FAST_KEPT_MAX: usize = 32;
/// Blocks of them that are asked for at a time.
pub const ALLOWED_FAST_ASKED_MAX: usize = 16;

// ---- What the ledger remembers ----

/// What a party known by its address gave and got counts half after so long. An address is somebody else's
/// tomorrow.
pub const HALF_LIFE_ADDRESS: Span = Span::from_secs(6 * 3600);
/// The same for a party that proves itself with a key.
pub const HALF_LIFE_KEY: Span = Span::from_secs(7 * 24 * 3600);
/// Most that a party known by its address is owed, or owes, in the long run.
pub const BALANCE_ADDRESS_BYTES_MAX: u64 = 64 << 20;
/// The same for a party that proves itself with a key.
pub const BALANCE_KEY_BYTES_MAX: u64 = 1 << 30;
/// What a group that was granted something may be granted anew after `GRANT_REFILL_TIME`: a block.
pub const GRANT_REFILL_BYTES: u64 = 16 << 10;
/// See above: 64 such steps, 1 MiB, in an hour.
pub const GRANT_REFILL_TIME: Span = Span::from_ms(3_600_000 / 64);
/// Time that accounts age by at one look, whatever the clock says: one that jumps ahead costs a signed key
/// no more than half of what it has.
pub const LEDGER_AGE_MAX: Span = HALF_LIFE_KEY;
/// Between two looks at what has changed in the ledger: a crash costs that much.
pub const LEDGER_INTERVAL: Span = Span::from_secs(10);
/// Accounts on disk, as many as there are in memory; of more, the largest balances stay.
pub const LEDGER_STORED_MAX: usize = LEDGER_ACCOUNTS;
/// An account all of whose figures are smaller is not kept on disk: a block.
pub const LEDGER_STORED_BYTES_MIN: u64 = 16 << 10;
/// Bytes by which the ledger's log may exceed twice what it has to say before it is rewritten.
pub const LEDGER_SLACK_BYTES: u64 = 64 << 10;
/// Longest ledger that is read: beyond what `LEDGER_STORED_MAX` accounts and the slack make of it.
pub const LEDGER_BYTES_MAX: u64 = 16 << 20;

/// Bits that the addresses of one public IPv4 group have in common.
pub const GROUP_PREFIX_V4: u8 = 24;
/// Fewest and most that an operator may choose: with less, half of a continent is one party.
pub const GROUP_PREFIX_V4_MIN: u8 = 8;
/// See above.
pub const GROUP_PREFIX_V4_MAX: u8 = 32;
/// Bits that the addresses of one public IPv6 group have in common.
pub const GROUP_PREFIX_V6: u8 = 48;
/// Fewest and most that an operator may choose. A /64 is one host's.
pub const GROUP_PREFIX_V6_MIN: u8 = 16;
/// See above.
pub const GROUP_PREFIX_V6_MAX: u8 = 64;
/// Networks of friends: each connection's address is compared with all.
pub const FRIENDS_MAX: usize = 64;

// ---- Who is served (engine/scheduler) ----

/// Verified payload from which on a party counts as one that gives: a block.
pub const CONTRIBUTION_BYTES_MIN: u64 = 16 << 10;
/// Signatures of other nodes' identities that a core makes and checks in a second, 50 to 100 us each;
/// the connections of the others are served under their address meanwhile.
pub const IDENTITY_STEPS_PER_SEC: u32 = 128;
/// Who got so many times more than it gave has earned nothing more.
pub const EXCESS_RATIO_MAX: u64 = 8;
/// What a group of addresses is granted before it has given anything.
pub const GRANT_GROUP_BYTES: u64 = 1 << 20;
/// Of all that is sent, one part in so many may be granted.
pub const GRANT_PART: u64 = 10;
/// What may be granted before anything was sent: a block. Who is new itself has nothing to give away: with
/// 1 MiB, a third of all that a node of a small torrent ever sends, strangers came first.
pub const GRANT_POOL_BYTES_AT_FIRST: i64 = 16 << 10;
/// What a core saves up for grants, and how far it may be behind.
pub const GRANT_POOL_BYTES_MAX: i64 = 1 << 20;
/// Parties that one pick looks at whose place has changed since they came to wait.
pub const SCHEDULER_LOOKS_MAX: usize = 16;
/// Least share of a party in what may be in flight, if a quarter of the window is not less: shorter sends
/// cost more.
pub const TURN_BYTES: u64 = 512 << 10;
/// A node goes on with the piece that it began to give a connection while its link takes so long for a whole
/// one: shorter ones are not worth the order of service, and with longer ones others would wait too long.
pub const BEGUN_PIECE_SPANS: [Span; 2] = [Span::from_ms(500), Span::from_secs(10)];
/// The longest piece of which it does so: on links of up to 512 KiB a second.
pub const BEGUN_PIECE_BYTES_MAX: u32 = 256 << 10;
/// What a connection gets before the next one of its party has its turn.
pub const MEMBER_TURN_BYTES: u64 = 256 << 10;
/// As much a turn counts at least, in service and in grants: a send of one byte costs a core about as much
/// time as so many bytes do (threat P14).
pub const TURN_BYTES_LEAST: u64 = 8 << 10;
/// One step of service in the class *rest*; groups that differ by less take turns.
pub const SERVICE_STEP_BYTES: u64 = 64 << 10;
/// Payload of one connection that the kernel takes although it cannot send it yet: what it has taken it
/// sends, whoever should come first by then: of 500 connections with a block each that is two thirds of a
/// second of a link of 100 Mbit/s. Left alone it takes megabytes.
pub const SEND_UNSENT_BYTES: u32 = 16 << 10;
/// The same of a connection that is fast enough to send that in no time: with 128 KiB one alone served a
/// sixth less on loopback, with 512 KiB no less.
pub const SEND_UNSENT_BYTES_MAX: u32 = 512 << 10;
/// So many times what a core keeps on its way into the kernel when peers are slow.
pub const SEND_WINDOW_STRETCH_MAX: u64 = 64;
/// Payload that a core keeps on its way into the kernel before it knows how much it sends.
pub const SEND_WINDOW_BYTES_AT_FIRST: u64 = 64 << 10;
/// Least payload that a core keeps on its way into the kernel while others wait: a block is on its way while
/// another one is chosen.
pub const SEND_WINDOW_BYTES_MIN: u64 = 32 << 10;

/// What a core takes of a rate limit at a time, at most: sixteen blocks.
pub const BUDGET_SLICE_BYTES_MAX: u32 = 256 << 10;
/// Highest rate limit, 128 GiB/s; a higher one limits no more than this. Beyond, a budget that nobody asked
/// anything of for two years would seem to be in debt.
pub const RATE_BYTES_MAX: u64 = 1 << 37;

/// Shortest send that leaves without a copy, in bytes: two blocks. Below, the notification costs more than
/// the copy.
pub const ZERO_COPY_BYTES_MIN: u32 = 32 << 10;
/// Bytes of one connection that the kernel may hold under zero copy; what goes beyond is copied, so that
/// a slow peer does not pin the cache.
pub const ZERO_COPY_HELD_BYTES_MAX: u32 = 4 << 20;
/// Slots of one connection that sends may hold, those under zero copy included; beyond, its next blocks
/// wait. Who reads in order stays far below: 4 MiB are 16 to 24 slots. Who asks for one block of each
/// chunk does not.
pub const SLOTS_HELD_MAX: usize = 64;
/// Buffers per worker for bytes from connections that have no block outstanding, 4 KiB each: twice what
/// one turn takes. A power of two, because the kernel's ring of them is.
pub const RECEIVE_BUFFERS: u16 = 512;

// ---- Trackers (threats N1 to N13) ----

/// Largest tracker reply, inflated.
pub const TRACKER_REPLY_BYTES_MAX: usize = 1 << 20;
/// Redirects followed.
pub const TRACKER_REDIRECTS_MAX: u32 = 3;
/// Peers used from one reply.
pub const TRACKER_PEERS_MAX: usize = 500;
/// Total time for one announce.
pub const TRACKER_TIMEOUT: Span = Span::from_secs(30);
/// Shortest and longest re-announce interval that strangers' trackers may set.
pub const TRACKER_INTERVAL_MIN: Span = Span::from_secs(60);
/// See above.
pub const TRACKER_INTERVAL_MAX: Span = Span::from_secs(6 * 3600);
/// Shortest interval that an operator-given tracker may set.
pub const TRACKER_INTERVAL_OPERATOR_MIN: Span = Span::from_secs(5);
/// Longest failure text of a tracker that is shown.
pub const TRACKER_TEXT_BYTES_MAX: usize = 512;

// ---- Messages and text from peers ----

/// Longest payload of a message with an unknown id (threat P8); such a message is skipped.
pub const UNKNOWN_MESSAGE_BYTES_MAX: u32 = 1 << 10;
/// Longest client name of a peer that is kept, once escaped.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

// ---- More of metainfo and magnet links ----

/// Most web seeds of a torrent that are used.
pub const WEB_SEEDS_MAX: usize = 64;
/// Most peer addresses of a magnet link that are used.
pub const MAGNET_PEERS_MAX: usize = 64;
/// Most ranges of files that a magnet link or one `--files` names: more are refused, as nobody writes them.
pub const FILE_RANGES_MAX: usize = 1024;
/// Names that an error shows when a pattern matches no file.
pub const FILE_NAMES_SHOWN_MAX: usize = 5;
/// Files of one torrent whose progress is told, in a line of `--json` and in the table at the end.
pub const FILES_TOLD_MAX: usize = 1000;
/// Most files of a torrent that get another name because theirs is taken.
pub const PATH_CLASHES_MAX: usize = 500;

// ---- Announces (threats N11 to N13) ----

/// Wait after a tracker's first failure; doubles with each further one.
pub const TRACKER_BACKOFF_MIN: Span = Span::from_secs(5);
/// Longest wait after failures of a tracker.
pub const TRACKER_BACKOFF_MAX: Span = Span::from_secs(30 * 60);
/// Total time for the announce that says good-bye; the process waits for it when it ends.
pub const TRACKER_STOP_TIMEOUT: Span = Span::from_secs(5);
/// First wait for an answer of a UDP tracker; doubles with each copy of the request.
pub const TRACKER_UDP_FIRST_WAIT: Span = Span::from_secs(3);
/// Header of a tracker's HTTP reply.
pub const TRACKER_HEADER_BYTES_MAX: usize = 16 << 10;
/// Announces under way at once, over all torrents.
pub const TRACKER_ANNOUNCES_MAX: usize = 50;
/// Hosts of trackers whose failures are remembered.
pub const TRACKER_HOSTS_MAX: usize = 1024;
/// A host that did not answer as a tracker does is left alone so long, by all torrents together,
/// when a stranger named it: no torrent list makes us hammer a web server.
pub const TRACKER_HOST_GAP: Span = Span::from_secs(30);
/// The same when the operator named it.
pub const TRACKER_HOST_GAP_OPERATOR: Span = Span::from_secs(5);
/// Time for one name look-up.
pub const DNS_TIMEOUT: Span = Span::from_secs(5);
/// Look-ups under way at once; one that stalls keeps its place until the system gives up.
pub const DNS_LOOKUPS_MAX: usize = 16;
/// Addresses used of one name.
pub const DNS_ADDRESSES_MAX: usize = 8;
/// Names whose addresses are remembered.
pub const DNS_CACHE_MAX: usize = 256;
/// How long they are remembered.
pub const DNS_CACHE_AGE: Span = Span::from_secs(60);

// ---- Storage (threats S1 to S22) ----

/// Longest body of one journal record: the fingerprints of the longest piece, and its index.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 4 + 8 * (PIECE_BYTES_MAX / super::units::CHUNK_BYTES) as usize;
/// Longest journal that is read.
pub const JOURNAL_BYTES_MAX: u64 = 4 << 30;
/// Written bytes that may wait for their fdatasync before one is asked for.
pub const UNSYNCED_BYTES_MAX: u64 = 64 << 20;
/// Time that written bytes may wait for their fdatasync before one is asked for.
pub const UNSYNCED_TIME_MAX: Span = Span::from_secs(2);
/// Files of one torrent that are synced at the same time.
pub const SYNCS_IN_FLIGHT_MAX: usize = 16;
/// Files of one torrent that the control thread keeps open to create and sync them, with two descriptors
/// each; the longest unused is closed first. The workers hold a pair for every file besides: the same pair
/// until it is closed here and opened anew.
pub const OPEN_FILES_MAX: usize = 256;
/// Torrents whose existing files are hashed at the same time: one check keeps all cores and a disk busy,
/// and the next one begins while it ends.
pub const CHECKS_MAX: usize = 2;
/// Torrents whose files are looked at, created or opened at the same time.
pub const STARTS_MAX: usize = 16;
/// Bytes by which a journal may exceed twice what it has to say before it is rewritten.
pub const JOURNAL_SLACK_BYTES: u64 = 256 << 10;

// ---- Metrics ----

/// Torrents that have figures of their own in the metrics; the rest are one sum.
pub const METRICS_TORRENTS_MAX: usize = 100;
/// Readers of the metrics at a time; more wait until one has gone.
pub const METRICS_CONNECTIONS_MAX: usize = 16;
/// Who asks again before so long gets the same page: making one walks all accounts.
pub const METRICS_PAGE_AGE: Span = Span::from_secs(1);
/// Time that one connection of a reader may take, idle or not.
pub const METRICS_CONNECTION_TIME: Span = Span::from_secs(60);

// ---- The control socket ----

/// Connections to the control socket that are served at a time; more wait until one has gone.
pub const CONTROL_CONNECTIONS_MAX: usize = 8;
/// Time of one such connection, from its begin to the end of the answer.
pub const CONTROL_CONNECTION_TIME: Span = Span::from_secs(10);
/// Longest question, its end of line left out; a longer one is refused.
pub const CONTROL_QUESTION_BYTES_MAX: usize = 1 << 10;
/// Longest answer that the asking side reads.
pub const CONTROL_ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Rows of one answer.
pub const CONTROL_ROWS_MAX: usize = 10_000;
/// Sockets of one process id in one state directory, which nodes in containers may have in common.
pub const CONTROL_SOCKETS_PER_PID_MAX: u32 = 64;
/// Running nodes of one state directory that are asked.
pub const CONTROL_NODES_MAX: usize = 256;
/// Places of a worker's table of connections that one turn shows: ten thousand connections take eighty turns.
pub const VIEW_PLACES_PER_TURN: usize = 128;

// ---- Written, not yet on disk ----

/// Chunks being written from which on a worker claims no more to be fetched; what it has claimed may still
/// add to them. 8 MiB keep a disk of 2.8 GB/s busy through 3 ms of latency, and more would only touch more
/// memory.
pub const CHUNKS_WRITING_MAX: u32 = 32;
