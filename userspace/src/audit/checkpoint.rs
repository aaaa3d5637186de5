//! Pure: signed positions of a chain. A chain of hashes alone can be rewritten by whoever may
//! write the file; a checkpoint says, under a signature, that a journal was so long and had this
//! head. The key evolves: key i signs a checkpoint together with the public key i+1, and is then
//! destroyed. Who takes today's key can sign nothing that claims to be older.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::chain::{Hash, Head, Seq, hex, unhex};
use super::line::to_ascii_json;
use super::record::SCHEMA;
use super::timestamp::Timestamp;

const SIG_KEY: &[u8] = b",\"sig\":\"";
/// `,"sig":"` + 128 digits + `"}`
const SIG_TAIL: usize = 8 + 128 + 2;

/// An Ed25519 public key, printed as 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        let mut key = [0; 32];
        if !unhex(text.as_bytes(), &mut key) {
            return Err(serde::de::Error::custom("not a key"));
        }
        Ok(Self(key))
    }
}

/// What a checkpoint says. On its line follows `sig`, over everything before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub schema: u32,
    pub journal: String,
    /// How many checkpoints of this journal came before.
    pub n: u64,
    /// Bytes of the journal up to here.
    pub size: u64,
    /// The last record covered.
    pub seq: Seq,
    pub head: Hash,
    pub time: Timestamp,
    /// The kernel's boot id.
    pub boot: String,
    /// SHA-256 of the policy in force, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Hash>,
    /// The key that signed this.
    pub key: PublicKey,
    /// The key that signs the next one.
    pub next: PublicKey,
}

/// When and where, for a checkpoint's signature.
#[derive(Clone, Debug)]
pub(super) struct Circumstances<'a> {
    pub(super) time: Timestamp,
    pub(super) boot: &'a str,
    pub(super) policy: Option<Hash>,
}

/// What is wrong with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFlaw {
    #[error("the line is not a checkpoint")]
    Shape,
    #[error("the signature is wrong")]
    Signature,
    #[error("it is signed with another key than the one whose turn it was")]
    Key,
    #[error("it is out of order")]
    Order,
}

/// Signs the checkpoints of one journal. Both keys live in zeroized memory.
#[derive(Debug)]
pub(super) struct Signer {
    journal: String,
    n: u64,
    key: SigningKey,
    next: SigningKey,
}

/// The two private keys as text, for the index's key file.
pub(super) type KeyText = Zeroizing<String>;

impl Signer {
    pub(super) fn new(journal: &str) -> Self {
        Self { journal: journal.to_owned(), n: 0, key: new_key(), next: new_key() }
    }

    /// From what [`Signer::keys`] gave.
    pub(super) fn restore(journal: &str, n: u64, key: &str, next: &str) -> Option<Self> {
        let parse = |text: &str| {
            let mut bytes = Zeroizing::new([0; 32]);
            unhex(text.as_bytes(), &mut *bytes).then(|| SigningKey::from_bytes(&bytes))
        };
        Some(Self { journal: journal.to_owned(), n, key: parse(key)?, next: parse(next)? })
    }

    /// The number of the next checkpoint and the private keys, to be kept.
    pub(super) fn keys(&self) -> (u64, KeyText, KeyText) {
        let text = |k: &SigningKey| Zeroizing::new(hex(k.as_bytes()));
        (self.n, text(&self.key), text(&self.next))
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    pub(super) fn n(&self) -> u64 {
        self.n
    }

    /// The line of a checkpoint at `head`. The key is still the same; see [`Signer::evolve`].
    pub(super) fn sign(&self, head: Head, at: &Circumstances<'_>) -> serde_json::Result<Vec<u8>> {
        let checkpoint = Checkpoint {
            schema: SCHEMA,
            journal: self.journal.clone(),
            n: self.n,
            size: head.size,
            seq: head.seq,
            head: head.hash,
            time: at.time,
            boot: at.boot.to_owned(),
            policy: at.policy,
            key: self.public(),
            next: PublicKey(self.next.verifying_key().to_bytes()),
        };
        let mut line = Vec::with_capacity(768);
        to_ascii_json(&checkpoint, &mut line)?;
        line.pop();
        let sig = self.key.sign(&line);
        line.extend_from_slice(SIG_KEY);
        line.extend_from_slice(hex(&sig.to_bytes()).as_bytes());
        line.extend_from_slice(b"\"}\n");
        Ok(line)
    }

    /// Destroys the current key once its checkpoint is written down.
    pub(super) fn evolve(&mut self) {
        // The old key is zeroized when it is dropped here.
        self.key = std::mem::replace(&mut self.next, new_key());
        self.n += 1;
    }
}

fn new_key() -> SigningKey {
    let seed = Zeroizing::new(rand::random::<[u8; 32]>());
    SigningKey::from_bytes(&seed)
}

/// Checks that one line, newline included, is a checkpoint signed with the key it names.
pub fn check_line(line: &[u8]) -> Result<Checkpoint, CheckpointFlaw> {
    let text = line.strip_suffix(b"\n").ok_or(CheckpointFlaw::Shape)?;
    let split = text.len().checked_sub(SIG_TAIL).ok_or(CheckpointFlaw::Shape)?;
    let (signed, tail) = text.split_at(split);
    let mut sig = [0; 64];
    let digits = tail.strip_prefix(SIG_KEY).and_then(|t| t.strip_suffix(b"\"}"));
    if !digits.is_some_and(|d| unhex(d, &mut sig)) {
        return Err(CheckpointFlaw::Shape);
    }
    let checkpoint: Checkpoint = {
        let whole = [signed, b"}"].concat();
        serde_json::from_slice(&whole).map_err(|_| CheckpointFlaw::Shape)?
    };
    let key = VerifyingKey::from_bytes(&checkpoint.key.0).map_err(|_| CheckpointFlaw::Signature)?;
    key.verify_strict(signed, &Signature::from_bytes(&sig))
        .map_err(|_| CheckpointFlaw::Signature)?;
    Ok(checkpoint)
}

/// Walks along the checkpoints of one journal.
#[derive(Clone, Debug)]
pub struct KeyChain {
    journal: String,
    n: u64,
    turn: PublicKey,
    seq: Seq,
}

impl KeyChain {
    /// `first` is the key that the index names for this journal.
    pub fn new(journal: &str, first: PublicKey) -> Self {
        Self { journal: journal.to_owned(), n: 0, turn: first, seq: Seq(0) }
    }

