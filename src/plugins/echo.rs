//! `echo`: text before, behind or in place of the body of a response, for trying out routes and chains of plugins.
//!
//! ```yaml
//! plugins:
//!   echo:
//!     before_body: "-- begin --\n"
//!     after_body: "-- end --\n"
//!     headers:
//!       X-Seen: "1"
//! ```
//!
//! A body that is passed on still streams: the text goes out with its first and its last piece. Differs from APISIX: a
//! body that is coded (`Content-Encoding`) gets no text around it, which would break it; values of headers are
//! templates; refuses unknown fields.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Chunk, Exchange, SlotId};
use crate::plugin::header_edits::{HeaderChanges, HeaderEdits};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, NoMetadata, Plugin, Transform};
use crate::proto::head::HeaderId;
use crate::runtime::LocalId;

/// Uses of the plugin that one request can meet: of the global rules, and of its route.
const USES_MAX: usize = 2;

/// Puts text before, behind or in place of the body of an answer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    {"required": ["before_body"]}, {"required": ["body"]}, {"required": ["after_body"]}
]))]
pub struct Config {
    /// Text before the body.
    before_body: Option<String>,
    /// Text in place of the body.
    body: Option<String>,
    /// Text behind the body.
    after_body: Option<String>,
    /// Headers to set; values are templates.
    headers: Option<HeaderEdits>,
}

/// What the core reads.
pub struct Echo {
    text: Text,
    headers: HeaderChanges,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    wraps: SlotId,
}

enum Text {
    InPlace(Bytes),
    Around { before: Box<[u8]>, after: Box<[u8]> },
}

/// The uses that put text around the body, and whether the text before it is out.
type Wraps = [Option<(LocalId, bool)>; USES_MAX];

impl Plugin for Echo {
    const NAME: &'static str = "echo";
    const PRIORITY: i32 = 412;
    type Config = Config;
    type Metadata = NoMetadata;

    const HEADER_FILTER: Edit<Self> = Some(Self::edit_head);
    const BODY_FILTER: Transform<Self> = Some(Self::edit_body);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let Config { before_body, body, after_body, headers } = config;
        if before_body.is_none() && body.is_none() && after_body.is_none() {
            return Err(ConfigError::new("expected at least one of `before_body`, `body` and `after_body`"));
        }
        let (before, after) = (before_body.unwrap_or_default(), after_body.unwrap_or_default());
        let text = match body {
            Some(body) => Text::InPlace(Bytes::from([before, body, after].concat())),
            None => Text::Around { before: before.into_bytes().into(), after: after.into_bytes().into() },
        };
        let headers = headers.unwrap_or_default().compile()?;
        Ok(Self { text, headers, me: cx.local(), wraps: cx.slot() })
    }
}

impl Echo {
    fn edit_head(&self, ex: &mut Exchange, env: Env<'_>) {
        match &self.text {
            Text::InPlace(text) => ex.response.replace_body(text.clone()),
            Text::Around { .. } if ex.response.headers.has(HeaderId::ContentEncoding) => {}
            Text::Around { .. } => {
                ex.response.forget_body_headers();
                let wraps = ex.slots.of::<Wraps>(self.wraps);
                if let Some(free) = wraps.iter_mut().find(|wrap| wrap.is_none()) {
                    *free = Some((self.me, false));
                }
            }
        }
        let mut scratch = env.core.buffers.small();
        self.headers.apply(ex, |ex| &mut ex.response.headers, &[], &mut scratch);
        env.core.buffers.give_back(scratch);
    }

    fn edit_body(&self, ex: &mut Exchange, _: Env<'_>, chunk: &mut Chunk<'_>) {
        let Text::Around { before, after } = &self.text else { return };
        let mut wraps = ex.slots.of::<Wraps>(self.wraps).iter_mut().flatten();
        let Some((_, begun)) = wraps.find(|(use_of, _)| *use_of == self.me) else { return };
        if !std::mem::replace(begun, true) {
            chunk.bytes.splice(..0, before.iter().copied());
        }
        if chunk.last {
            chunk.bytes.extend_from_slice(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check};

    fn echoed(config: &str, headers: &[(&str, &str)], pieces: &[&[u8]]) -> String {
        let bench = check::<Echo>(config).unwrap();
        bench.request(Request::get("/")).response_in_pieces(200, headers, pieces).text()
    }

    #[test]
    fn text_goes_before_and_behind_a_body_whatever_its_pieces() {
        let both = r#"{"before_body": "<", "after_body": ">"}"#;
        for pieces in [&[b"abc".as_slice()][..], &[b"a", b"b", b"c"], &[b"", b"abc", b""]] {
            assert_eq!(echoed(both, &[], pieces), "<abc>", "{pieces:?}");
        }
        assert_eq!(echoed(both, &[], &[b""]), "<>");
        assert_eq!(echoed(r#"{"before_body": "<"}"#, &[], &[b"a", b"b"]), "<ab");
        assert_eq!(echoed(r#"{"after_body": ">"}"#, &[], &[b"a", b"b"]), "ab>");
    }

    #[test]
    fn a_body_is_replaced_with_what_is_around_it() {
        let all = r#"{"before_body": "<", "body": "new", "after_body": ">"}"#;
        assert_eq!(echoed(all, &[("Content-Encoding", "gzip")], &[b"\x1f\x8b"]), "<new>");
        assert_eq!(echoed(r#"{"body": "new"}"#, &[], &[b"old"]), "new");
    }

    #[test]
    fn a_coded_body_stays_whole() {
        let config = r#"{"before_body": "<", "headers": {"X-A": "1"}}"#;
        let answer = check::<Echo>(config).unwrap().response(200, &[("Content-Encoding", "gzip")], b"\x1f\x8b");
        assert_eq!((answer.body.as_slice(), answer.header("Content-Encoding").as_str()), (&b"\x1f\x8b"[..], "gzip"));
        assert_eq!(answer.header("X-A"), "1");
    }

    #[test]
    fn headers_are_set_and_those_of_the_old_body_go() {
        let answer = check::<Echo>(r#"{"after_body": ">", "headers": {"X-Uri": "$uri", "X-B": 2}}"#)
            .unwrap()
            .response(200, &[("Content-Length", "3"), ("ETag", "\"1\"")], b"abc");
        let header = |name| answer.header(name);
        assert_eq!((header("X-Uri"), header("X-B")), ("/".to_owned(), "2".to_owned()));
        assert_eq!((header("Content-Length"), header("ETag")), (String::new(), String::new()));
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<Echo>(
            &[r#"{"body": ""}"#, r#"{"before_body": "a", "headers": {"X-A": "b"}}"#],
            &[
                ("{}", "before_body"),
                (r#"{"headers": {"X-A": "b"}}"#, "before_body"),
                (r#"{"body": 1}"#, "body"),
                (r#"{"body": "a", "after": "b"}"#, "additional properties forbidden, found after"),
            ],
        );
    }
}
