//! How long requests take: when will somebody be through who has to wait until others have ended?

/// The usual time from permit to end, in microseconds: 0 while nobody has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lasting(u64);

impl Lasting {
    /// Takes note of a request that has ended: it counts for an eighth.
    pub(crate) fn note(&mut self, took: u64) {
        self.0 = match self.0 {
            0 => took,
            usual => usual - usual / 8 + took / 8,
        };
    }

    /// Returns in what time somebody goes behind `ahead` others where at most `most` run at once and all places are taken, in
    /// microseconds: those who run end one after another.
    pub(crate) fn turn(self, ahead: u64, most: u64) -> u64 {
        let ends = u128::from(ahead) + 1;
        let wait = ends * u128::from(self.0) / u128::from(most.max(1));
        u64::try_from(wait).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Lasting;

    #[test]
    fn a_place_comes_free_as_often_as_somebody_ends() {
        let mut lasting = Lasting::default();
        assert_eq!(lasting.turn(10, 4), 0);
        lasting.note(8_000);
        assert_eq!(lasting.turn(0, 4), 2_000);
        assert_eq!(lasting.turn(7, 4), 16_000);
        lasting.note(16_000);
        assert_eq!(lasting.turn(0, 1), 9_000);
    }
}
