//! The fuzz target over random bytes and over damaged golden bytes: bounded, same cases on every run.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use kactor_protocol::fuzz::any_bytes;

/// SplitMix64: enough to draw cases from a fixed seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

#[test]
fn random_bytes_never_make_a_decoder_panic() {
    let mut draw = Draw(1);
    for _ in 0..20_000 {
        let len = draw.below(96);
        let bytes: Vec<u8> = (0..len).map(|_| draw.next() as u8).collect();
        any_bytes(&bytes);
    }
}

#[test]
fn damaged_golden_bytes_never_make_a_decoder_panic() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    let golden: Vec<Vec<u8>> = files.iter().map(|it| std::fs::read(it).unwrap()).collect();
    let mut draw = Draw(2);
    for _ in 0..20_000 {
        let mut bytes = golden[draw.below(golden.len())].clone();
        for _ in 0..=draw.below(3) {
            let at = draw.below(bytes.len());
            match draw.below(4) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << draw.below(8),
                1 if !bytes.is_empty() => bytes[at] = [0, 0xff, 0xfb, 0xfc, 0xfd][draw.below(5)],
                2 => bytes.truncate(at),
                _ => bytes.insert(at, draw.next() as u8),
            }
        }
        any_bytes(&bytes);
    }
}
