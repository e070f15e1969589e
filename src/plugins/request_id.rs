//! `request-id`: gives each request an id, or keeps the one it came with.
//!
//! ```yaml
//! plugins:
//!   request-id:
//!     algorithm: uuidv7
//! ```
//!
//! The upstream sees the id in `header_name`, logs and rules as `$request_id`, and the client in the response,
//! unless the upstream set the header itself. Differs from APISIX: an id of the client's that is longer than 256
//! bytes is replaced. Ids are dice, not secrets: they tell requests apart and prove nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::clock::UnixMs;
use crate::base::rng::Rng;
use crate::exchange::Exchange;
use crate::model::field::{HeaderName, InRange, Text};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, NoMetadata, Plugin, Step};

/// Longest id of a client that is kept: it is repeated in logs and answers.
const CLIENT_ID_BYTES_MAX: usize = 256;
/// Longest id made from a range, which still fits a line of any log.
const RANGE_LENGTH_MAX: i64 = 256;
const DIGITS_AND_LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Gives each request an id, or keeps the one it came with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The header that carries the id.
    #[serde(default = "x_request_id")]
    header_name: HeaderName,
    /// Is the client told the id, unless the upstream set the header itself?
    #[serde(default = "yes")]
    include_in_response: bool,
    /// How ids are made.
    #[serde(default)]
    algorithm: Algorithm,
    /// Length and letters of the ids of `range_id`.
    #[serde(default)]
    range_id: RangeId,
}

/// How ids are made.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Algorithm {
    /// 128 random bits.
    #[default]
    Uuid,
    /// 21 letters of 64.
    Nanoid,
    /// As many letters as `range_id` says, of its alphabet.
    #[serde(rename = "range_id")]
    RangeId,
    /// The second and 128 random bits, in 27 letters that sort by time.
    Ksuid,
    /// The millisecond and 74 random bits, which sort by time.
    Uuidv7,
}

/// Length and letters of an id.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct RangeId {
    /// How many letters an id has.
    #[serde(default = "sixteen")]
    length: InRange<6, RANGE_LENGTH_MAX>,
    /// The letters, printable ASCII without spaces.
    #[serde(default = "digits_and_letters")]
    #[schemars(regex(pattern = "^[!-~]+$"))]
    char_set: Text<6, 256>,
}

impl Default for RangeId {
    fn default() -> Self {
        Self { length: sixteen(), char_set: digits_and_letters() }
    }
}

/// What the core reads.
pub struct RequestId {
    header: String,
    in_response: bool,
    maker: Maker,
}

enum Maker {
    Uuid,
    Uuidv7,
    Ksuid,
    Letters { alphabet: Box<[u8]>, length: usize },
}

impl Plugin for RequestId {
    const NAME: &'static str = "request-id";
    const PRIORITY: i32 = 12015;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::note);
    const HEADER_FILTER: Edit<Self> = Some(Self::tell);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let RangeId { length, char_set } = config.range_id;
        if !char_set.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::at("range_id.char_set", "expected printable ASCII without spaces"));
        }
        let maker = match config.algorithm {
            Algorithm::Uuid => Maker::Uuid,
            Algorithm::Uuidv7 => Maker::Uuidv7,
            Algorithm::Ksuid => Maker::Ksuid,
            Algorithm::Nanoid => Maker::Letters { alphabet: nanoid_alphabet(), length: 21 },
            Algorithm::RangeId => {
                Maker::Letters { alphabet: char_set.as_bytes().into(), length: length.usize() }
            }
        };
        let header = config.header_name.as_str().to_owned();
        Ok(Self { header, in_response: config.include_in_response, maker })
    }
}

