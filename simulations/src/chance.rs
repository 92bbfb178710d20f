//! Where all chance of a run comes from: named streams of one seed.
//!
//! SplitMix64 (Steele, Lea, Flood 2014), written out here so that no crate's update changes what a seed means. A stream per
//! name, so that a new consumer of chance does not move the draws of the others.

use std::sync::{Arc, Mutex, PoisonError};

use kactor_runtime::env::Entropy;

/// A stream of chance. Clones draw from the same stream.
#[derive(Debug, Clone)]
pub struct Chance {
    state: Arc<Mutex<u64>>,
}

impl Chance {
    /// The stream called `name` of `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a: only has to tell names apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { state: Arc::new(Mutex::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ hash)) }
    }

    pub fn draw(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..bound`; 0 when the bound is 0. (The modulo's bias is far below what a simulation can see.)
    pub fn below(&self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// True in `percent` of 100 draws.
    pub fn happens(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Entropy for Chance {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let chance = Chance::new(1, "host n1");
        let drawn = [chance.draw(), chance.draw()];
        assert_eq!(drawn, [Chance::new(1, "host n1").draw(), drawn[1]]);
        assert_eq!(drawn[0], FIRST_OF_SEED_1, "recorded seeds would replay something else");
    }

    const FIRST_OF_SEED_1: u64 = 10_913_638_126_405_636_308;

    #[test]
    fn streams_differ_by_name_and_by_seed() {
        let first = |seed, name| Chance::new(seed, name).draw();
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }
}
