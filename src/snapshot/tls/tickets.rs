//! Tickets that every gateway of a fleet opens, by secrets that all were given. What seals is derived from the first secret for a
//! period of time, so keys change by themselves, at the same moment everywhere, and nobody has to tell anybody.
//!
//! ```text
//! which secret (4) │ which period (4) │ nonce (12) │ sealed, with its tag (AES-256-GCM)
//! ```
//!
//! A ticket opens in the period it was made in and in the next. Deriving a key is some microseconds of a handshake's hundreds,
//! so nothing is kept and no core waits for another.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::server::ProducesTickets;

use crate::base::clock::{self, UnixMs};

/// How long a key seals. A ticket is good for at least as long.
const PERIOD_SECONDS: u32 = 6 * 3600;
const ID_BYTES: usize = 4;
const HEAD_BYTES: usize = ID_BYTES + 4;

/// Secrets of a fleet, the first of which seals.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<[Secret]>);

struct Secret {
    id: [u8; ID_BYTES],
    root: Prk,
}

impl Secrets {
    pub(crate) fn new(texts: &[Vec<u8>]) -> Self {
        let secret = |text: &Vec<u8>| {
            let root = Salt::new(HKDF_SHA256, b"ringway ssl.ticket_keys").extract(text);
            let mut id = [0; ID_BYTES];
            // Of any length up to 8160 bytes, which this is.
            let _ = root.expand(&[b"id"], Length(ID_BYTES)).and_then(|made| made.fill(&mut id));
            Secret { id, root }
        };
        Self(texts.iter().map(secret).collect())
    }

    /// Tickets of rules of their own: those of one `scope` say nothing in another.
    pub(super) fn tickets(&self, scope: &[u8]) -> Arc<dyn ProducesTickets> {
        let scope = digest(&SHA256, scope).as_ref().to_vec();
        Arc::new(Tickets { secrets: self.clone(), scope })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("count", &self.0.len()).finish_non_exhaustive()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[derive(Debug)]
struct Tickets {
    secrets: Secrets,
    scope: Vec<u8>,
}

impl Tickets {
    fn key(&self, secret: &Secret, period: u32) -> Option<LessSafeKey> {
        let period = period.to_be_bytes();
        let info: [&[u8]; 3] = [b"ticket", &self.scope, &period];
        let made = secret.root.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(made)))
    }

    fn seal(&self, plain: &[u8], now: UnixMs) -> Option<Vec<u8>> {
        let secret = self.secrets.0.first()?;
        let period = period_of(now);
        let key = self.key(secret, period)?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let head = [&secret.id[..], &period.to_be_bytes()].concat();
        let mut ticket = Vec::with_capacity(HEAD_BYTES + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&head);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(head), &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: UnixMs) -> Option<Vec<u8>> {
        let (head, rest) = ticket.split_first_chunk::<HEAD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (id, period) = head.split_first_chunk::<ID_BYTES>()?;
        let period = u32::from_be_bytes(period.try_into().ok()?);
        let current = period_of(now);
        // Another gateway's clock may be a little ahead.
        if period.checked_add(1)? < current || period > current.saturating_add(1) {
            return None;
        }
        let secret = self.secrets.0.iter().find(|secret| secret.id == *id)?;
        let key = self.key(secret, period)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(head), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

fn period_of(now: UnixMs) -> u32 {
    u32::try_from(now / 1000 / u64::from(PERIOD_SECONDS)).unwrap_or(u32::MAX)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, clock::wall())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, clock::wall())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: UnixMs = PERIOD_SECONDS as UnixMs * 1000;

    fn of(texts: &[&str], scope: &str) -> Tickets {
        let secrets = Secrets::new(&texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
        Tickets { secrets, scope: scope.as_bytes().to_vec() }
    }

    #[test]
    fn a_ticket_opens_wherever_the_secret_is_known_in_its_period_and_the_next() {
        let (old, both, new) = (of(&["old"], ""), of(&["new", "old"], ""), of(&["new"], ""));
        let now = 1000 * PERIOD;
        let ticket = old.seal(b"a session", now).expect("sealed");
        assert_ne!(old.seal(b"a session", now), Some(ticket.clone()));
        let opens = |tickets: &Tickets, at| tickets.open(&ticket, at).as_deref() == Some(b"a session");
        assert!(opens(&old, now) && opens(&both, now) && !opens(&new, now));
        assert!(
            opens(&both, now - 1) && opens(&both, now + 2 * PERIOD - 1) && !opens(&both, now + 2 * PERIOD)
        );
        assert!(!opens(&both, now - PERIOD - 1), "it is from the future");
        assert!(!opens(&of(&["old"], "other rules"), now));
        assert!(
            of(&["new"], "").open(&both.seal(b"x", now).expect("sealed"), now).is_some(),
            "the first seals"
        );
    }

    #[test]
    fn nothing_else_opens_and_nothing_panics() {
        let tickets = of(&["secret"], "");
        let ticket = tickets.seal(b"a session", 5 * PERIOD).expect("sealed");
        for at in 0..ticket.len() {
            assert_eq!(tickets.open(&ticket[..at], 5 * PERIOD), None, "cut at {at}");
            let mut flipped = ticket.clone();
            flipped[at] ^= 1;
            assert_eq!(tickets.open(&flipped, 5 * PERIOD), None, "flipped at {at}");
        }
        assert_eq!(tickets.open(&[0xff; 64], u64::MAX), None);
    }
}
