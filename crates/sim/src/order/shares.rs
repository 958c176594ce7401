//! Tenants that always have more to ask for: what each gets, next to its weight.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate_core::Tokens;

use super::course::{Answer, Course, MINUTE, SECOND, START, Turn, Who};
use super::figures::seconds;
use super::quota::{Call, Part, Quota, Tenant};

/// How many requests each keeps waiting.
const BACKLOG: u64 = 30;
/// Minutes before the beginning in which somebody else, who is then gone, keeps the quota evenly full: a beginning with an
/// empty window would show a burst, and with it what the window gives back in a lump, rather than the order.
const BEFORE: u64 = 12;
/// Their name.
const FILLER: &str = "before";

/// One of those who share the quota.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its weight.
    pub weight: u32,
    /// Tokens of its requests: the smallest and the largest, spread evenly over their logarithms.
    pub sizes: (u64, u64),
    /// The minutes in which it keeps requests waiting.
    pub active: Vec<Range<u64>>,
}

/// Who shares what, and when is looked at it.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The seed of the sizes, which are the same for everybody.
    pub seed: u64,
    /// What is shared.
    pub quota: Quota,
    /// Those who share it.
    pub members: Vec<Member>,
    /// The minutes that are measured; everybody who is active in them is so from their beginning to their end.
    pub measured: Range<u64>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Figures {
    /// What each got of all that was given, and what its weight would give it.
    pub shares: Vec<Share>,
    /// The largest difference of service over weight of any two at any moment, over the largest cost over weight.
    pub apart: f64,
    /// The longest time until one of them got something, in seconds since measuring began.
    pub first: f64,
    /// What was used of the quota's requests and tokens, of what the rolling window can carry.
    pub used: [Option<f64>; 2],
    /// The largest cost of one request over all that was given: no share can be exact to less.
    pub grain: f64,
}

/// What one got.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Of all that was given.
    pub got: f64,
    /// What its weight would give it.
    pub due: f64,
    /// When it first got something, in seconds since measuring began.
    pub first: Option<f64>,
}

impl Share {
    /// Returns how far it is from what its weight would give it, relative to that.
    pub fn error(&self) -> f64 {
        self.got / self.due - 1.0
    }
}

impl Figures {
    /// Returns the largest error of anybody's share, relative to that share.
    pub fn error(&self) -> f64 {
        self.shares
            .iter()
            .map(|share| share.error().abs())
            .fold(0.0, f64::max)
    }
}

/// The head of the columns of [`Figures`].
pub const COLUMNS: &str = "largest error %   apart   first s    used: requests  tokens   last: got %   due %";

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [requests, tokens] = self
            .used
            .map(|used| used.map_or_else(|| "–".to_owned(), |used| format!("{used:.3}")));
        write!(
            f,
            "{:>15.2} {:>7.2} {:>9.1} {requests:>17} {tokens:>7}",
            self.error() * 100.0,
            self.apart,
            self.first,
        )?;
        if let Some(last) = self.shares.last() {
            write!(f, " {:>13.2} {:>7.2}", last.got * 100.0, last.due * 100.0)?;
        }
        Ok(())
    }
}

impl Scene {
    /// Ten tenants of the weights 1 to 10 and requests of 100 to 20,000 tokens, for so many minutes.
    pub fn ten(seed: u64, minutes: u64) -> Self {
        let member = |weight| Member {
            weight,
            sizes: (100, 20_000),
            active: std::iter::once(0..minutes).collect(),
        };
        Self {
            seed,
            quota: Quota::both(100_000, 1_000_000),
            members: (1..=10).map(member).collect(),
            measured: 0..minutes,
        }
    }

    /// The same ten, but every other one sends requests so small that the limit on requests binds them.
    pub fn two_limits(seed: u64, minutes: u64) -> Self {
        let mut scene = Self::ten(seed, minutes);
        scene.quota = Quota::both(600, 1_000_000);
        for member in scene.members.iter_mut().step_by(2) {
            member.sizes = (100, 1_000);
        }
        for member in scene.members.iter_mut().skip(1).step_by(2) {
            member.sizes = (2_500, 10_000);
        }
        scene
    }

