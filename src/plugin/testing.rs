//! The bench to put one plugin on: compiles it as the gateway does, runs its hooks on made-up exchanges and shows
//! what became of them.
//!
//! ```ignore
//! let bench = check::<IpRestriction>(r#"{"whitelist": ["10.0.0.0/8"]}"#).unwrap();
//! bench.request(Request::get("/").from("10.1.2.3")).passes();
//! bench.request(Request::get("/").from("11.0.0.1")).replies(403, "not allowed");
//! ```
//!
//! Several uses that shall share a core, a snapshot and consumers are compiled at one [`Desk`].

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::Value;

use super::compile::{Holds, Makings, Surroundings, Upstreams};
use super::{Actions, CompileCx, ConsumerIndex, Env, Inner, Plugin, Registry, Step, Verdict};
use crate::exchange::{
    Body, Chunk, ConsumerLabels, Exchange, Reply, ReplyBody, ResponseBody, RouteLabels, Source,
};
use crate::link::outbox::{Inbox, Report, outbox};
use crate::link::stats::Series;
use crate::model::{ConfigError, ObjectId, Upstream, schema};
use crate::proto::head::{Method, Span};
use crate::proto::protobuf::Types;
use crate::runtime::core::Hatches;
use crate::runtime::{Core, Limits};

/// Where plugins are compiled for one core.
pub(crate) struct Desk {
    registry: Registry,
    holds: Holds,
    upstreams: Places,
    actions: &'static dyn Actions,
    surroundings: Surroundings,
    stage: Rc<Stage>,
}

/// No plugin may be run by another.
#[derive(Debug)]
struct NoActions;

impl Actions for NoActions {
    fn named(&self, _: &str) -> Option<&'static str> {
        None
    }

    fn compile(
        &self,
        name: &'static str,
        _: Value,
        _: &mut CompileCx<'_>,
    ) -> Result<Arc<dyn Inner>, Vec<ConfigError>> {
        Err(vec![ConfigError::new(format!("no action {name}"))])
    }
}

/// Places of upstreams: those kept as they were named, from 0; those made as they come, from 100.
#[derive(Debug, Default)]
struct Places {
    kept: Vec<&'static str>,
    made: u32,
    protos: Vec<(&'static str, Arc<Types>)>,
}

impl Upstreams for Places {
    fn kept(&mut self, _: &str, id: &ObjectId) -> Option<u32> {
        self.kept.iter().position(|kept| *kept == id.as_str()).map(|place| place as u32)
    }

    fn proto(&mut self, _: &str, id: &ObjectId) -> Option<Arc<Types>> {
        let found = self.protos.iter().find(|(kept, _)| *kept == id.as_str());
        found.map(|(_, types)| Arc::clone(types))
    }

    fn addresses(&mut self, _: &str, host: &str) -> Vec<std::net::IpAddr> {
        host.parse().into_iter().collect()
    }

    fn tls(&mut self, _: bool) -> Result<crate::runtime::dialogue::Tls, String> {
        Err("nobody vouches for anybody here".to_owned())
    }

    fn make(
        &mut self,
        _: (&mut Registry, &mut Holds),
        _: &str,
        upstream: &Upstream,
    ) -> Result<u32, Vec<ConfigError>> {
        upstream.nodes().map_err(|fault| vec![fault])?;
        self.made += 1;
        Ok(99 + self.made)
    }
}

struct Stage {
    core: Core,
    consumers: RefCell<ConsumerIndex>,
    inbox: Inbox,
}

/// One plugin, ready to be tried.
pub(crate) struct Bench<P> {
    pub(crate) plugin: P,
    stage: Rc<Stage>,
    pub(crate) request_body_max: Option<usize>,
}

/// Compiles a use of the plugin in `routes/1`.
pub(crate) fn check<P: Plugin>(config: &str) -> Result<Bench<P>, Vec<ConfigError>> {
    Desk::new().compile("routes/1", config)
}

/// Asserts that schema and compiling agree: both accept the first, both refuse the second, and the official way
/// refuses with these words.
pub(crate) fn agree<P: Plugin>(accepted: &[&str], refused: &[(&str, &str)]) {
    for config in accepted {
        assert_eq!(schema::check(&schema::schema_of::<P::Config>(), &value(config)), vec![], "{config}");
        assert!(Desk::new().compile_unchecked::<P>(value(config)).is_ok(), "compile refuses {config}");
    }
    for (config, words) in refused {
        let faults = schema::check(&schema::schema_of::<P::Config>(), &value(config));
        assert!(!faults.is_empty(), "the schema accepts {config}");
        assert!(Desk::new().compile_unchecked::<P>(value(config)).is_err(), "compile accepts {config}");
        refuses::<P>(config, words);
    }
}

/// Asserts that the plugin refuses the configuration with these words, be it in the schema or in compiling.
pub(crate) fn refuses<P: Plugin>(config: &str, words: &str) {
    let Err(faults) = check::<P>(config) else { panic!("accepted: {config}") };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|fault| fault.contains(words)), "{config}: expected {words:?} in {told:?}");
}

fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        let (outbox, inbox) = outbox();
        let hatches = Hatches::alone(outbox, Arc::default());
        let core = Core::new(0, limits, hatches, 7);
        let stage = Rc::new(Stage { core, consumers: RefCell::default(), inbox });
        Self {
            registry: Registry::default(),
            holds: Holds::default(),
            upstreams: Places::default(),
            actions: &NoActions,
            surroundings: Surroundings::default(),
            stage,
        }
    }

    /// Sets the plugin's metadata.
    pub(crate) fn metadata(mut self, plugin: &str, metadata: &str) -> Self {
        self.surroundings.metadata.insert(plugin.to_owned(), value(metadata));
        self
    }

    /// Sets the plugin's part of `plugin_attr`.
    pub(crate) fn attributes(mut self, plugin: &str, attributes: &str) -> Self {
        self.surroundings.attributes.insert(plugin.to_owned(), value(attributes));
        self
    }

    /// Has these plugins for others to run.
    pub(crate) fn actions(mut self, actions: &'static dyn Actions) -> Self {
        self.actions = actions;
        self
    }

    /// Keeps upstreams of these ids.
    pub(crate) fn upstreams(mut self, ids: &[&'static str]) -> Self {
        self.upstreams.kept = ids.to_vec();
        self
    }

    /// Keeps a proto of this id.
    pub(crate) fn proto(mut self, id: &'static str, types: Arc<Types>) -> Self {
        self.upstreams.protos.push((id, types));
        self
    }

    /// Sets the port of the first TLS listener.
    pub(crate) fn https_port(mut self, port: u16) -> Self {
        self.surroundings.https_port = Some(port);
        self
    }

    /// Compiles a use of the plugin in the object `owner`.
    pub(crate) fn compile<P: Plugin>(
        &mut self,
        owner: &str,
        config: &str,
    ) -> Result<Bench<P>, Vec<ConfigError>> {
        let config = value(config);
        let parsed = schema::parse::<P::Config>(config.clone())?;
        let metadata = match self.surroundings.metadata.get(P::NAME) {
            Some(metadata) => schema::parse::<P::Metadata>(metadata.clone())?,
            None => P::Metadata::default(),
        };
        let (surroundings, stage) = (self.surroundings.clone(), Rc::clone(&self.stage));
        let mut cx = CompileCx::new(self.makings(), &surroundings, owner, P::NAME, &config);
        let plugin = P::compile(parsed, metadata, &mut cx).map_err(|fault| vec![fault])?;
        let refusals = cx.take_refusals();
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let request_body_max = cx.request_body_max();
        Ok(Bench { plugin, stage, request_body_max })
    }

    fn makings(&mut self) -> Makings<'_> {
        Makings {
            registry: &mut self.registry,
            holds: &mut self.holds,
            upstreams: &mut self.upstreams,
            actions: self.actions,
        }
    }

    /// Compiles without asking the schema first.
    fn compile_unchecked<P: Plugin>(&mut self, config: Value) -> Result<P, String> {
        let surroundings = self.surroundings.clone();
        let mut cx = CompileCx::new(self.makings(), &surroundings, "routes/1", P::NAME, &config);
        let parsed = serde_json::from_value(config.clone()).map_err(|error| error.to_string())?;
        let compiled = P::compile(parsed, P::Metadata::default(), &mut cx);
        match cx.take_refusals().first() {
            Some(refusal) => Err(refusal.to_string()),
            None => compiled.map_err(|fault| fault.to_string()),
        }
    }
}

/// A request to be made up.
pub(crate) struct Request {
    ex: Exchange,
}

impl Request {
    pub(crate) fn get(target: &str) -> Self {
        Self::new(Method::Get, target)
    }