    /// Takes the next line, newline included.
    pub fn advance(&mut self, line: &[u8]) -> Result<Checkpoint, CheckpointFlaw> {
        let checkpoint = check_line(line)?;
        if checkpoint.key != self.turn {
            return Err(CheckpointFlaw::Key);
        }
        if checkpoint.journal != self.journal || checkpoint.n != self.n || checkpoint.seq < self.seq
        {
            return Err(CheckpointFlaw::Order);
        }
        (self.n, self.turn, self.seq) = (self.n + 1, checkpoint.next, checkpoint.seq);
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Circumstances<'static> {
        Circumstances { time: Timestamp(7), boot: "boot", policy: None }
    }

    fn head(seq: u64) -> Head {
        Head { seq: Seq(seq), hash: Hash([u8::try_from(seq).unwrap(); 32]), size: seq * 10 }
    }

    /// Three checkpoints, the first public key, and the key that an attacker finds afterwards.
    fn three() -> (Vec<Vec<u8>>, PublicKey, Signer) {
        let mut signer = Signer::new("j");
        let first = signer.public();
        let lines = (1..=3)
            .map(|seq| {
                let line = signer.sign(head(seq), &at()).unwrap();
                signer.evolve();
                line
            })
            .collect();
        (lines, first, signer)
    }

    fn walk(first: PublicKey, lines: &[Vec<u8>]) -> Result<u64, CheckpointFlaw> {
        let mut chain = KeyChain::new("j", first);
        for line in lines {
            chain.advance(line)?;
        }
        Ok(chain.n)
    }

    #[test]
    fn a_good_chain_is_accepted() {
        let (lines, first, _) = three();
        assert_eq!(walk(first, &lines), Ok(3));
    }

    #[test]
    fn the_current_key_cannot_sign_the_past() {
        let (mut lines, first, mut stolen) = three();
        stolen.n = 1;
        lines[1] = stolen.sign(head(2), &at()).unwrap();
        assert_eq!(walk(first, &lines), Err(CheckpointFlaw::Key));
        // Naming the old key does not help: the signature is not that key's.
        let text = String::from_utf8(lines[1].clone()).unwrap();
        let old = three().1;
        let forged = text.replacen(&hex(&stolen.public().0), &hex(&old.0), 1);
        assert_eq!(walk(old, &[forged.into_bytes()]), Err(CheckpointFlaw::Signature));
    }

    #[test]
    fn removed_and_swapped_checkpoints_are_found() {
        let (lines, first, _) = three();
        assert!(walk(first, &lines[1..]).is_err());
        assert!(walk(first, &[lines[0].clone(), lines[2].clone()]).is_err());
        assert!(walk(first, &[lines[1].clone(), lines[0].clone()]).is_err());
        assert!(walk(three().1, &lines).is_err(), "another journal's key");
    }

    #[test]
    fn any_bit_flip_is_found() {
        let (lines, first, _) = three();
        for at in 0..lines[0].len() {
            let mut bad = lines[0].clone();
            bad[at] ^= 1 << (at % 8);
            assert!(walk(first, &[bad]).is_err(), "byte {at}");
        }
    }
}
