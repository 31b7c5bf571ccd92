use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

const SECOND: Span = Span::from_secs(1);

fn tiers(names: &[&[&str]]) -> Vec<Vec<String>> {
    names.iter().map(|tier| tier.iter().map(ToString::to_string).collect()).collect()
}

fn announcer(names: &[&[&str]]) -> Announcer {
    Announcer::new(&tiers(names), TrackerOrigin::Operator, Rng::new(1))
}

fn at(seconds: u64) -> Instant {
    Instant::default() + Span::from_secs(seconds)
}

fn interval(seconds: u64) -> AnnounceReply {
    AnnounceReply { interval: Span::from_secs(seconds), ..AnnounceReply::default() }
}

fn poll(announcer: &mut Announcer, now: Instant) -> (TrackerIndex, String, AnnounceEvent) {
    let announce = announcer.poll_announce(now).expect("an announce is due");
    (announce.tracker, announce.url.to_string(), announce.event)
}

/// The URLs asked at `now`, each failing.
fn fail_all(announcer: &mut Announcer, now: Instant) -> Vec<String> {
    let mut asked = Vec::new();
    while let Some(announce) = announcer.poll_announce(now) {
        announcer.handle_failure(now, announce.tracker);
        asked.push(announce.url.to_string());
    }
    asked
}

#[test]
fn tiers_are_asked_in_order_and_the_first_answer_ends_the_round() {
    let mut it = announcer(&[&["a"], &["b"], &["c"]]);
    let (a, url, event) = poll(&mut it, at(0));
    assert_eq!((url.as_str(), event), ("a", AnnounceEvent::Started));
    assert_eq!((it.poll_announce(at(0)), it.poll_timeout()), (None, None));
    it.handle_failure(at(1), a);
    let (b, url, event) = poll(&mut it, at(1));
    assert_eq!((url.as_str(), event), ("b", AnnounceEvent::Started));
    assert_eq!(it.handle_reply(at(2), b, &interval(1800)), TrackerChange::Same);
    let next = it.poll_timeout().unwrap();
    assert!(next >= at(1802) && next <= at(1802 + 1800 / 16));
    assert_eq!(it.poll_announce(next - Span(1)), None);
    // The next round begins at the top again.
    let (a, url, event) = poll(&mut it, next);
    assert_eq!((url.as_str(), event), ("a", AnnounceEvent::Started));
    assert_eq!(it.handle_reply(next, a, &interval(1800)), TrackerChange::Switched);
    let next = it.poll_timeout().unwrap();
    assert_eq!(poll(&mut it, next).2, AnnounceEvent::None);
}

#[test]
fn who_answers_moves_to_the_front_of_its_tier() {
    let mut it = announcer(&[&["a", "b", "c", "d"]]);
    let mut order = Vec::new();
    for _ in 0..3 {
        let (tracker, url, _) = poll(&mut it, at(0));
        it.handle_failure(at(0), tracker);
        order.push(url);
    }
    let (last, url, _) = poll(&mut it, at(0));
    it.handle_reply(at(0), last, &interval(60));
    order.insert(0, url);
    let next = at(4000);
    assert_eq!(fail_all(&mut it, next), order);
}

#[test]
fn shuffling_depends_on_the_seed_only_and_keeps_tiers_apart() {
    let names: &[&[&str]] = &[&["a", "b", "c", "d", "e", "f"], &["x", "y", "z"]];
    let order = |seed| {
        let mut it = Announcer::new(&tiers(names), TrackerOrigin::Operator, Rng::new(seed));
        fail_all(&mut it, at(0))
    };
    assert_eq!(order(1), order(1));
    assert!((2..20).any(|seed| order(seed) != order(1)));
    for seed in 0..20 {
        let order = order(seed);
        assert!(
            order[..6].iter().all(|url| url.as_str() < "g")
                && order[6..].iter().all(|url| url.as_str() > "w")
        );
    }
}

#[test]
fn n11_at_most_64_trackers_and_each_once() {
    for count in [TRACKERS_MAX - 1, TRACKERS_MAX, TRACKERS_MAX + 1, 5000] {
        let urls: Vec<String> = (0..count).map(|n| format!("http://{n}/")).collect();
        let mut it = Announcer::new(&[urls.clone(), urls], TrackerOrigin::Stranger, Rng::new(1));
        assert_eq!(fail_all(&mut it, at(0)).len(), count.min(TRACKERS_MAX));
    }
    let long = "x".repeat(URL_BYTES_MAX + 1);
    let fits = "x".repeat(URL_BYTES_MAX);
    let mut it = announcer(&[&["", &long], &[], &[&fits, &fits]]);
    assert_eq!(fail_all(&mut it, at(0)), [fits]);
    assert!(!announcer(&[&[""]]).has_trackers());
    assert_eq!(announcer(&[]).poll_timeout(), None);
}

