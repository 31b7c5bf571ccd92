//! The small steps that every block pays for, one case each.
//!
//! `cargo bench --bench micro [NAME]` times them by criterion; absolute times on a shared machine say
//! little, so compare two runs side by side. `scripts/bench-gate` counts their instructions instead,
//! which are the same on every run, and compares them with `instructions.txt`.

mod case;
mod engine;
mod fixture;
mod hash;
mod journal;
mod metainfo;
mod shared;
mod wire;

use std::process::ExitCode;

use case::Case;
use criterion::Criterion;

fn cases() -> Vec<Case> {
    [wire::cases(), engine::cases(), shared::cases(), hash::cases(), journal::cases(), metainfo::cases()]
        .into_iter()
        .flatten()
        .collect()
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("--gate") {
        let mut criterion = Criterion::default().configure_from_args();
        cases().iter().for_each(|case| case.time(&mut criterion));
        criterion.final_summary();
        return ExitCode::SUCCESS;
    }
    match args.next() {
        None => cases().iter().for_each(|case| println!("{}", case.describe())),
        Some(name) => match cases().iter().find(|case| case.name == name) {
            Some(case) => case.count(),
            None => {
                eprintln!("no case {name}: --gate alone lists them");
                return ExitCode::from(2);
            }
        },
    }
    ExitCode::SUCCESS
}
