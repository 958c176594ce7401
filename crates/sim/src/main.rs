//! `tidegate-sim`: prints, for every limiter and every provider, how often it was refused and what it used.

use clap::Parser;
use tidegate_sim::Discipline;
use tidegate_sim::baseline::Kind;
use tidegate_sim::report::{HEADING, Row, tally};
use tidegate_sim::setting::{Algorithms, Setting};

/// Runs seeded worlds in virtual time and prints one table.
#[derive(Debug, Parser)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Worlds for each row.
    #[arg(long, default_value_t = 200)]
    worlds: u64,
    /// Minutes of each world.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Share of the limits, in percent, that somebody else uses.
    #[arg(long, default_value_t = 0)]
    foreign: u64,
}

fn main() {
    let args = Args::parse();
    println!("{HEADING}");
    let disciplines = [
        Discipline::Tidegate,
        Discipline::TidegateBucket,
        Discipline::Baseline(Kind::Rolling),
        Discipline::Baseline(Kind::TokenBucket),
        Discipline::Baseline(Kind::Fixed),
        Discipline::Baseline(Kind::None),
    ];
    for discipline in disciplines {
        for algorithm in Algorithms::ALL {
            if discipline == Discipline::TidegateBucket && algorithm != Algorithms::TokenBucket {
                continue;
            }
            let adapt = |mut setting: Setting| {
                setting.foreign_percent = args.foreign;
                setting.headers |= args.foreign > 0;
                setting
            };
            let seeds = args.seed..args.seed + args.worlds;
            let drawn = seeds
                .clone()
                .map(|seed| adapt(Setting::draw(seed, args.minutes, algorithm)));
            let safety = tally(drawn, discipline);
            let usual = seeds
                .take(10)
                .map(|seed| adapt(Setting::production(seed, args.minutes, algorithm)));
            let production = tally(usual, discipline);
            println!(
                "{}",
                Row {
                    discipline,
                    algorithm,
                    safety: &safety,
                    production: &production
                }
            );
            let first = safety.first_refused.or(production.first_refused);
            if let (Some(seed), Discipline::Tidegate | Discipline::TidegateBucket) = (first, discipline) {
                println!("  first refused: seed {seed}");
            }
        }
    }
}
