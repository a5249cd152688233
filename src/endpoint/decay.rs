//! How fast the past fades: `e^-x`, exact where it is written, from a table where many are read.

/// The decay over `age` stamps with time constant `tau` seconds.
#[inline]
pub(super) fn exact(age: u32, tau: f32) -> f32 {
    (-(age as f32) * (STAMP / tau)).exp()
}

/// A stamp, in seconds.
const STAMP: f32 = (1 << 17) as f32 * 1e-9;

/// As [`exact`] with a time constant of 2 s, in steps of 2^25 ns (33.5 ms), and 0 from 17 s on. The first step
/// is 1, which would drop dense samples: for reading only.
#[inline]
pub(super) fn two_seconds(age: u32) -> f32 {
    // No branch: a scan of many endpoints would guess for each whether it is old.
    TABLE[((age >> 8) as usize).min(STEPS)]
}

/// As [`two_seconds`], with a time constant of 1 s.
#[inline]
pub(super) fn one_second(age: u32) -> f32 {
    two_seconds(age.saturating_mul(2))
}

const STEPS: usize = 512;

/// `e^(-i * 2^25 ns / 2 s)`, and 0 at the end.
static TABLE: [f32; STEPS + 1] = {
    // e^-0.016777216, for there is no `exp` in constants.
    const STEP: f64 = 0.983_362_737_717_402_2;
    let mut table = [0.0; STEPS + 1];
    let (mut i, mut value) = (0, 1.0_f64);
    while i < STEPS {
        table[i] = value as f32;
        value *= STEP;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_exponential_at_the_start_of_each_step() {
        for step in 0..STEPS as u32 {
            let (table, exact) = (two_seconds(step << 8), exact(step << 8, 2.0));
            assert!((table - exact).abs() < 1e-6, "step {step}: {table} {exact}");
            assert_eq!(two_seconds((step << 8) + 255), table);
        }
        assert_eq!(two_seconds(512 << 8), 0.0);
        assert_eq!(two_seconds(u32::MAX), 0.0);
    }

    #[test]
    fn one_second_fades_twice_as_fast() {
        for age in [0, 300, 7629, 20_000, 70_000, u32::MAX] {
            let (table, exact) = (one_second(age), exact(age, 1.0));
            assert!((table - exact).abs() < 0.02, "{age}: {table} {exact}");
        }
    }
}
