//! How many payload bytes one order of service keeps on their way into the kernel, and of which class.
//!
//! With every connection's send in flight at once the kernel decides who gets how much of a full link,
//! and an order of ours decides nothing. So only as much is in flight as it lately sent in
//! [`WINDOW`], and nothing of a worse class while better ones fill the link; the others wait here, in order.
//! The kernel keeps some more of each connection (`SEND_UNSENT_BYTES`), so that the link never waits for us.
//!
//! A peer that reads slowly must not keep the others waiting: what has been in flight for long no longer
//! counts (`flight.rs`), and only what a prompt reader began to get a moment ago keeps worse classes out.
//! On a full link of our own sends take about [`WINDOW`]; when many take longer than our patience, it is
//! the peers that are slow, and the window opens further until nobody waits.

use super::class::{CLASSES, Class};
use super::flight::{EPOCH, EPOCH_AT_FIRST, EPOCH_MAX, Flight, PATIENCE};
use crate::base::limits::{SEND_WINDOW_BYTES_AT_FIRST, SEND_WINDOW_BYTES_MIN, SEND_WINDOW_STRETCH_MAX};
use crate::base::time::{Instant, Span};

/// The slowest link whose epochs are as long as it takes.
const _: () = assert!(SEND_WINDOW_BYTES_MIN * 1_000_000_000 / EPOCH_MAX.0 == 16 << 10);

/// What is in flight covers so much time.
const WINDOW: Span = Span::from_ms(25);

/// So many windows may be in flight to who gave, and of grants. One alone leaves a link idle whose readers
/// have full links of their own, since their sends take longer; and among those who gave the order matters
/// least.
const WINDOWS_OF_GIVERS: u64 = 2;

/// A stretch of one, in 1024ths.
const STRETCH_ONE: u64 = 1024;

/// In one epoch the stretch grows by one part in so many while sends are stuck.
const STRETCH_GROWS: u64 = 8;

/// It shrinks by one part in so many while they are not: in all epochs of one patience but one by less than
/// it grows in that one, since slow readers that were served together are stuck together. The longer it
/// stays open, the more a few slow readers cost the order of service.
const STRETCH_SHRINKS: u64 = 64;

const _: () = assert!((PATIENCE as u64 - 1) * STRETCH_GROWS < STRETCH_SHRINKS);

/// How a party took what it was sent last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// At once, or as fast as a link that it fills.
    #[default]
    Prompt,
    /// In more than a moment: it does not fill our link.
    Slow,
}

/// When a send began, and what it carries. Good for the window that gave it out.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// The epoch in which it began.
    pub(super) epoch: u64,
    /// As what it counts.
    pub(super) class: Class,
    /// Who gets it.
    pub(super) reader: Reader,
    /// Payload of the send.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Window {
    /// In flight, by class.
    flights: [Flight; CLASSES],
    /// The same, of prompt readers only.
    prompt: [Flight; CLASSES],
    epoch: u64,
    since: Instant,
    /// Ended in this epoch.
    ended_bytes: u64,
    /// Bytes a second, smoothed; none while nothing was sent.
    rate_bytes: Option<u64>,
    /// How far the window is open, in 1024ths.
    stretch: u64,
    gate: Gate,
}

/// Whether worse classes may be kept out. That is right on a full link only, and only trying tells whether
/// it is: at the begin of each round all classes are served, and for the rest of it the gate stays open
/// if less than half is sent with it of what is sent without.
#[derive(Clone, Copy, Debug)]
enum Gate {
    /// All classes are served.
    Trying,
    /// Worse classes may be kept out; so much a second was sent when they were not.
    Shut(u64),
    /// Keeping them out left more than half of the link idle.
    Open,
}

/// Epochs of a round, and at its begin of trying.
const ROUND: [u64; 2] = [40, 4];