impl RequestId {
    fn note<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let Exchange { request, request_id, timing, .. } = ex;
        request_id.clear();
        let brought = request.headers.get(&self.header);
        if let Some(id) = brought.filter(|id| !id.is_empty() && id.len() <= CLIENT_ID_BYTES_MAX) {
            request_id.extend_from_slice(id);
            return Step::Next;
        }
        env.core.dice(|rng| self.maker.write(rng, timing.received_at, request_id));
        request.headers.set(&self.header, request_id);
        Step::Next
    }

    fn tell(&self, ex: &mut Exchange, _: Env<'_>) {
        if self.in_response
            && ex.response.headers.get(&self.header).is_none()
            && let Some(id) = ex.request.headers.get(&self.header)
        {
            // What is there is bounded and printable: it was kept by `note`, or made by it.
            ex.response.headers.add(&self.header, id);
        }
    }
}

impl Maker {
    fn write(&self, rng: &mut Rng, now: UnixMs, out: &mut Vec<u8>) {
        match self {
            Self::Uuid => {
                let id = uuid::Builder::from_random_bytes(rng.bytes16()).into_uuid();
                out.extend_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
            }
            Self::Uuidv7 => {
                let mut random = [0; 10];
                random.copy_from_slice(&rng.bytes16()[..10]);
                let id = uuid::Builder::from_unix_timestamp_millis(now, &random).into_uuid();
                out.extend_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
            }
            Self::Ksuid => write_ksuid(rng.bytes16(), now, out),
            Self::Letters { alphabet, length } => {
                out.extend((0..*length).map(|_| alphabet[rng.below(alphabet.len() as u64) as usize]));
            }
        }
    }
}

