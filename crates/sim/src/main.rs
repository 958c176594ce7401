//! `tidegate-sim`: prints, for every limiter and every provider, how often it was refused and what it used.

use clap::{Args as Arguments, Parser, Subcommand};
use tidegate_sim::Discipline;
use tidegate_sim::baseline::Kind;
use tidegate_sim::profiles::table::{LEARNED, LearnedRow, TOLD, ToldRow};
use tidegate_sim::profiles::{Figures, Knowledge, Trial, catalog, run, vertex};
use tidegate_sim::report::{HEADING, Row, tally};
use tidegate_sim::setting::{Algorithms, Setting};

/// Runs seeded worlds in virtual time and prints what came of them.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    table: Option<Table>,
    #[command(flatten)]
    worlds: Worlds,
}

#[derive(Debug, Subcommand)]
enum Table {
    /// Limiters against enforcement algorithms (the default).
    Worlds(Worlds),
    /// Each provider's profile against the model of that provider.
    Profiles(Profiles),
}

#[derive(Debug, Arguments)]
struct Profiles {
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Minutes of each trial of a profile whose limits are told.
    #[arg(long, default_value_t = 20_000)]
    minutes: u64,
    /// Only profiles whose names begin so.
    #[arg(long, default_value = "")]
    only: String,
    /// Also print what the engine believes of the limits in the end.
    #[arg(long)]
    believed: bool,
}

#[derive(Debug, Arguments)]
struct Worlds {
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
    match args.table {
        None => worlds(&args.worlds),
        Some(Table::Worlds(args)) => worlds(&args),
        Some(Table::Profiles(args)) => profiles(&args),
    }
}

fn profiles(args: &Profiles) {
    let chosen = |name: &str| name.starts_with(&args.only);
    println!("Limits told\n{TOLD}");
    for profile in catalog().iter().filter(|profile| chosen(profile.name)) {
        let figures = run(profile, &Trial::told(args.seed, args.minutes));
        println!(
            "{}",
            ToldRow {
                profile,
                figures: &figures
            }
        );
        if args.believed {
            believed(&figures);
        }
    }
    for (knowledge, title) in [
        (Knowledge::Unknown, "Limits not told"),
        (Knowledge::Doubled, "Limits told twice as high"),
    ] {
        println!("\n{title}\n{LEARNED}");
        let shared = (knowledge == Knowledge::Unknown).then(vertex);
        for profile in catalog()
            .iter()
            .chain(&shared)
            .filter(|profile| chosen(profile.name))
        {
            let trial = Trial {
                knowledge,
                ..Trial::told(args.seed, 60)
            };
            let figures = run(profile, &trial);
            println!(
                "{}",
                LearnedRow {
                    name: profile.name,
                    figures: &figures
                }
            );
            if args.believed {
                believed(&figures);
            }
        }
    }
}

fn believed(figures: &Figures) {
    for limit in &figures.believed {
        println!(
            "    {} in {} s: {} ({}, {:?}), used {}, held {}, foreign {}, margin {} ms",
            limit.limit.dimension,
            limit.limit.window.as_secs(),
            limit.limit.amount,
            limit.source.name(),
            limit.discipline,
            limit.used,
            limit.held,
            limit.foreign,
            limit.margin.as_millis()
        );
    }
}

fn worlds(args: &Worlds) {
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
