//! Values to bytes and back: the only file that names bincode.
//!
//! The format is bincode's standard one (little endian, variable-length integers), frozen by the golden files.
//! Both directions are bounded by `CODEC_BYTES_MAX`: writing stops there, and reading refuses a length above it
//! before anything is allocated. Decoding never panics (fuzz.rs) and takes all bytes or refuses.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest encoded value: a transaction with one object of the greatest size fits with room to spare.
pub const CODEC_BYTES_MAX: usize = 8 << 20;

const FORMAT: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<CODEC_BYTES_MAX>,
> = bincode::config::standard().with_limit::<CODEC_BYTES_MAX>();

/// Why a value has no bytes, or bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the encoded value is larger than {CODEC_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the value can't be encoded: {reason}")]
    Unencodable { reason: String },
    #[error("the bytes are no {what}: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("{n_bytes} bytes follow the {what}: the sender speaks another version of it")]
    Trailing { what: &'static str, n_bytes: usize },
}

/// Encodes `value`; an encoding above `CODEC_BYTES_MAX` is refused while it is written.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let mut out = Bounded { bytes: Vec::new(), overflowed: false };
    match bincode::serde::encode_into_std_write(value, &mut out, FORMAT) {
        Ok(_) => Ok(out.bytes.into()),
        Err(_) if out.overflowed => Err(CodecError::TooLarge),
        Err(error) => Err(CodecError::Unencodable { reason: error.to_string() }),
    }
}

/// Decodes one value that fills `bytes` to the last.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let what = std::any::type_name::<T>();
    if bytes.len() > CODEC_BYTES_MAX {
        return Err(CodecError::TooLarge);
    }
    let (value, n_read) = bincode::serde::decode_from_slice(bytes, FORMAT)
        .map_err(|error| CodecError::Malformed { what, reason: error.to_string() })?;
    match bytes.len() - n_read {
        0 => Ok(value),
        n_bytes => Err(CodecError::Trailing { what, n_bytes }),
    }
}

struct Bounded {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > CODEC_BYTES_MAX {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{CODEC_BYTES_MAX, CodecError, decode, encode};

    #[test]
    fn a_value_comes_back_and_leaves_no_byte_over() {
        let value = (7_u64, "web".to_owned(), Bytes::from_static(b"{}"), Some(-3_i64));
        let bytes = encode(&value).unwrap();
        assert_eq!(decode::<(u64, String, Bytes, Option<i64>)>(&bytes), Ok(value));

        let mut longer = bytes.to_vec();
        longer.push(0);
        let refused = decode::<(u64, String, Bytes, Option<i64>)>(&longer);
        assert!(matches!(refused, Err(CodecError::Trailing { n_bytes: 1, .. })), "{refused:?}");
    }

    #[test]
    fn byte_fields_cost_their_length_and_no_more() {
        let encoded = encode(&Bytes::from(vec![200; 1000])).unwrap();
        assert_eq!(encoded.len(), 1003, "a length of three bytes, then the bytes as they are");
    }

    #[test]
    fn nothing_is_encoded_above_the_limit() {
        let fits = Bytes::from(vec![0; CODEC_BYTES_MAX - 16]);
        assert!(encode(&fits).is_ok());
        assert_eq!(encode(&Bytes::from(vec![0; CODEC_BYTES_MAX])), Err(CodecError::TooLarge));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_it_is_allocated() {
        // 0xfd: a u64 follows. A reader that trusted it would ask for 2^60 bytes and abort.
        let hostile = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10];
        for refused in [
            decode::<Bytes>(&hostile).map(drop),
            decode::<String>(&hostile).map(drop),
            decode::<Vec<u64>>(&hostile).map(drop),
            decode::<Vec<String>>(&hostile).map(drop),
        ] {
            assert!(matches!(refused, Err(CodecError::Malformed { .. })), "{refused:?}");
        }
    }
}