/// Seconds since 2014-05-13T16:53:20Z and 16 bytes, as 27 digits of base 62.
fn write_ksuid(random: [u8; 16], now: UnixMs, out: &mut Vec<u8>) {
    const EPOCH_SECONDS: u64 = 1_400_000_000;
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let seconds = (now / 1000).saturating_sub(EPOCH_SECONDS) as u32;
    let mut words = [seconds, 0, 0, 0, 0];
    for (word, bytes) in words[1..].iter_mut().zip(random.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    let mut digits = [b'0'; 27];
    for digit in digits.iter_mut().rev() {
        // Long division of the five words by 62; the remainder is the next digit from the right.
        let remainder = words.iter_mut().fold(0_u64, |carry, word| {
            let dividend = carry << 32 | u64::from(*word);
            *word = (dividend / 62) as u32;
            dividend % 62
        });
        *digit = BASE62[remainder as usize];
    }
    out.extend_from_slice(&digits);
}

/// The 64 letters of nanoid, all of which stand unquoted in URLs.
fn nanoid_alphabet() -> Box<[u8]> {
    (b'0'..=b'9').chain(b'a'..=b'z').chain(b'A'..=b'Z').chain(*b"_-").collect()
}

fn x_request_id() -> HeaderName {
    HeaderName::literal("X-Request-Id")
}

const fn yes() -> bool {
    true
}

const fn sixteen() -> InRange<6, RANGE_LENGTH_MAX> {
    InRange::literal(16)
}

fn digits_and_letters() -> Text<6, 256> {
    Text::literal(DIGITS_AND_LETTERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check};

    /// The id that a plain request gets.
    fn id(config: &str) -> String {
        let outcome = check::<RequestId>(config).unwrap().request(Request::get("/")).passes().forwarded("x-request-id");
        assert_eq!(outcome.len(), 1);
        outcome[0].clone()
    }

    fn algorithm(name: &str) -> String {
        id(&format!(r#"{{"algorithm":"{name}"}}"#))
    }

    #[test]
    fn every_algorithm_makes_ids_of_its_form() {
        let form = |pattern: &str, id: String| {
            assert!(regex::Regex::new(pattern).unwrap().is_match(&id), "{id} is not {pattern}");
        };
        form("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", id("{}"));
        form("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", algorithm("uuid"));
        // The bench's requests come at 1,700,000,000,000 ms, which is 18bcfe56800 in hexadecimal.
        form("^018bcfe5-6800-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", algorithm("uuidv7"));
        form("^[0-9a-zA-Z_-]{21}$", algorithm("nanoid"));
        form("^[0-9a-zA-Z]{16}$", algorithm("range_id"));
        form("^[0-9A-Za-z]{27}$", algorithm("ksuid"));
        form("^[abcdef]{8}$", id(r#"{"algorithm":"range_id","range_id":{"length":8,"char_set":"abcdef"}}"#));
    }

    #[test]
    fn a_ksuid_is_its_number_in_base_62() {
        let check = |random: [u8; 16], now: UnixMs, expected: &str| {
            let mut out = Vec::new();
            write_ksuid(random, now, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check([0; 16], 0, "000000000000000000000000000");
        check([0xff; 16], (1_400_000_000 + u64::from(u32::MAX)) * 1000, "aWgEPTl1tmebfsQzFP4bxwgy80V");
        let mut sixty_two = [0; 16];
        sixty_two[15] = 62;
        check(sixty_two, 0, "000000000000000000000000010");
    }

    #[test]
    fn ids_of_one_core_differ() {
        let bench = check::<RequestId>("{}").unwrap();
        let one = bench.request(Request::get("/")).forwarded("x-request-id");
        assert_ne!(one, bench.request(Request::get("/")).forwarded("x-request-id"));
    }

    #[test]
    fn the_id_a_client_brings_is_kept_unless_empty_or_long() {
        let bench = check::<RequestId>("{}").unwrap();
        let outcome = bench.request(Request::get("/").header("x-request-id", "mine")).passes();
        assert_eq!(outcome.ex.request_id, b"mine");
        assert_eq!(outcome.forwarded("x-request-id"), ["mine"]);
        assert_eq!(outcome.response(200, &[], b"").header("X-Request-Id"), "mine");
        for odd in [String::new(), "x".repeat(257)] {
            let outcome = bench.request(Request::get("/").header("x-request-id", &odd)).passes();
            assert_eq!(outcome.forwarded("x-request-id").len(), 1);
            assert_eq!(outcome.forwarded("x-request-id")[0].len(), 36);
        }
        let longest = "x".repeat(256);
        let outcome = bench.request(Request::get("/").header("x-request-id", &longest)).passes();
        assert_eq!(outcome.forwarded("x-request-id"), [longest]);
    }

    #[test]
    fn the_client_is_told_unless_upstream_did_or_it_is_not_wanted() {
        let bench = check::<RequestId>(r#"{"header_name":"X-Trace"}"#).unwrap();
        let outcome = bench.request(Request::get("/"));
        let made = outcome.forwarded("x-trace");
        assert_eq!(made, [String::from_utf8(outcome.ex.request_id.clone()).unwrap()]);
        assert_eq!(outcome.response(200, &[], b"").header("X-Trace"), made[0]);
        assert_eq!(bench.response(200, &[("x-trace", "theirs")], b"").header("X-Trace"), "theirs");
        let silent = check::<RequestId>(r#"{"include_in_response":false}"#).unwrap();
        assert_eq!(silent.response(200, &[], b"").header("X-Request-Id"), "");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<RequestId>(
            &["{}", r#"{"range_id":{}}"#, r#"{"range_id":{"length":256,"char_set":"abcdef"}}"#],
            &[
                (r#"{"header_name":"a b"}"#, "header_name"),
                (r#"{"include_in_response":"no"}"#, "true or false"),
                (r#"{"algorithm":"uuid4"}"#, "algorithm"),
                (r#"{"algorithm":"snowflake"}"#, "one of uuid, nanoid, range_id, ksuid or uuidv7"),
                (r#"{"range_id":{"length":5}}"#, "range_id.length"),
                (r#"{"range_id":{"length":257}}"#, "range_id.length"),
                (r#"{"range_id":{"char_set":"abcde"}}"#, "range_id.char_set"),
                (r#"{"range_id":{"char_set":"abc\ndef"}}"#, "range_id.char_set"),
                (r#"{"range_id":{"size":6}}"#, "found size"),
                (r#"{"header":"x"}"#, "found header"),
            ],
        );
    }
}
