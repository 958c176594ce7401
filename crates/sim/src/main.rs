//! `tidegate-sim`: prints, for every limiter and every provider, how often it was refused and what it used.

use clap::{Args as Arguments, Parser, Subcommand};
use tidegate_sim::Discipline;
use tidegate_sim::baseline::Kind;
use tidegate_sim::profiles::table::{LEARNED, LearnedRow, SURPRISE, SurpriseRow, TOLD, ToldRow, run_all};
use tidegate_sim::profiles::{Figures, Knowledge, Profile, Surprise, Trial, catalog, surprises, vertex};
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
    /// Rules of admission where output is charged as it is generated.
    Output(Generated),
    /// Who goes next: orders, shares, promises, tiers and costs.
    Order(Ordered),
}

#[derive(Debug, Arguments)]
struct Ordered {
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Minutes of the comparison of orders under overload; the other tables last in proportion.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Only this table: costs, mixture, shares, promise, greedy or tiers.
    #[arg(long)]
    only: Option<String>,
}

#[derive(Debug, Arguments)]
struct Generated {
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Minutes of each world, after ten that are not measured.
    #[arg(long, default_value_t = 240)]
    minutes: u64,
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
        Some(Table::Output(args)) => tidegate_sim::output::print_table(args.seed, args.minutes),
        Some(Table::Order(args)) => {
            tidegate_sim::order::print_tables(args.seed, args.minutes, args.only.as_deref());
        }
    }
}

fn profiles(args: &Profiles) {
    let shared = vertex();
    let profiles = catalog();
    let chosen = |profile: &&Profile| profile.name.starts_with(&args.only);
    let told: Vec<_> = profiles
        .iter()
        .filter(chosen)
        .map(|profile| (profile, Trial::told(args.seed, args.minutes)))
        .collect();
    println!("Limits told\n{TOLD}");
    for ((profile, _), figures) in told.iter().zip(&run_all(&told)) {
        println!("{}", ToldRow { profile, figures });
        args.show(figures);
    }
    for (knowledge, title) in [
        (Knowledge::Unknown, "Limits not told"),
        (Knowledge::Doubled, "Limits told twice as high"),
    ] {
        let trial = |profile| {
            let trial = Trial {
                knowledge,
                ..Trial::told(args.seed, SHORT)
            };
            (profile, trial)
        };
        let shared = (knowledge == Knowledge::Unknown).then_some(&shared);
        let trials: Vec<_> = profiles.iter().chain(shared).filter(chosen).map(trial).collect();
        println!("\n{title}\n{LEARNED}");
        for ((profile, _), figures) in trials.iter().zip(&run_all(&trials)) {
            let name = profile.name;
            println!("{}", LearnedRow { name, figures });
            args.show(figures);
        }
    }
    let surprises = surprises();
    let surprises: Vec<_> = surprises
        .iter()
        .filter(|surprise| surprise.name.starts_with(&args.only))
        .collect();
    let trial = |surprise: &&'_ Surprise| Trial {
        changes: surprise.changes.clone(),
        ..Trial::told(args.seed, LONG)
    };
    let trials: Vec<_> = surprises
        .iter()
        .map(|surprise| (&surprise.profile, trial(surprise)))
        .collect();
    println!("\nLimits hidden or moved\n{SURPRISE}");
    for (surprise, figures) in surprises.iter().zip(&run_all(&trials)) {
        let name = surprise.name;
        println!("{}", SurpriseRow { name, figures });
        args.show(figures);
    }
}

/// Minutes of a trial in which limits are learned, and of one with surprises.
const SHORT: u64 = 60;
const LONG: u64 = 120;

impl Profiles {
    fn show(&self, figures: &Figures) {
        if self.believed {
            believed(figures);
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
