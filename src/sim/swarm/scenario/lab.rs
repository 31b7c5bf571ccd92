//! What `scripts/swarm` measures with real nodes on shaped links, without their kernels: the same hosts,
//! links, queues and bars.

use super::super::net::Rates;
use super::*;

/// One megabit a second, in bytes.
const MBIT: u64 = 125_000;

/// Bytes of a piece.
const PIECE_BYTES: u32 = 256 << 10;

/// From anybody to anybody.
const DELAY: Span = Span::from_ms(2);

/// They are started one after the other.
const WITHIN: Span = Span::from_ms(100);

/// The longest queue of a link.
const QUEUE: Span = Span::from_ms(50);

/// A torrent of so many MiB.
const fn content(mib: u32) -> Content {
    Content::new(mib << 20 >> PIECE_BYTES.ilog2(), PIECE_BYTES)
}

/// A swarm whose usual link is `setup.rate`.
fn run_near(setup: &Setup, content: Content, mut groups: Vec<Group>) -> (Tally, f64) {
    groups.iter_mut().for_each(|group| group.within = WITHIN);
    let plan = Plan { delay: DELAY, queue: QUEUE, ..setup.plan(content, groups) };
    (run(&plan), fluid_bound(&plan))
}

/// What it costs: copies that the seed gave, and payload thrown away.
fn add_costs(figures: &mut Figures, case: &str, tally: &Tally, content: Content) {
    figures.add(case, "copies of the seed", seed_copies(tally, content), Bar::None);
    figures.add(case, "thrown away", wasted_part(tally), Bar::AtMost(0.005));
}

/// L1. Eight equal hosts and a seed.
pub(super) fn eight(setup: &Setup) -> Figures {
    let (mut figures, content) = (Figures::default(), content(setup.sized(256, 64) as u32));
    let setup = Setup { rate: 200 * MBIT, ..*setup };
    let groups = vec![setup.seed_of(1), setup.contributors(8).staying(Stay::Always)];
    let (tally, bound) = run_near(&setup, content, groups);
    figures.add("", "makespan / bound", makespan(&tally) / bound, Bar::AtMost(1.15));
    add_costs(&mut figures, "", &tally, content);
    figures
}

/// L2. Four of ten give nothing; all stay.
pub(super) fn riders(setup: &Setup) -> Figures {
    let (mut figures, content) = (Figures::default(), content(setup.sized(128, 64) as u32));
    let setup = Setup { rate: 100 * MBIT, ..*setup };
    let times = [0, 4].map(|riders| {
        let rogues = setup.rogues(Rogue::FreeRider, riders).staying(Stay::Always);
        let groups = vec![setup.seed_of(1), setup.contributors(6).staying(Stay::Always), rogues];
        let (tally, _) = run_near(&setup, content, groups);
        let (time, rogues) = (mean_time(&tally, Role::Contributor), mean_time(&tally, Role::Rogue));
        let case = if riders == 0 { "without the four" } else { "four ride free" };
        // The contributors could have had it in that time.
        let own_bound = content.geometry.total_bytes as f64 / setup.rate as f64;
        let bar = if riders == 0 { Bar::None } else { Bar::AtMost(1.25) };
        figures.add(case, "mean / own bound", time / own_bound, bar);
        add_costs(&mut figures, case, &tally, content);
        if riders > 0 {
            figures.add(case, "riders slower by", rogues / time, Bar::AtLeast(1.3));
            add_given_to_riders(&mut figures, case, &tally);
        }
        time
    });
    figures.add("four ride free", "price", times[1] / times[0], Bar::AtMost(1.15));
    figures
}

/// L3. Four slow hosts, four fast ones; all stay.
pub(super) fn heterogeneous(setup: &Setup) -> Figures {
    let (mut figures, content) = (Figures::default(), content(64));
    let setup = Setup { rate: 100 * MBIT, ..*setup };
    let fast = setup.contributors(4).staying(Stay::Always);
    let slow = Group { rates: Rates { up: setup.rate / 10, down: setup.rate }, ..fast.clone() };
    let (tally, bound) = run_near(&setup, content, vec![setup.seed_of(1), slow, fast]);
    figures.add("", "makespan / bound", makespan(&tally) / bound, Bar::AtMost(1.15));
    figures.add("", "slow: mean / bound", mean(&tally.times(tally.of_group(1))) / bound, Bar::None);
    figures.add("", "fast: mean / bound", mean(&tally.times(tally.of_group(2))) / bound, Bar::None);
    add_costs(&mut figures, "", &tally, content);
    figures
}

/// L4. More and more hosts.
pub(super) fn growth(setup: &Setup) -> Figures {
    let (mut figures, content) = (Figures::default(), content(64));
    let setup = Setup { rate: 50 * MBIT, ..*setup };
    let mut of_four = None;
    for (count, case) in [(4, "4 hosts"), (8, "8 hosts"), (16, "16 hosts")] {
        let groups = vec![setup.seed_of(1), setup.contributors(count).staying(Stay::Always)];
        let (tally, bound) = run_near(&setup, content, groups);
        let of_four = *of_four.get_or_insert_with(|| makespan(&tally));
        figures.add(case, "makespan / bound", makespan(&tally) / bound, Bar::None);
        figures.add(case, "makespan / that of 4", makespan(&tally) / of_four, Bar::AtMost(1.1));
        add_costs(&mut figures, case, &tally, content);
    }
    figures
}

/// Sizes of `pieces`: MiB of content, KiB of a piece, Mbit/s of a link.
const SIZES: [(u32, u32, u64); 18] = [
    (16, 16, 200),
    (16, 64, 200),
    (16, 256, 200),
    (16, 1 << 10, 200),
    (64, 16, 200),
    (64, 64, 200),
    (64, 256, 200),
    (64, 1 << 10, 200),
    (64, 4 << 10, 200),
    (64, 64, 20),
    (64, 256, 20),
    (64, 1 << 10, 20),
    (256, 64, 200),
    (256, 256, 200),
    (256, 512, 200),
    (256, 1 << 10, 200),
    (256, 4 << 10, 200),
    (256, 16 << 10, 200),
];

/// L5. L1 with pieces of other lengths: shorter ones behave as if blocks were passed on before their piece
/// is whole, and so show what that could bring at most.
pub(super) fn pieces(setup: &Setup) -> Figures {
    let mut figures = Figures::default();
    let largest = setup.sized(256, 16) as u32;
    for (mib, kib, mbit) in SIZES.into_iter().filter(|&(mib, ..)| mib <= largest) {
        let content = Content::new((mib << 10) / kib, kib << 10);
        let setup = Setup { rate: mbit * MBIT, ..*setup };
        let groups = vec![setup.seed_of(1), setup.contributors(8).staying(Stay::Always)];
        let (tally, bound) = run_near(&setup, content, groups);
        let case = format!("{mib} MiB in {kib} KiB, {mbit} Mbit/s");
        figures.add(&case, "makespan / bound", makespan(&tally) / bound, Bar::None);
        add_costs(&mut figures, &case, &tally, content);
    }
    figures
}