    /// The same ten, and from the tenth minute on one of weight 5 that was never there before.
    pub fn newcomer(seed: u64, minutes: u64) -> Self {
        let mut scene = Self::ten(seed, minutes);
        scene.members.push(Member {
            weight: 5,
            sizes: (100, 20_000),
            active: std::iter::once(10..minutes).collect(),
        });
        scene.measured = 10..minutes;
        scene
    }

    /// The same ten, and one of weight 5 that asks in the first minute and then only from the twentieth on.
    pub fn idle(seed: u64) -> Self {
        let mut scene = Self::ten(seed, 22);
        scene.members.push(Member {
            weight: 5,
            sizes: (100, 20_000),
            active: vec![0..1, 20..22],
        });
        scene.measured = 20..22;
        scene
    }

    /// Plays it.
    pub fn run(&self, who: Who) -> Figures {
        Play::new(self, who).run()
    }
}

/// What is to happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Somebody else's request before the beginning.
    Fill,
    /// A member begins to keep requests waiting.
    Begin(usize),
    /// A member ends.
    End(usize),
    /// From here on is measured.
    Measure,
}

/// A scene on its way.
struct Play<'a> {
    scene: &'a Scene,
    course: Course<Event>,
    rngs: Vec<Pcg64Mcg>,
    /// Who asked, and for how many tokens, by the number of the request.
    asked: Vec<(usize, u64)>,
    active: Vec<bool>,
    waiting: Vec<u64>,
    service: Vec<Part>,
    first: Vec<Option<u64>>,
    began: Option<u64>,
    given: [u64; 2],
    apart: Part,
    largest: Part,
}

impl<'a> Play<'a> {
    fn new(scene: &'a Scene, who: Who) -> Self {
        let members = scene.members.iter().enumerate();
        let mut tenants: Vec<Tenant> = members
            .map(|(index, member)| Tenant::new(format!("tenant {index}"), member.weight))
            .collect();
        tenants.push(Tenant {
            is_listed: false,
            ..Tenant::new(FILLER, 1)
        });
        let count = scene.members.len();
        let streams = (0..count as u64).map(|index| scene.seed.wrapping_mul(1_000).wrapping_add(index));
        Self {
            course: Course::new(who, scene.quota, &tenants, scene.seed),
            rngs: streams.map(Pcg64Mcg::seed_from_u64).collect(),
            scene,
            asked: Vec::new(),
            active: vec![false; count],
            waiting: vec![0; count],
            service: vec![Part::default(); count],
            first: vec![None; count],
            began: None,
            given: [0; 2],
            apart: Part::default(),
            largest: Part::default(),
        }
    }

    fn run(mut self) -> Figures {
        let zero = START + BEFORE * MINUTE;
        for second in 0..BEFORE * 60 {
            self.course.plan(START + second * SECOND, Event::Fill);
        }
        for (index, member) in self.scene.members.iter().enumerate() {
            for active in &member.active {
                self.course
                    .plan(zero + active.start * MINUTE, Event::Begin(index));
                self.course.plan(zero + active.end * MINUTE, Event::End(index));
            }
        }
        self.course
            .plan(zero + self.scene.measured.start * MINUTE, Event::Measure);
        let end = zero + self.scene.measured.end * MINUTE;
        while let Some(turn) = self.course.turn(end) {
            match turn {
                Turn::Due(Event::Fill) => self.fill(),
                Turn::Due(Event::Begin(index)) => {
                    self.active[index] = true;
                    self.refill(index);
                }
                Turn::Due(Event::End(index)) => self.active[index] = false,
                Turn::Due(Event::Measure) => self.measure(),
                Turn::Start(id) => {
                    if let Some((index, tokens)) = self.asked.get(usize::try_from(id).unwrap_or(usize::MAX)) {
                        let (index, tokens) = (*index, *tokens);
                        self.waiting[index] -= 1;
                        self.serve(index, tokens);
                        self.refill(index);
                    }
                }
                Turn::Refuse(..) => {}
            }
        }
        self.figures(end)
    }

