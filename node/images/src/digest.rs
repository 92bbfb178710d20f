//! `sha256:…`, and hashing while bytes pass.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::ImageError;

/// The name of content: `sha256:` and 64 lower-case hexadecimal digits. Safe as part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::digest(bytes).as_slice())
    }

    fn from_hash(hash: &[u8]) -> Self {
        let hex: String = hash.iter().map(|it| format!("{it:02x}")).collect();
        Self(format!("sha256:{hex}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl FromStr for Digest {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let is_hex = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(is_hex) => Ok(Self(text.to_owned())),
            _ => Err(ImageError::BadDigest { text: text.chars().take(100).collect() }),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashes and counts what passes through it, in either direction.
pub struct Hashing<T> {
    inner: T,
    hash: Sha256,
    n_bytes: u64,
}

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), n_bytes: 0 }
    }

    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    pub fn finish(self) -> (Digest, u64, T) {
        (Digest::from_hash(self.hash.finalize().as_slice()), self.n_bytes, self.inner)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.n_bytes += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.passed(&out[..n]);
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.passed(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().hex(), "0a".repeat(32));
        let bad = [
            String::new(),
            "sha256:".to_owned(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:../{}", "0a".repeat(31)),
            format!("sha512:{}", "0a".repeat(32)),
        ];
        for text in bad {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_hashed_while_they_are_read_and_written() {
        let mut reader = Hashing::new(&b"hello"[..]);
        let mut writer = Hashing::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        let (read, n_bytes, _) = reader.finish();
        assert_eq!((read.clone(), n_bytes), (Digest::of(b"hello"), 5));
        assert_eq!(writer.finish().0, read);
    }
}