impl Window {
    /// Nothing is in flight.
    pub fn new(now: Instant) -> Self {
        Self {
            flights: [Flight::default(); CLASSES],
            prompt: [Flight::default(); CLASSES],
            epoch: 0,
            since: now,
            ended_bytes: 0,
            rate_bytes: None,
            stretch: STRETCH_ONE,
            gate: Gate::Trying,
        }
    }

    /// Bytes that may be in flight.
    pub fn limit_bytes(&self) -> u64 {
        self.passes_bytes() * self.stretch / STRETCH_ONE
    }

    /// How long so much takes at the rate at which is sent, or that at which what is in flight at least takes
    /// [`WINDOW`].
    pub fn passing(&self, bytes: u64) -> Span {
        let passing_ns = u128::from(bytes) * u128::from(WINDOW.0) / u128::from(self.passes_bytes());
        Span(passing_ns.min(u128::from(Span::from_secs(1).0)) as u64)
    }

    /// How long the link takes for so much; no time while its rate is not known.
    pub fn sending(&self, bytes: u64) -> Span {
        let sending_ns = |rate: u64| u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        self.rate_bytes.map_or(Span::ZERO, |rate| Span(sending_ns(rate).min(u128::from(u64::MAX)) as u64))
    }

    /// What is sent in [`WINDOW`].
    fn passes_bytes(&self) -> u64 {
        let in_window = |rate| (u128::from(rate) * u128::from(WINDOW.0) / 1_000_000_000) as u64;
        let by_rate = self.rate_bytes.map_or(SEND_WINDOW_BYTES_AT_FIRST, in_window);
        by_rate.max(SEND_WINDOW_BYTES_MIN)
    }

    /// So much a second is sent.
    #[cfg(test)]
    pub const fn set_rate(&mut self, rate_bytes: u64) {
        self.rate_bytes = Some(rate_bytes);
    }

    /// Whether another send of a class may begin, if none of a better one does.
    pub fn is_open_to(&self, class: Class) -> bool {
        let windows = if class <= Class::Excess { WINDOWS_OF_GIVERS } else { 1 };
        self.flights.iter().map(Flight::counted_bytes).sum::<u64>() < windows * self.limit_bytes()
    }

    /// The worst class of which a send may begin, while the window is open to any.
    pub fn worst_class(&self) -> Class {
        let gate = self.worst_class_at_gate();
        if self.is_open_to(Class::Rest) { gate } else { gate.min(Class::Excess) }
    }

    /// While what prompt readers of the better classes began to get a moment ago fills most of half the
    /// window, which one party may have, they may fill the link. Grants are few and hold nobody up.
    fn worst_class_at_gate(&self) -> Class {
        if !matches!(self.gate, Gate::Shut(_)) {
            return Class::Again;
        }
        let (most_bytes, mut bytes) = (self.limit_bytes() / 8 * 3, 0);
        let fills = |class: &Class| {
            bytes += self.prompt[*class as usize].young_bytes();
            bytes >= most_bytes
        };
        [Class::Owed, Class::Excess, Class::Rest].into_iter().find(fills).unwrap_or(Class::Again)
    }

    /// When the window next looks at the time.
    pub fn due(&self) -> Instant {
        self.since + self.epoch_span()
    }

    /// How long an epoch is: what may be in flight at least passes in it. While nothing of what is in flight
    /// has ended nobody knows how long that is.
    fn epoch_span(&self) -> Span {
        let passes_ns = |rate: u64| SEND_WINDOW_BYTES_MIN * 1_000_000_000 / rate.max(1);
        match self.rate_bytes {
            Some(rate) => Span(passes_ns(rate)).max(EPOCH).min(EPOCH_MAX),
            None if self.ended_bytes == 0 && self.is_flying() => EPOCH_AT_FIRST,
            None => EPOCH,
        }
    }

    /// Whether something is in flight that counts.
    fn is_flying(&self) -> bool {
        self.flights.iter().any(|flight| flight.counted_bytes() > 0)
    }