    /// Takes a second's part of what the rolling window can carry.
    fn fill(&mut self) {
        let tokens = self.scene.quota.tokens.unwrap_or(0) * 100 / 6_105;
        let filler = self.scene.members.len();
        // Its number is nobody's, so nothing is asked again when it starts.
        self.course.submit(u64::MAX, Call::patient(filler, tokens));
    }

    /// Lets a member ask until it has as many waiting as it keeps.
    fn refill(&mut self, index: usize) {
        while self.active[index] && self.waiting[index] < BACKLOG {
            let tokens = self.size(index);
            let id = self.asked.len() as u64;
            self.asked.push((index, tokens));
            match self.course.submit(id, Call::patient(index, tokens)) {
                Answer::Start => self.serve(index, tokens),
                Answer::Wait(_) => self.waiting[index] += 1,
                Answer::Refuse(_) => self.active[index] = false,
            }
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "thousands of tokens"
    )]
    fn size(&mut self, index: usize) -> u64 {
        let (least, most) = self.scene.members[index].sizes;
        let (least, most) = ((least as f64).ln(), (most as f64).ln());
        self.rngs[index].random_range(least..most).exp() as u64
    }

    fn serve(&mut self, index: usize, tokens: u64) {
        if self.began.is_none() {
            return;
        }
        let cost = self.scene.quota.cost(Tokens::new(tokens));
        let weight = weight(&self.scene.members[index]);
        self.service[index].0 += cost.0;
        self.largest = self.largest.max(cost.over(weight));
        self.first[index].get_or_insert(self.course.now);
        self.given[0] += 1;
        self.given[1] += tokens;
        let services = self.members().map(|index| self.normalized(index));
        let most = services.max().unwrap_or_default();
        let least = self.members().map(|index| self.normalized(index)).min();
        let apart = Part(most.0 - least.unwrap_or_default().0);
        self.apart = self.apart.max(apart);
    }

    fn measure(&mut self) {
        self.began = Some(self.course.now);
    }

    /// Returns those who are there now.
    fn members(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.active.len()).filter(|index| self.active[*index])
    }

    fn normalized(&self, index: usize) -> Part {
        self.service[index].over(weight(&self.scene.members[index]))
    }

    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    fn figures(&self, end: u64) -> Figures {
        let began = self.began.unwrap_or(end);
        let members: Vec<usize> = self.members().collect();
        let weights: u32 = members
            .iter()
            .map(|index| self.scene.members[*index].weight)
            .sum();
        let all: f64 = members.iter().map(|index| self.service[*index].ratio()).sum();
        let share = |index: &usize| Share {
            got: self.service[*index].ratio() / all,
            due: f64::from(self.scene.members[*index].weight) / f64::from(weights),
            first: self.first[*index].map(|at| seconds(at - began)),
        };
        let shares: Vec<Share> = members.iter().map(share).collect();
        let windows = seconds(end - began) / super::window::LIFE_MEAN_S;
        let limits = [self.scene.quota.requests, self.scene.quota.tokens];
        let used = [0, 1].map(|dimension| {
            let limit = limits[dimension]?;
            Some(self.given[dimension] as f64 / (limit as f64 * windows))
        });
        Figures {
            apart: self.apart.ratio() / self.largest.ratio(),
            first: shares
                .iter()
                .map(|share| share.first.unwrap_or(f64::INFINITY))
                .fold(0.0, f64::max),
            used,
            grain: self.largest.ratio() / all,
            shares,
        }
    }
}

fn weight(member: &Member) -> NonZeroU32 {
    NonZeroU32::new(member.weight).unwrap_or(NonZeroU32::MIN)
}
