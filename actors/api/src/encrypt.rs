//! Encryption at rest: which kinds are stored as ciphertext, and with which key.
//!
//! AES-256-GCM through ring. The store's key is the associated data, so that one Secret's ciphertext can't be put in
//! another's place; the nonce is random from `Env` and stands before the ciphertext. A value's flags name its
//! key: the low byte is the key's id, 0 means plain. Rotation: the first key writes, all read; rewriting every
//! object (any write does) moves it to the first key. Invariant: plain bytes of an encrypted kind never reach `propose`.

use bytes::Bytes;
use kactor_protocol::store::{Key, OBJECT_BYTES_MAX};
use kactor_runtime::env::Env;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// The byte of `Value::flags` that names the key.
const KEY_ID_MASK: u32 = 0xff;
/// A 256-bit key and the id that the stored values name it by.
#[derive(Clone)]
pub struct EncryptionKey {
    /// 1 to 255; never given to another key.
    pub id: u8,
    pub secret: [u8; 32],
}

/// Which keys there are. The first encrypts.
pub struct Cipher {
    keys: Vec<(u8, LessSafeKey)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    #[error("encryption keys need ids from 1 to 255, each once; {id} is wrong")]
    BadId { id: u8 },
    #[error("no encryption key was given; Secrets are never stored in the clear")]
    NoKey,
    #[error(
        "{key} is encrypted with key {id}, which this host does not have; restore it into the key file"
    )]
    UnknownKey { key: Key, id: u8 },
    #[error(
        "{key} cannot be decrypted with key {id}: it is damaged or was moved from another name"
    )]
    Damaged { key: Key, id: u8 },
    #[error("{key} has {len_bytes} bytes; at most {OBJECT_BYTES_MAX} are stored")]
    TooLarge { key: Key, len_bytes: usize },
}

impl Cipher {
    pub fn new(keys: &[EncryptionKey]) -> Result<Self, CipherError> {
        let mut taken: Vec<(u8, LessSafeKey)> = Vec::new();
        for EncryptionKey { id, secret } in keys {
            if *id == 0 || taken.iter().any(|(other, _)| other == id) {
                return Err(CipherError::BadId { id: *id });
            }
            let key =
                UnboundKey::new(&AES_256_GCM, secret).expect("32 bytes are the length of this key");
            taken.push((*id, LessSafeKey::new(key)));
        }
        if taken.is_empty() {
            return Err(CipherError::NoKey);
        }
        Ok(Self { keys: taken })
    }

    /// The bytes to store and their flags.
    pub fn seal(&self, env: &Env, key: &Key, plain: &[u8]) -> Result<(Bytes, u32), CipherError> {
        let (id, cipher) = self.keys.first().expect("new() refused an empty list");
        let mut nonce = [0; NONCE_LEN];
        env.entropy.fill(&mut nonce);
        let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        out.extend_from_slice(plain);
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(key.as_str()),
                &mut out,
            )
            .map_err(|_| CipherError::TooLarge { key: key.clone(), len_bytes: plain.len() })?;
        out.extend_from_slice(tag.as_ref());
        out.splice(0..0, nonce);
        Ok((Bytes::from(out), u32::from(*id)))
    }

    /// The plain bytes; values with no key id in their flags are plain already.
    pub fn open(&self, key: &Key, flags: u32, body: &Bytes) -> Result<Bytes, CipherError> {
        let id = (flags & KEY_ID_MASK) as u8;
        if id == 0 {
            return Ok(body.clone());
        }
        let unknown = || CipherError::UnknownKey { key: key.clone(), id };
        let damaged = || CipherError::Damaged { key: key.clone(), id };
        let (_, cipher) = self.keys.iter().find(|(it, _)| *it == id).ok_or_else(unknown)?;
        let (nonce, sealed) = body.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut plain = sealed.to_vec();
        let len = cipher
            .open_in_place(nonce, Aad::from(key.as_str()), &mut plain)
            .map_err(|_| damaged())?
            .len();
        plain.truncate(len);
        Ok(Bytes::from(plain))
    }
}

impl EncryptionKey {
    /// A new key from the host's randomness.
    pub fn generate(env: &Env, id: u8) -> Self {
        let mut secret = [0; 32];
        env.entropy.fill(&mut secret);
        Self { id, secret }
    }
}

/// Never prints the key.
impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("", "secrets", "default", name).unwrap()
    }

    #[test]
    fn a_rotated_key_still_opens_and_the_first_one_seals() {
        let env = Env::machine();
        let (old, new) = (EncryptionKey::generate(&env, 1), EncryptionKey::generate(&env, 2));
        let before = Cipher::new(std::slice::from_ref(&old)).unwrap();
        let (body, flags) = before.seal(&env, &key("a"), b"plain").unwrap();
        let after = Cipher::new(&[new.clone(), old]).unwrap();
        assert_eq!(after.open(&key("a"), flags, &body).unwrap(), "plain");
        assert_eq!(after.seal(&env, &key("a"), b"plain").unwrap().1, 2);
        let lost = Cipher::new(&[new]).unwrap().open(&key("a"), flags, &body).unwrap_err();
        assert_eq!(lost, CipherError::UnknownKey { key: key("a"), id: 1 });
    }

    #[test]
    fn ciphertext_that_was_changed_or_moved_is_refused() {
        let env = Env::machine();
        let cipher = Cipher::new(&[EncryptionKey::generate(&env, 1)]).unwrap();
        let (body, flags) = cipher.seal(&env, &key("a"), b"plain").unwrap();
        let damaged = |name: &str, body: &Bytes| cipher.open(&key(name), flags, body).is_err();
        assert!(damaged("b", &body), "another object's place");
        for at in 0..body.len() {
            let mut changed = body.to_vec();
            changed[at] ^= 1;
            assert!(damaged("a", &changed.into()), "byte {at}");
        }
        assert!(damaged("a", &Bytes::from_static(b"short")));
    }

    #[test]
    fn keys_need_ids_of_their_own() {
        let env = Env::machine();
        let key = |id| EncryptionKey::generate(&env, id);
        assert_eq!(Cipher::new(&[]).err(), Some(CipherError::NoKey));
        assert_eq!(Cipher::new(&[key(0)]).err(), Some(CipherError::BadId { id: 0 }));
        assert_eq!(Cipher::new(&[key(3), key(3)]).err(), Some(CipherError::BadId { id: 3 }));
    }
}
