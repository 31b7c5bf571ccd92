//! `cargo bench --bench reciprocity -- --help`: swarms of simulated nodes, for us and for other policies,
//! with the bars of each scenario. Virtual time, one seed: figures depend on no machine.

mod args;

use args::Args;
use indicatif::{ProgressBar, ProgressStyle};
use troc::sim::swarm::report::{Bar, Line, summary};
use troc::sim::swarm::scenario::{Scenario, Setup};
use troc::sim::swarm::{Figures, Kind};

/// Width of the bars' column.
const BAR_COLUMNS: usize = 12;

fn main() -> std::process::ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            let wrong = !text.starts_with("Usage");
            println!("{text}");
            return if wrong { 2.into() } else { 0.into() };
        }
    };
    if args.csv {
        println!("scenario,policy,case,figure,mean,least,greatest,bar,met");
    }
    let mut missed = 0;
    for scenario in &args.scenarios {
        if !args.csv {
            println!("\n{} {}, {} seeds, {} bytes/s", scenario.id, scenario.title, args.seeds, args.rate);
        }
        for &(name, kind) in &args.policies {
            let lines = summary(&runs(scenario, name, kind, &args));
            missed += lines.iter().filter(|line| !line.figure.bar.is_met(line.figure.value)).count();
            if args.csv { print_csv(scenario.id, name, &lines) } else { print_table(name, &lines) }
        }
    }
    if args.check && missed > 0 {
        eprintln!("{missed} bars missed");
        return 1.into();
    }
    std::process::ExitCode::SUCCESS
}

/// The figures of each seed; says on standard error how far it is.
fn runs(scenario: &Scenario, name: &str, kind: Kind, args: &Args) -> Vec<Figures> {
    let style = ProgressStyle::with_template("{msg}: seed {pos} of {len}, {elapsed}").expect("a template");
    let bar = ProgressBar::new(args.seeds).with_style(style).with_message(format!("{} {name}", scenario.id));
    let run = |seed: u64| {
        bar.set_position(seed);
        (scenario.run)(&Setup { seed, kind, size: args.size, rate: args.rate })
    };
    let runs = (1..=args.seeds).map(run).collect();
    bar.finish_and_clear();
    runs
}

fn bar_text(bar: Bar) -> String {
    match bar {
        Bar::AtMost(most) => format!("at most {most}"),
        Bar::AtLeast(least) => format!("at least {least}"),
        Bar::None => String::new(),
    }
}

fn met_text(line: &Line) -> &'static str {
    match line.figure.bar {
        Bar::None => "",
        bar if bar.is_met(line.figure.value) => "met",
        _ => "MISSED",
    }
}

fn print_table(name: &str, lines: &[Line]) {
    for line in lines {
        let figure = &line.figure;
        println!(
            "{name:<12} {:<36} {:<22} {:>8.3}  {:>8.3} .. {:<8.3} {:<BAR_COLUMNS$} {}",
            figure.case,
            figure.name,
            figure.value,
            line.range.0,
            line.range.1,
            bar_text(figure.bar),
            met_text(line)
        );
    }
}

fn print_csv(scenario: &str, name: &str, lines: &[Line]) {
    for line in lines {
        let figure = &line.figure;
        let (least, greatest) = line.range;
        println!(
            "{scenario},{name},\"{}\",{},{:.4},{least:.4},{greatest:.4},{},{}",
            figure.case,
            figure.name,
            figure.value,
            bar_text(figure.bar),
            met_text(line)
        );
    }
}
