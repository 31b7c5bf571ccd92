//! What the command line says.

use troc::sim::swarm::scenario::{ALL, Scenario, Size};
use troc::sim::swarm::{Kind, Policy};

const USAGE: &str = "\
Usage: cargo bench --bench reciprocity -- [E1 E4 ...] [OPTIONS]

Simulated swarms: who gives, gets? Prints each figure with its bar, and whether it was met.

  E1 .. E14, L1 .. L5  scenarios to run; all if none is named
  --policy NAME        troc, tft, propshare, fairtorrent, bittyrant; may be repeated [troc, tft,
                       propshare and fairtorrent]
  --seeds N            runs of each, of which the mean is printed [3]
  --rate BYTES         bytes a second of a usual link [30720]
  --small              tens of nodes instead of hundreds, 3 MiB instead of 12
  --csv                comma-separated values
  --check              exit with status 1 if any mean misses its bar
  --help               this text

Full swarms of 300 real engines take minutes each. Equal seeds give equal figures on any machine.";

/// Links of Sirivianos et al.
const RATE: u64 = 30 << 10;

/// See `USAGE`.
pub struct Args {
    pub scenarios: Vec<Scenario>,
    pub policies: Vec<(&'static str, Kind)>,
    pub seeds: u64,
    pub rate: u64,
    pub size: Size,
    pub csv: bool,
    pub check: bool,
}

const POLICIES: [(&str, Kind); 5] = [
    ("troc", Kind::TROC),
    ("tft", Kind::Model(Policy::TitForTat)),
    ("propshare", Kind::Model(Policy::PropShare)),
    ("fairtorrent", Kind::Model(Policy::FairTorrent)),
    ("bittyrant", Kind::Model(Policy::BitTyrant)),
];

impl Args {
    /// What is to be run, or what to tell whoever asked.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (scenarios, policies) = (Vec::new(), Vec::new());
        let (csv, check) = (false, false);
        let mut args = Self { scenarios, policies, seeds: 3, rate: RATE, size: Size::Full, csv, check };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Err(USAGE.to_owned()),
                // Cargo says so to every bench.
                "--bench" => {}
                "--small" => args.size = Size::Small,
                "--csv" => args.csv = true,
                "--check" => args.check = true,
                "--seeds" => args.seeds = number(&word, words.next())?,
                "--rate" => args.rate = number(&word, words.next())?,
                "--policy" => {
                    let name = words.next().unwrap_or_default();
                    let policy = POLICIES.iter().find(|(known, _)| *known == name);
                    args.policies.push(*policy.ok_or_else(|| format!("no policy {name:?}: see --help"))?);
                }
                id => {
                    let scenario = ALL.iter().find(|scenario| scenario.id.eq_ignore_ascii_case(id));
                    args.scenarios.push(*scenario.ok_or_else(|| format!("no scenario {id:?}: see --help"))?);
                }
            }
        }
        if args.scenarios.is_empty() {
            args.scenarios = ALL.to_vec();
        }
        if args.policies.is_empty() {
            args.policies = POLICIES[..4].to_vec();
        }
        Ok(args)
    }
}

fn number(option: &str, word: Option<String>) -> Result<u64, String> {
    let word = word.unwrap_or_default();
    let number = word.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("{option} takes a number above 0, not {word:?}"))
}