    /// When the epoch that it is began.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// The epoch that it is.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A send begins.
    pub fn begin(&mut self, class: Class, reader: Reader, bytes: u64) -> Begun {
        self.begin_in(self.epoch, class, reader, bytes)
    }

    /// A send begins to a party of which something is stuck: it is waited for no longer than this epoch.
    pub fn begin_impatient(&mut self, class: Class, bytes: u64) -> Begun {
        self.begin_in(self.epoch.saturating_sub(PATIENCE as u64 - 1), class, Reader::Slow, bytes)
    }

    fn begin_in(&mut self, epoch: u64, class: Class, reader: Reader, bytes: u64) -> Begun {
        self.flights[class as usize].begin_aged(self.epoch, epoch, bytes);
        if reader == Reader::Prompt {
            self.prompt[class as usize].begin_aged(self.epoch, epoch, bytes);
        }
        Begun { epoch, class, reader, bytes }
    }

    /// A send ended, or its connection did: how it was read.
    pub fn end(&mut self, begun: Begun) -> Reader {
        self.ended_bytes += begun.bytes;
        let class = begun.class as usize;
        self.flights[class].end(self.epoch, begun.epoch, begun.bytes);
        if begun.reader == Reader::Prompt {
            self.prompt[class].end(self.epoch, begun.epoch, begun.bytes);
        }
        if self.epoch - begun.epoch <= 1 { Reader::Prompt } else { Reader::Slow }
    }

    /// Time has passed; `waits`: the class that would be served next. Only what is stuck of that class or a
    /// better one opens the window further: free riders that read slowly must not.
    pub fn roll(&mut self, now: Instant, waits: Option<Class>) {
        let (span, epoch_span) = (now.since(self.since), self.epoch_span());
        if span.0 < epoch_span.0 {
            return;
        }
        let ended_bytes = std::mem::take(&mut self.ended_bytes);
        self.note_rate(ended_bytes, span, waits);
        self.since = now;
        // By what is known now: when the first send ends late, the others are not stuck for that.
        self.epoch += (span.0 / epoch_span.max(self.epoch_span()).0).max(1);
        self.turn_gate();
        let mut stuck_bytes = 0;
        for (class, flight) in self.flights.iter_mut().enumerate() {
            let stuck = flight.roll_to(self.epoch);
            self.prompt[class].roll_to(self.epoch);
            stuck_bytes += if waits.is_some_and(|waits| class <= waits as usize) { stuck } else { 0 };
        }
        let stretch = self.stretch;
        let is_stuck = stuck_bytes > ended_bytes / 2;
        let stretched =
            if is_stuck { stretch + stretch / STRETCH_GROWS } else { stretch - stretch / STRETCH_SHRINKS };
        self.stretch = stretched.clamp(STRETCH_ONE, SEND_WINDOW_STRETCH_MAX * STRETCH_ONE);
    }

    fn turn_gate(&mut self) {
        let [round, trying] = ROUND;
        let rate = self.rate_bytes.unwrap_or(0);
        self.gate = match self.gate {
            _ if self.epoch % round < trying => Gate::Trying,
            Gate::Trying => Gate::Shut(rate),
            Gate::Shut(without) if rate < without / 2 => Gate::Open,
            gate => gate,
        };
    }