#[test]
fn n11_dead_trackers_are_asked_ever_less() {
    let mut it = announcer(&[&["a"]]);
    let mut now = at(0);
    for failures in 0..40_u32 {
        assert_eq!(fail_all(&mut it, now).len(), 1);
        let wait = it.poll_timeout().unwrap().since(now);
        let expected = Span((TRACKER_BACKOFF_MIN.0 << failures.min(20)).min(TRACKER_BACKOFF_MAX.0));
        assert!(wait >= expected && wait <= Span(expected.0 + expected.0 / 8), "{failures}: {wait:?}");
        now = now + wait;
    }
}

#[test]
fn n11_slow_failures_at_the_front_do_not_starve_those_behind() {
    let mut it = announcer(&[&["a"], &["b"], &["c"], &["d"]]);
    let mut asked = Vec::new();
    for round in 0..8 {
        let now = at(60 * round);
        let (tracker, url, _) = poll(&mut it, now);
        asked.push(url);
        it.handle_failure(now + Span::from_secs(30), tracker);
    }
    assert_eq!(asked, ["a", "b", "c", "d", "a", "b", "c", "d"]);
}

#[test]
fn n7_intervals_are_clamped() {
    let wait = |origin, asked: u64, min: Option<u64>| {
        let mut it = Announcer::new(&tiers(&[&["a"]]), origin, Rng::new(1));
        let (tracker, ..) = poll(&mut it, at(0));
        let reply = AnnounceReply { min_interval: min.map(Span::from_secs), ..interval(asked) };
        it.handle_reply(at(0), tracker, &reply);
        let regular = it.poll_timeout().unwrap();
        it.handle_peers_wanted(at(0));
        (it.poll_timeout().unwrap(), regular)
    };
    let six_hours = 6 * 3600;
    for (origin, asked, min, sooner, regular) in [
        (TrackerOrigin::Stranger, 0, None, 60, 60),
        (TrackerOrigin::Stranger, 59, None, 60, 60),
        (TrackerOrigin::Stranger, 60, None, 60, 60),
        (TrackerOrigin::Stranger, 61, None, 60, 61),
        (TrackerOrigin::Stranger, 5, Some(5), 60, 60),
        (TrackerOrigin::Stranger, six_hours - 1, None, 60, six_hours - 1),
        (TrackerOrigin::Stranger, six_hours, None, 60, six_hours),
        (TrackerOrigin::Stranger, six_hours + 1, None, 60, six_hours),
        (TrackerOrigin::Stranger, u64::from(u32::MAX), Some(u64::from(u32::MAX)), six_hours, six_hours),
        (TrackerOrigin::Stranger, 300, Some(900), 900, 900),
        (TrackerOrigin::Operator, 4, None, 5, 5),
        (TrackerOrigin::Operator, 5, None, 5, 5),
        (TrackerOrigin::Operator, 6, None, 5, 6),
        (TrackerOrigin::Operator, 0, None, 5, 60),
        (TrackerOrigin::Operator, 1800, Some(300), 300, 1800),
    ] {
        let (got_sooner, got_regular) = wait(origin, asked, min);
        assert_eq!(got_sooner, at(sooner).min(got_regular), "{origin:?} {asked} {min:?}");
        let latest = at(regular) + Span(Span::from_secs(regular).0 / 16);
        assert!(got_regular >= at(regular) && got_regular <= latest, "{origin:?} {asked} {min:?}");
    }
}

