//! Random numbers that depend on (seed, trial number) and nothing else.
//!
//! A counter-based generator, Philox 4×32 with ten rounds: block `i` of trial `k` under seed `s` is a scrambling
//! of the counter `(i, k)` under the key `s`. There is no state to save, and streams of different trials cannot
//! overlap. So a resumed study draws what an uninterrupted one would have drawn.
//!
//! # Source
//! Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.

/// The random numbers of one trial.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    trial: u64,
    block: u64,
    /// The unused half of the last block.
    spare: Option<u64>,
}

impl Stream {
    /// The stream of a trial under a seed.
    pub fn new(seed: u64, trial: usize) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], trial: trial as u64, block: 0, spare: None }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let counter =
            [self.block as u32, (self.block >> 32) as u32, self.trial as u32, (self.trial >> 32) as u32];
        self.block += 1;
        let [a, b, c, d] = philox(counter, self.key).map(u64::from);
        self.spare = Some(c | d << 32);
        a | b << 32
    }

    /// A number in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number in `0..count`; 0 if `count` is 0. The bias, `count` / 2⁵³, does not matter here.
    pub fn index(&mut self, count: usize) -> usize {
        ((self.uniform() * count as f64) as usize).min(count.saturating_sub(1))
    }
}

/// One block: ten rounds of two 32-bit multiplications each.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let first = 0xD251_1F53_u64 * u64::from(counter[0]);
        let second = 0xCD9E_8D57_u64 * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_paper() {
        // The known answers that the authors publish for ten rounds (Random123, `kat_vectors`).
        let ones = u32::MAX;
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let key = [0xa409_3822, 0x299f_31d0];
        assert_eq!(philox(pi, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn numbers_are_spread_evenly_within_and_across_trials() {
        // 4,000 draws into 10 cells: χ² with 9 degrees of freedom exceeds 33.7 once in 10,000.
        let within: Vec<f64> = {
            let mut stream = Stream::new(1, 0);
            (0..4000).map(|_| stream.uniform()).collect()
        };
        let across: Vec<f64> = (0..4000).map(|trial| Stream::new(1, trial).uniform()).collect();
        for draws in [within, across] {
            let mut cells = [0.0_f64; 10];
            for draw in draws {
                cells[(draw * 10.0) as usize] += 1.0;
            }
            let chi = cells.iter().map(|it| (it - 400.0).powi(2) / 400.0).sum::<f64>();
            assert!(chi < 33.7, "{chi}");
        }
    }

    #[test]
    fn an_index_lies_below_its_count() {
        let mut stream = Stream::new(3, 4);
        assert!((0..1000).all(|_| stream.index(7) < 7));
        assert_eq!(stream.index(0), 0);
    }
}
