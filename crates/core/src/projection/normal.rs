//! The quantile of the normal distribution, in integers.

/// Chances in a million, and how many thousandths of a standard deviation are exceeded that seldom.
const TABLE: [(u32, u64); 19] = [
    (1, 4_754),
    (2, 4_612),
    (5, 4_418),
    (10, 4_265),
    (20, 4_108),
    (50, 3_891),
    (100, 3_720),
    (200, 3_541),
    (500, 3_291),
    (1_000, 3_091),
    (2_000, 2_879),
    (5_000, 2_576),
    (10_000, 2_327),
    (20_000, 2_054),
    (50_000, 1_645),
    (100_000, 1_282),
    (200_000, 842),
    (350_000, 386),
    (500_000, 0),
];

/// Returns how many standard deviations are exceeded with this chance, in thousandths. Between the entries of the table
/// the straight line is above the curve, so never too few. No chance at all is taken to be one in a million.
pub(crate) fn deviations(per_million: u32) -> u64 {
    let mut below = TABLE[0];
    for entry in TABLE {
        if per_million <= entry.0 {
            let span = u64::from(entry.0 - below.0).max(1);
            let past = u64::from(per_million.max(1) - below.0);
            return below.1 - (below.1 - entry.1) * past / span;
        }
        below = entry;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::deviations;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        let table = [
            (0, 4_753),
            (1, 4_753),
            (10, 4_265),
            (1_000, 3_090),
            (10_000, 2_326),
            (25_000, 1_960),
            (100_000, 1_282),
            (250_000, 674),
            (400_000, 253),
            (500_000, 0),
            (u32::MAX, 0),
        ];
        for (per_million, exact) in table {
            let found = deviations(per_million);
            assert!(
                found >= exact && found <= exact + exact / 20 + 15,
                "{per_million}: {found}, not {exact}"
            );
        }
    }
}