#[test]
fn completion_is_told_once_at_once_to_who_knows_us() {
    let mut it = announcer(&[&["a"], &["b"]]);
    let (a, ..) = poll(&mut it, at(0));
    it.handle_failure(at(0), a);
    let (b, ..) = poll(&mut it, at(0));
    it.handle_completed();
    it.handle_reply(at(0), b, &interval(1800));
    // `a` could be asked again, but it is `b` that counted us.
    let (b, url, event) = poll(&mut it, at(100));
    assert_eq!((url.as_str(), event), ("b", AnnounceEvent::Completed));
    it.handle_failure(at(100), b);
    // `b` is gone: `a` must hear that we exist before it hears that we are done.
    let (a, url, event) = poll(&mut it, at(100));
    assert_eq!((url.as_str(), event), ("a", AnnounceEvent::Started));
    it.handle_reply(at(100), a, &interval(1800));
    let (a, url, event) = poll(&mut it, at(100));
    assert_eq!((url.as_str(), event), ("a", AnnounceEvent::Completed));
    it.handle_reply(at(100), a, &interval(1800));
    it.handle_completed();
    assert_eq!(it.poll_announce(at(101)), None);
}

#[test]
fn good_byes_go_once_to_all_who_know_us() {
    let mut it = announcer(&[&["a"], &["b"], &["c"]]);
    // `b` answers first, then `a`; `c` is never asked.
    let (a, ..) = poll(&mut it, at(0));
    it.handle_failure(at(0), a);
    let (b, ..) = poll(&mut it, at(0));
    it.handle_reply(at(0), b, &interval(60));
    let (a, ..) = poll(&mut it, at(100));
    it.handle_reply(at(100), a, &interval(60));
    it.handle_stop();
    assert!(!it.is_stopped() && it.poll_timeout() == Some(Instant::default()));
    let (a, url_a, event_a) = poll(&mut it, at(101));
    let (b, url_b, event_b) = poll(&mut it, at(101));
    assert_eq!((url_a.as_str(), url_b.as_str()), ("a", "b"));
    assert_eq!((event_a, event_b), (AnnounceEvent::Stopped, AnnounceEvent::Stopped));
    assert_eq!((it.poll_announce(at(101)), it.poll_timeout()), (None, None));
    it.handle_failure(at(102), b);
    assert!(!it.is_stopped());
    it.handle_reply(at(102), a, &interval(60));
    assert!(it.is_stopped() && it.poll_announce(at(9999)).is_none());
}

#[test]
fn stop_waits_for_the_announce_in_flight() {
    let mut it = announcer(&[&["a"]]);
    let (a, ..) = poll(&mut it, at(0));
    it.handle_stop();
    assert!(!it.is_stopped() && it.poll_announce(at(0)).is_none());
    it.handle_reply(at(1), a, &interval(60));
    assert_eq!(poll(&mut it, at(1)).2, AnnounceEvent::Stopped);

    let mut unknown = announcer(&[&["a"]]);
    unknown.handle_stop();
    assert!(unknown.is_stopped());
}

#[test]
fn outcomes_nobody_waits_for_are_ignored() {
    let mut it = announcer(&[&["a"]]);
    let (a, ..) = poll(&mut it, at(0));
    it.handle_reply(at(0), a, &interval(1800));
    let before = it.poll_timeout();
    it.handle_failure(at(1), a);
    it.handle_reply(at(1), a, &interval(5));
    it.handle_reply(at(1), TrackerIndex(77), &interval(5));
    assert_eq!(it.poll_timeout(), before);
}

proptest! {
    /// Whatever comes: one announce in flight, never one before its time, and the schedule goes on.
    #[test]
    fn schedule_never_stalls(
        seed in any::<u64>(),
        steps in proptest::collection::vec((0..4_u8, 0..4000_u64), 1..200),
    ) {
        let names: &[&[&str]] = &[&["a", "b"], &["c"], &["d", "e", "f"]];
        let mut it = Announcer::new(&tiers(names), TrackerOrigin::Stranger, Rng::new(seed));
        let mut now = at(0);
        let mut in_flight = None;
        for (step, amount) in steps {
            match (step, in_flight.take()) {
                (0, Some(tracker)) => { it.handle_reply(now, tracker, &interval(amount)); }
                (_, Some(tracker)) => it.handle_failure(now, tracker),
                (1, None) => it.handle_peers_wanted(now),
                (2, None) => it.handle_completed(),
                (_, None) => {}
            }
            let wake = it.poll_timeout().expect("something is always due");
            prop_assert!(wake <= now + Span(TRACKER_INTERVAL_MAX.0 * 17 / 16));
            if now < wake {
                prop_assert_eq!(it.poll_announce(now), None);
                now = wake;
            }
            in_flight = it.poll_announce(now).map(|announce| announce.tracker);
            prop_assert!(in_flight.is_some());
            prop_assert!(it.poll_announce(now + SECOND).is_none() && it.poll_timeout().is_none());
        }
    }
}
