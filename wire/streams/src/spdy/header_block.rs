//! Name and value pairs as SPDY/3 compresses them: one zlib stream for each direction of a connection, primed with a
//! dictionary, each block ended by a sync flush.

use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Most bytes of one block after inflation: what a bomb may grow to.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const PAIRS_MAX: u32 = 256;

/// Lower-case names and their values, in the order they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    pairs: Vec<(String, String)>,
}

impl Headers {
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| (name.to_ascii_lowercase(), (*value).to_owned());
        Self { pairs: pairs.iter().map(own).collect() }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, it)| it.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderBlockError {
    #[error("it does not inflate: {0}")]
    Zlib(String),
    #[error("it inflates to more than {BLOCK_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it holds {0} pairs, at most {PAIRS_MAX} are taken")]
    TooMany(u32),
    #[error("it ends in the middle of a pair")]
    Short,
    #[error("a name or value is no UTF-8")]
    Text,
}

/// The words of SPDY/3's dictionary that stand behind their length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// The rest of it.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        let word = word.replace('_', " ");
        out.put_u32(u32::try_from(word.len()).expect("words are short"));
        out.put_slice(word.as_bytes());
    }
    out.put_slice(TAIL.as_bytes());
    out
});

pub(super) struct Compressor {
    zlib: Compress,
}

impl Compressor {
    pub fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&DICTIONARY).expect("a fresh zlib stream takes a dictionary");
        Self { zlib }
    }

    pub fn compress(&mut self, headers: &Headers) -> Bytes {
        let plain = plain(headers);
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.zlib.total_in();
        loop {
            let taken = usize::try_from(self.zlib.total_in() - start).expect("it fits in memory");
            self.zlib
                .compress_vec(&plain[taken..], &mut out, FlushCompress::Sync)
                .expect("compressing into memory does not fail");
            let all_taken = self.zlib.total_in() - start == plain.len() as u64;
            if all_taken && out.len() < out.capacity() {
                return Bytes::from(out);
            }
            out.reserve(256);
        }
    }
}

fn plain(headers: &Headers) -> BytesMut {
    let mut out = BytesMut::new();
    let len = |it: usize| u32::try_from(it).expect("our own headers are short");
    out.put_u32(len(headers.pairs.len()));
    for text in headers.pairs.iter().flat_map(|(name, value)| [name, value]) {
        out.put_u32(len(text.len()));
        out.put_slice(text.as_bytes());
    }
    out
}

pub(super) struct Decompressor {
    zlib: Decompress,
}

impl Decompressor {
    pub fn new() -> Self {
        Self { zlib: Decompress::new(true) }
    }

    pub fn decompress(&mut self, block: &[u8]) -> Result<Headers, HeaderBlockError> {
        let mut out = Vec::with_capacity(4096);
        let start = self.zlib.total_in();
        loop {
            let taken = usize::try_from(self.zlib.total_in() - start).unwrap_or(usize::MAX);
            let rest = block.get(taken..).unwrap_or_default();
            let before = (self.zlib.total_in(), out.len());
            let result = self.zlib.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            match result {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&DICTIONARY).map_err(zlib_error)?;
                    continue;
                }
                Err(error) => return Err(zlib_error(error)),
            }
            if out.len() > BLOCK_BYTES_MAX {
                return Err(HeaderBlockError::TooLarge);
            }
            let consumed = self.zlib.total_in() - start == block.len() as u64;
            if consumed && out.len() < out.capacity() {
                break;
            }
            if out.len() == out.capacity() {
                out.reserve(4096);
            } else if (self.zlib.total_in(), out.len()) == before {
                return Err(HeaderBlockError::Zlib("no progress".to_owned()));
            }
        }
        parse(Bytes::from(out))
    }
}

fn zlib_error(error: flate2::DecompressError) -> HeaderBlockError {
    HeaderBlockError::Zlib(error.to_string())
}

fn parse(mut block: Bytes) -> Result<Headers, HeaderBlockError> {
    let number = |block: &mut Bytes| match block.len() {
        0..4 => Err(HeaderBlockError::Short),
        _ => Ok(block.get_u32()),
    };
    let n_pairs = number(&mut block)?;
    if n_pairs > PAIRS_MAX {
        return Err(HeaderBlockError::TooMany(n_pairs));
    }
    let text = |block: &mut Bytes| {
        let len = number(block)? as usize;
        if len > block.len() {
            return Err(HeaderBlockError::Short);
        }
        String::from_utf8(block.split_to(len).to_vec()).map_err(|_| HeaderBlockError::Text)
    };
    let mut pairs = Vec::new();
    for _ in 0..n_pairs {
        let name = text(&mut block)?;
        pairs.push((name, text(&mut block)?));
    }
    Ok(Headers { pairs })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_spdys() {
        // The draft's dictionary has 1,423 bytes and this Adler-32, which every zlib header of a peer names.
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(DICTIONARY.len(), 1423);
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_one_connection_share_one_zlib_stream() {
        let (mut deflate, mut inflate) = (Compressor::new(), Decompressor::new());
        for headers in [
            Headers::new(&[("streamType", "stdin"), ("port", "80")]),
            Headers::default(),
            Headers::new(&[("streamType", &"x".repeat(20_000))]),
            Headers::new(&[("streamtype", "error")]),
        ] {
            let block = deflate.compress(&headers);
            assert_eq!(inflate.decompress(&block), Ok(headers));
        }
    }

    #[test]
    fn a_block_that_inflates_without_end_is_refused() {
        let big = Headers::new(&[("a", &"0".repeat(10 << 20))]);
        let block = Compressor::new().compress(&big);
        assert!(block.len() < 64 * 1024);
        assert_eq!(Decompressor::new().decompress(&block), Err(HeaderBlockError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_block_makes_it_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Decompressor::new().decompress(&block);
            let _ = parse(Bytes::from(block));
        }
    }
}
