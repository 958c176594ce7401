//! The bucket that refills: `amount / window` a microsecond, up to a capacity.

/// A continuously refilling bucket in exact integers.
///
/// The level is kept in units × window-microseconds, so that a refill of any length is exact: a bucket of 500 a minute
/// gains `500 × elapsed µs`, and one unit is 60,000,000 of them.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Units that refill in one window.
    amount: u64,
    /// The window in microseconds.
    window: u64,
    /// The largest level, in units.
    capacity: u64,
    /// The level × window; negative after an overdraft.
    level: i128,
    updated: u64,
    /// Since when it has been full, while it is.
    full_since: u64,
}

impl Bucket {
    /// Makes a full bucket.
    pub(crate) fn full(now: u64, amount: u64, window: u64, capacity: u64) -> Self {
        let window = window.max(1);
        let level = i128::from(capacity) * i128::from(window);
        Self {
            amount: amount.max(1),
            window,
            capacity,
            level,
            updated: now,
            full_since: now,
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, now: u64) {
        if now > self.updated {
            if self.level < self.ceiling() {
                self.full_since = self.ready_at(self.capacity);
            }
            let gained = i128::from(self.amount) * i128::from(now - self.updated);
            self.level = (self.level + gained).min(self.ceiling());
            self.updated = now;
        }
        self.invariants();
    }

    /// Changes refill and capacity, keeping what is missing from it.
    pub(crate) fn resize(&mut self, amount: u64, capacity: u64) {
        self.amount = amount.max(1);
        // What was taken stays taken, also from a bucket that turns out to be smaller.
        let cut = self.capacity.saturating_sub(capacity);
        let level = self.level - self.scaled(cut);
        self.capacity = capacity;
        self.level = level.clamp(self.floor(), self.ceiling());
    }

    /// Takes `amount`, whatever the level is. An overdraft of more than one window's inflow is not remembered, so that no
    /// number that anybody reports can block the bucket for good.
    pub(crate) fn take(&mut self, amount: u64) {
        self.level = (self.level - self.scaled(amount)).max(self.floor());
    }

    /// Returns how much could be added to all levels since a moment without any of it exceeding the capacity, given the
    /// charges since then, latest first, each with the time since it was last possible.
    pub(crate) fn spare(&self, charges: impl Iterator<Item = (u64, u64)>) -> u64 {
        let mut taken = 0_i128;
        let mut highest = self.level;
        for (ago, amount) in charges {
            taken += self.scaled(amount);
            let before = self.level + taken - i128::from(self.amount) * i128::from(ago);
            highest = highest.max(before);
        }
        let spare = (self.ceiling() - highest)
            .max(0)
            .div_euclid(i128::from(self.window));
        u64::try_from(spare).unwrap_or(u64::MAX)
    }

    /// Gives `amount` back.
    pub(crate) fn give(&mut self, amount: u64) {
        self.level = (self.level + self.scaled(amount)).min(self.ceiling());
    }

    /// Returns the highest level that is possible now, in units, given the charges since a moment, latest first, each with
    /// the time that has surely passed since: what flowed in while it was full is lost.
    pub(crate) fn reach(&self, charges: impl Iterator<Item = (u64, u64)>) -> i128 {
        let mut taken = 0_i128;
        let mut reach = self.ceiling();
        for (ago, amount) in charges {
            taken += self.scaled(amount);
            let full = self.ceiling() + i128::from(self.amount) * i128::from(ago);
            reach = reach.min(full - taken);
        }
        reach.div_euclid(i128::from(self.window))
    }

    /// Returns the level in whole units, rounded down.
    pub(crate) fn level(&self) -> i64 {
        i64::try_from(self.level.div_euclid(i128::from(self.window))).unwrap_or(i64::MIN)
    }

    /// Sets the level in units.
    pub(crate) fn set_level(&mut self, units: i128) {
        let level = units.saturating_mul(i128::from(self.window));
        self.level = level.clamp(self.floor(), self.ceiling());
    }

    /// Returns when `amount` will be there (also where it exceeds the capacity: the time that as much takes to flow).
    pub(crate) fn ready_at(&self, amount: u64) -> u64 {
        let missing = self.scaled(amount) - self.level;
        if missing <= 0 {
            return self.updated;
        }
        let wait = missing.div_euclid(i128::from(self.amount))
            + i128::from(missing.rem_euclid(i128::from(self.amount)) != 0);
        self.updated
            .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Returns since when it is full, or when it will be if nothing is taken.
    pub(crate) fn full_at(&self) -> u64 {
        if self.level < self.ceiling() {
            self.ready_at(self.capacity)
        } else {
            self.full_since
        }
    }

    /// Returns what flows in during `micros`, in whole units rounded down.
    pub(crate) fn inflow(&self, micros: u64) -> u64 {
        let units = u128::from(self.amount) * u128::from(micros) / u128::from(self.window);
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    pub(crate) const fn capacity(&self) -> u64 {
        self.capacity
    }

    fn scaled(&self, units: u64) -> i128 {
        i128::from(units) * i128::from(self.window)
    }

    fn floor(&self) -> i128 {
        -self.scaled(self.amount.max(self.capacity))
    }

    fn ceiling(&self) -> i128 {
        self.scaled(self.capacity)
    }

    fn invariants(&self) {
        debug_assert!(
            self.level <= self.ceiling(),
            "a bucket never holds more than its capacity"
        );
    }
}