    /// So much ended in `span`. Up at once when it doubles, else smoothed over about eight epochs; what was
    /// sent while nobody waited says nothing of the link, and is forgotten when nothing is sent at all.
    fn note_rate(&mut self, ended_bytes: u64, span: Span, waits: Option<Class>) {
        let now = (u128::from(ended_bytes) * 1_000_000_000 / u128::from(span.0)) as u64;
        let idle = waits.is_none() && !self.is_flying();
        self.rate_bytes = match self.rate_bytes {
            _ if idle && ended_bytes == 0 => None,
            Some(rate) if now / 2 <= rate => Some((7 * rate + now) / 8),
            None if ended_bytes == 0 => None,
            _ => Some(now),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000);

    #[test]
    fn a_window_is_open_below_its_limit_and_shut_from_it_on() {
        let limits = [(Class::Rest, 1), (Class::Excess, WINDOWS_OF_GIVERS)];
        for (class, limit) in limits.map(|(class, windows)| (class, windows * SEND_WINDOW_BYTES_AT_FIRST)) {
            for (bytes, open) in [(limit - 1, true), (limit, false), (limit + 1, false)] {
                let mut window = Window::new(START);
                let begun = window.begin(Class::Rest, Reader::Prompt, bytes);
                assert_eq!(window.is_open_to(class), open, "{bytes} to {class:?}");
                window.end(begun);
                assert!(window.is_open_to(class));
            }
        }
    }

    #[test]
    fn of_a_second_window_only_who_gave_is_served() {
        let mut window = Window::new(START);
        let begun = window.begin(Class::Excess, Reader::Slow, SEND_WINDOW_BYTES_AT_FIRST - 1);
        assert_eq!(window.worst_class(), Class::Again);
        window.begin(Class::Excess, Reader::Slow, 1);
        assert_eq!(window.worst_class(), Class::Excess);
        window.end(begun);
        assert_eq!(window.worst_class(), Class::Again);
    }

    #[test]
    fn it_covers_a_span_of_what_was_sent_and_shrinks_slowly() {
        let mut window = Window::new(START);
        let mut now = START;
        for _ in 0..20 {
            let begun = window.begin(Class::Rest, Reader::Prompt, 25_000_000);
            window.end(begun);
            now = now + EPOCH;
            window.roll(now, Some(Class::Rest));
        }
        assert_eq!(window.limit_bytes(), 25_000_000, "25 ms of 1 GB a second");
        now = now + EPOCH;
        window.roll(now, Some(Class::Rest));
        assert_eq!(window.limit_bytes(), 21_875_000);
        for _ in 0..100 {
            now = now + EPOCH;
            window.roll(now, Some(Class::Rest));
        }
        assert_eq!(window.limit_bytes(), SEND_WINDOW_BYTES_MIN);
    }

    #[test]
    fn what_is_stuck_stops_counting_and_its_end_is_counted_once() {
        let mut window = Window::new(START);
        let stuck = window.begin(Class::Rest, Reader::Prompt, SEND_WINDOW_BYTES_AT_FIRST);
        let mut now = START;
        for epoch in 1..=PATIENCE {
            assert!(!window.is_open_to(Class::Rest), "epoch {epoch}");
            now = now + EPOCH_AT_FIRST;
            window.roll(now, None);
        }
        assert!(window.is_open_to(Class::Rest));
        let other = window.begin(Class::Rest, Reader::Prompt, 1);
        window.end(stuck);
        window.end(other);
        let counted = |window: &Window| window.flights.map(|flight| flight.counted_bytes());
        assert_eq!(counted(&window), [0; CLASSES]);
        // A long pause is as good as several epochs.
        window.begin(Class::Rest, Reader::Prompt, SEND_WINDOW_BYTES_AT_FIRST);
        window.roll(now + Span(PATIENCE as u64 * EPOCH_MAX.0), None);
        assert_eq!(counted(&window), [0; CLASSES]);
    }

    #[test]
    fn a_worse_class_waits_while_a_better_one_is_in_flight() {
        let mut window = Window::new(START);
        assert_eq!(window.worst_class(), Class::Again, "not before it is tried");
        window.gate = Gate::Shut(0);
        let most = SEND_WINDOW_BYTES_AT_FIRST / 8 * 3;
        let grant = window.begin(Class::Grant, Reader::Prompt, most);
        assert_eq!(window.worst_class(), Class::Again, "grants hold nobody up");
        let slow = window.begin(Class::Owed, Reader::Prompt, most - 1);
        assert_eq!(window.worst_class(), Class::Again, "one slow peer does not fill a link");
        let excess = window.begin(Class::Excess, Reader::Prompt, 1);
        assert_eq!(window.worst_class(), Class::Excess, "together they may");
        let owed = window.begin(Class::Owed, Reader::Prompt, 1);
        assert_eq!(window.worst_class(), Class::Owed);
        for begun in [slow, owed, excess, grant] {
            window.end(begun);
        }
        assert_eq!(window.worst_class(), Class::Again);
        window.begin(Class::Owed, Reader::Slow, most);
        assert_eq!(window.worst_class(), Class::Again, "who reads slowly keeps nobody out");
    }

    /// A creditor that takes `rate` bytes a second, and takers of whatever is left of `link`: how much of the
    /// link was used, and how much of that went to the creditor, in percent.
    fn with_a_creditor(rate: u64, link: u64) -> [u64; 2] {
        let (mut window, mut now, mut sent) = (Window::new(START), START, [0, 0]);
        for _ in 0..4_000 {
            let per_ms = |rate: u64| rate / 1_000;
            let owed = window.begin(Class::Owed, Reader::Prompt, window.limit_bytes() / 2);
            let kept_out = window.worst_class() == Class::Owed;
            let own = if kept_out { per_ms(rate) } else { per_ms(rate).min(per_ms(link) / 2) };
            let takers = if kept_out { 0 } else { per_ms(link) - own };
            window.end(owed);
            window.ended_bytes = window.ended_bytes - owed.bytes + own + takers;
            (sent[0], sent[1]) = (sent[0] + own, sent[1] + takers);
            now = now + Span::from_ms(1);
            window.roll(now, Some(Class::Rest));
        }
        let all = sent[0] + sent[1];
        [all * 100 / (link * 4), sent[0] * 100 / all]
    }

    #[test]
    fn a_slow_creditor_does_not_keep_others_off_an_idle_link_and_a_fast_one_has_a_full_one() {
        let [used, _] = with_a_creditor(1_000_000, 100_000_000);
        assert!(used >= 85, "{used} % of the link");
        let [used, own] = with_a_creditor(100_000_000, 100_000_000);
        assert!(used >= 95 && own >= 85, "{used} % of the link, {own} % of it the creditor's");
    }

    #[test]
    fn a_reader_is_prompt_for_two_epochs() {
        let mut window = Window::new(START);
        let begun = [(); 3].map(|()| window.begin(Class::Rest, Reader::Slow, SEND_WINDOW_BYTES_AT_FIRST));
        let (mut now, mut readers) = (START, Vec::new());
        for begun in begun {
            readers.push(window.end(begun));
            now = now + EPOCH;
            window.roll(now, None);
        }
        assert_eq!(readers, [Reader::Prompt, Reader::Prompt, Reader::Slow]);
    }

    #[test]
    fn free_riders_that_read_slowly_open_nothing() {
        for (waits, opens) in [(Class::Owed, false), (Class::Rest, true)] {
            let mut window = Window::new(START);
            window.begin(Class::Rest, Reader::Prompt, SEND_WINDOW_BYTES_AT_FIRST);
            window.roll(START + Span(PATIENCE as u64 * EPOCH_MAX.0), Some(waits));
            assert_eq!(window.limit_bytes() > SEND_WINDOW_BYTES_AT_FIRST, opens, "{waits:?} waits");
        }
    }

    #[test]
    fn a_window_that_slow_peers_opened_closes_again() {
        for waits in [None, Some(Class::Rest)] {
            let (mut window, mut now) = (Window::new(START), START);
            for _ in 0..40 {
                window.begin(Class::Rest, Reader::Prompt, 64 << 10);
                now = now + EPOCH_MAX;
                window.roll(now, Some(Class::Rest));
            }
            assert!(window.stretch > 8 * STRETCH_ONE);
            for _ in 0..600 {
                let begun = window.begin(Class::Rest, Reader::Prompt, 2_500_000);
                window.end(begun);
                now = now + EPOCH;
                window.roll(now, waits);
            }
            assert_eq!(window.limit_bytes(), 2_500_000, "{waits:?}");
        }
    }

    #[test]
    fn epochs_are_long_until_a_send_has_ended_and_by_rate_from_then_on() {
        let mut window = Window::new(START);
        let begun = window.begin(Class::Rest, Reader::Prompt, 16 << 10);
        window.begin(Class::Rest, Reader::Prompt, 48 << 10);
        assert_eq!(window.due(), START + EPOCH_AT_FIRST);
        window.roll(START + Span(EPOCH_AT_FIRST.0 - 1), Some(Class::Rest));
        assert_eq!(window.epoch(), 0);
        // A block in that time: the others may well take as long each.
        window.end(begun);
        assert_eq!(window.due(), START + EPOCH);
        window.roll(START + Span(EPOCH_AT_FIRST.0 - 1), Some(Class::Rest));
        assert_eq!(window.epoch(), 1);
        assert_eq!(window.flights.map(|flight| flight.counted_bytes()).iter().sum::<u64>(), 48 << 10);
        // A link of 16 KiB a second has the longest epochs.
        for (rate, span) in
            [(16 << 10, EPOCH_MAX), ((16 << 10) - 1, EPOCH_MAX), (32 << 10, Span::from_secs(1))]
        {
            window.set_rate(rate);
            assert_eq!(window.due().since(window.since), span, "{rate}");
        }
        window.set_rate((16 << 10) + 1);
        assert!(window.due().since(window.since) < EPOCH_MAX);
    }

    /// What peers get that read `rate` bytes a second each, of what they could read, in percent. A link is
    /// faster than all of them, and the kernel takes two blocks of each connection.
    fn read_by(peers: usize, rate: u64) -> u64 {
        const BLOCK: u64 = 16 << 10;
        let (mut window, mut now, mut read) = (Window::new(START), START, 0);
        let mut kernel = vec![0u64; peers];
        let mut flying: Vec<(usize, Begun)> = Vec::new();
        let mut waiting: std::collections::VecDeque<usize> = (0..peers).collect();
        let (step, all) = (Span::from_ms(25), 60 * 40);
        for _ in 0..all {
            now = now + step;
            for held in &mut kernel {
                let bytes = (*held).min(rate * step.0 / 1_000_000_000);
                (*held, read) = (*held - bytes, read + bytes);
            }
            flying.retain(|&(peer, begun)| {
                let fits = kernel[peer] + begun.bytes <= 2 * BLOCK;
                if fits {
                    window.end(begun);
                    kernel[peer] += begun.bytes;
                    waiting.push_back(peer);
                }
                !fits
            });
            window.roll(now, (!waiting.is_empty()).then_some(Class::Rest));
            while window.is_open_to(Class::Rest)
                && let Some(peer) = waiting.pop_front()
            {
                let begun = window.begin(Class::Rest, Reader::Prompt, BLOCK);
                if kernel[peer] + BLOCK <= 2 * BLOCK {
                    window.end(begun);
                    kernel[peer] += BLOCK;
                    waiting.push_back(peer);
                } else {
                    flying.push((peer, begun));
                }
            }
        }
        read * 100 / (peers as u64 * rate * all * step.0 / 1_000_000_000)
    }

    #[test]
    fn slow_peers_are_served_as_fast_as_they_read() {
        for (peers, rate) in
            [(20, 20 << 10), (200, 16 << 10), (1_000, 4 << 10), (4_000, 64 << 10), (3, 1_000)]
        {
            let part = read_by(peers, rate);
            assert!(part >= 90, "{peers} peers of {rate} bytes a second got {part} %");
        }
    }
}