    pub(crate) fn new(method: Method, target: &str) -> Self {
        let mut ex = Exchange::new();
        let head = format!("{} {target} HTTP/1.1\r\n\r\n", method.text()).into_bytes();
        let start = method.text().len() + 1;
        ex.request.line.method = method;
        ex.request.line.target = Span::new(start, start + target.len());
        ex.request.line.head = Span::new(0, head.len());
        ex.request.headers.hold_received(head);
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        ex.request.path = percent_encoding(path);
        ex.request.wire_path = path.as_bytes().to_vec();
        ex.request.has_query = query.is_some();
        ex.request.query = query.unwrap_or("").as_bytes().to_vec();
        ex.request.headers.add("Host", b"example.com");
        ex.request.host = "example.com".to_owned();
        ex.client.ip = "192.0.2.1".parse().expect("an address");
        ex.timing.received = crate::base::clock::now();
        ex.timing.received_at = 1_700_000_000_000;
        ex.route = RouteLabels::new("1", "first", "", "", "/*", "");
        Self { ex }
    }

    pub(crate) fn from(self, ip: &str) -> Self {
        self.with(|ex| ex.client.ip = ip.parse().expect("an address"))
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.with(|ex| ex.request.headers.add(name, value.as_bytes()))
    }

    pub(crate) fn body(self, body: &str) -> Self {
        self.with(|ex| ex.request.body = Body::Held(body.as_bytes().to_vec()))
    }

    /// Changes whatever else there is.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Exchange)) -> Self {
        change(&mut self.ex);
        self
    }
}

fn percent_encoding(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    crate::base::text::form_decode(path.replace('+', "%2B").as_bytes(), &mut out);
    out
}

/// Polls what needs no waker; a test plugin that truly waits is a fault of the test.
fn now<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the plugin waits for something that the bench has not"),
    }
}

impl<P: Plugin> Bench<P> {
    /// Makes a consumer known with what it proves itself with.
    pub(crate) fn consumer(self, name: &str, credential: &str) -> Self {
        let kind = P::CREDENTIAL.expect("the plugin is for authentication");
        let credential = (kind.read)(value(credential)).expect("the credential is well formed");
        let labels = ConsumerLabels::new(name, "", "", "");
        let mut consumers = self.stage.consumers.borrow_mut();
        consumers.insert_consumer(1, labels.clone());
        consumers.insert(P::NAME, credential, 1, labels).expect("no other consumer has this credential");
        drop(consumers);
        self
    }

    pub(crate) fn core(&self) -> &Core {
        &self.stage.core
    }

    /// The metric series announced since the last call.
    pub(crate) fn series(&self) -> Vec<Arc<Series>> {
        self.stage
            .inbox
            .reports
            .try_iter()
            .filter_map(|report| match report {
                Report::Series(series) => Some(series),
                Report::AccessLog(_)
                | Report::Lines { .. }
                | Report::Note(..)
                | Report::Retired(_)
                | Report::Asked(_) => None,
            })
            .collect()
    }

    /// All that was told since the last call.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.stage.inbox.reports.try_iter().collect()
    }

    /// The lines noted for the log since the last call.
    pub(crate) fn notes(&self) -> Vec<String> {
        let reports = self.stage.inbox.reports.try_iter();
        reports
            .filter_map(|report| if let Report::Note(_, text) = report { Some(text) } else { None })
            .collect()
    }

    /// Runs `PREREAD`; what it refuses with, if it does.
    pub(crate) fn preread(&self, ex: &mut Exchange) -> Option<Reply> {
        let consumers = self.stage.consumers.borrow();
        let env = Env { core: &self.stage.core, consumers: &consumers, prices: None };
        match P::PREREAD.expect("the plugin is for streams")(&self.plugin, ex, env) {
            Step::Next => None,
            Step::Reply(reply) => Some(reply),
            Step::Wait(_) => panic!("it waits"),
        }
    }

    /// Runs `REWRITE` and `ACCESS`.
    pub(crate) fn request(&self, request: Request) -> Outcome<'_, P> {
        self.run(request.ex)
    }

    /// Runs `REWRITE` and `ACCESS` on an exchange that was used before.
    pub(crate) fn run(&self, mut ex: Exchange) -> Outcome<'_, P> {
        let consumers = self.stage.consumers.borrow();
        let mut reply = None;
        for hook in [P::REWRITE, P::ACCESS].into_iter().flatten() {
            let env = Env { core: &self.stage.core, consumers: &consumers, prices: None };
            let verdict = match hook(&self.plugin, &mut ex, env) {
                Step::Next => Verdict::Next,
                Step::Reply(reply) => Verdict::Reply(reply),
                Step::Wait(work) => now(work),
            };
            if let Verdict::Reply(found) = verdict {
                ex.response.source = Source::Plugin(P::NAME);
                reply = Some(found);
                break;
            }
        }
        drop(consumers);
        Outcome { bench: self, ex, reply }
    }

    /// Runs all hooks on a plain request and this response from upstream.
    pub(crate) fn response(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.request(Request::get("/")).response(status, headers, body)
    }
}

/// What the gates came to.
pub(crate) struct Outcome<'b, P> {
    bench: &'b Bench<P>,
    pub(crate) ex: Exchange,
    pub(crate) reply: Option<Reply>,
}

impl<P: Plugin> Outcome<'_, P> {
    #[track_caller]
    pub(crate) fn passes(self) -> Self {
        assert!(self.reply.is_none(), "replied {:?}", self.reply);
        self
    }

    #[track_caller]
    pub(crate) fn replies(self, status: u16, body_part: &str) -> Self {
        let reply = self.reply.as_ref().expect("the plugin replies");
        let body = String::from_utf8_lossy(reply.body());
        assert_eq!(reply.status, status, "{body}");
        assert!(body.contains(body_part), "expected {body_part:?} in {body:?}");
        self
    }

    /// Asserts a header of the reply.
    #[track_caller]
    pub(crate) fn header(self, name: &str, expected: &str) -> Self {
        let reply = self.reply.as_ref().expect("the plugin replies");
        let lines = reply.headers.iter().flat_map(|lines| lines.iter());
        let found: Vec<_> = lines.filter(|(line, _)| line.eq_ignore_ascii_case(name)).collect();
        assert_eq!(found.len(), 1, "lines of {name}: {found:?}");
        assert_eq!(String::from_utf8_lossy(&found[0].1), expected);
        self
    }

    /// The lines of a header as the upstream would get them.
    pub(crate) fn forwarded(&self, name: &str) -> Vec<String> {
        self.ex.request.headers.all(name).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// Path and query as the upstream would get them.
    pub(crate) fn target(&self) -> String {
        let mut target = self.ex.request.forward.target.clone();
        if target.is_empty() {
            self.ex.request.write_request_uri(&mut target);
        }
        String::from_utf8_lossy(&target).into_owned()
    }

    /// Runs the other hooks on this response, or on the plugin's own reply if there was one.
    pub(crate) fn response(self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.response_in_pieces(status, headers, &[body])
    }

    /// The other hooks on the plugin's reply.
    pub(crate) fn answer(self) -> Answer {
        assert!(self.reply.is_some(), "the plugin replies");
        self.response(0, &[], b"")
    }

    pub(crate) fn response_in_pieces(
        mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> Answer {
        let mut pieces: Vec<Vec<u8>> = body.iter().map(|piece| piece.to_vec()).collect();
        self.ex.response.status = status;
        if let Some(reply) = self.reply.take() {
            self.ex.response.status = reply.status;
            for (name, value) in reply.headers.iter().flat_map(|lines| lines.iter()) {
                self.ex.response.headers.add(name, value);
            }
            pieces = match reply.body {
                ReplyBody::Default | ReplyBody::Empty => vec![vec![]],
                ReplyBody::Text(text) => vec![text.as_bytes().to_vec()],
                ReplyBody::Bytes(bytes) => vec![bytes.to_vec()],
            };
        } else {
            self.ex.response.source = Source::Upstream;
            for (name, value) in headers {
                self.ex.response.headers.add(name, value.as_bytes());
            }
        }
        let consumers = self.bench.stage.consumers.borrow();
        let env = Env { core: &self.bench.stage.core, consumers: &consumers, prices: None };
        if let Some(hook) = P::HEADER_FILTER {
            hook(&self.bench.plugin, &mut self.ex, env);
        }
        match &self.ex.response.body {
            ResponseBody::AsIs => {}
            ResponseBody::Hold { .. } => pieces = vec![pieces.concat()],
            ResponseBody::Replace(bytes) => pieces = vec![bytes.to_vec()],
        }
        let last = pieces.len() - 1;
        for (at, piece) in pieces.iter_mut().enumerate() {
            if let Some(hook) = P::BODY_FILTER {
                hook(&self.bench.plugin, &mut self.ex, env, &mut Chunk { bytes: piece, last: at == last });
            }
        }
        if let Some(hook) = P::LOG {
            hook(&self.bench.plugin, &self.ex, env);
        }
        drop(consumers);
        Answer { ex: self.ex, body: pieces.concat() }
    }
}

/// A response as the client would get it.
pub(crate) struct Answer {
    pub(crate) ex: Exchange,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The lines of a header, joined by ` | `; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        let lines: Vec<_> = self.ex.response.headers.all(name).map(String::from_utf8_lossy).collect();
        lines.join(" | ")
    }

    pub(crate) fn status(&self) -> u16 {
        self.ex.response.status
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
