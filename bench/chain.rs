//! A route's plugins, all hooks from `rewrite` to `log`: what each costs that a route mounts, and that a route without
//! any pays nothing for there being plugins.
//!
//! An iteration is one exchange as `edge` runs it between parsing and forwarding: lent, filled in from a parsed
//! head, seen by every hook, cleared and given back. The case without plugins is what that costs by itself.

mod kit;

use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use kit::{Case, Work};
use ringway::base::clock::Moment;
use ringway::exchange::{Exchange, Source};
use ringway::link::outbox::{Inbox, outbox};
use ringway::model::Settings;
use ringway::model::resources::{self, Format};
use ringway::plugin::{Env, Phase, Verdict};
use ringway::proto::h1::parse::{self, HeadLimits, Parsed};
use ringway::proto::head::HeaderId;
use ringway::runtime::core::Hatches;
use ringway::runtime::{Core, Limits};
use ringway::snapshot::{Compiler, Snapshot, at_once};

const HEAD: &[u8] = b"GET /orders/42 HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: bench\r\n\
    Accept: */*\r\n\
    Origin: https://www.example.com\r\n\
    apikey: 0f3b6c1e9a7d4582\r\n\r\n";
const PATH: &[u8] = b"/orders/42";
const HOST: &str = "shop.example.com";
const NOW: Moment = Moment::from_nanos(120_000_000_000);

const GUARDED: &str = "key-auth: {}, limit-count: {count: 4000000000, time_window: 60, key: consumer_name}, \
                       prometheus: {}";
const REWRITTEN: &str = "cors: {}, request-id: {}, ip-restriction: {whitelist: [127.0.0.0/8]}, \
                         proxy-rewrite: {uri: /x, headers: {set: {X-To: up}}}, \
                         response-rewrite: {headers: {set: {X-From: down}}}";

/// One core, one route.
struct Stage {
    core: Core,
    snapshot: Arc<Snapshot>,
    /// The receive buffer, which goes from exchange to exchange.
    received: Vec<u8>,
    /// Kept so that the core has somebody to report to.
    _inbox: Inbox,
}

impl Stage {
    fn new(plugins: &str) -> Self {
        let objects = format!(
            "routes: [{{id: 1, uri: /*, plugins: {{{plugins}}}, upstream: {{nodes: {{\"127.0.0.1:1980\": 1}}}}}}]\n\
             consumers: [{{username: jack, plugins: {{key-auth: {{key: 0f3b6c1e9a7d4582}}}}}}]",
        );
        let objects = resources::parse(&objects, Format::Yaml, &|_| None).expect("a file of objects");
        let mut compiler = Compiler::new(&Settings::default(), at_once(|_| Err("no names here".to_owned())));
        let outcome = compiler.compile(&objects);
        assert_eq!(outcome.faults, []);
        let (outbox, inbox) = outbox();
        let hatches = Hatches::alone(outbox, Arc::default());
        let core = Core::new(0, Limits::default(), hatches, 1);
        Self { core, snapshot: outcome.snapshot, received: HEAD.to_vec(), _inbox: inbox }
    }

    /// One exchange from head to log; what `see` says of it at its end.
    fn serve<R>(&mut self, see: impl FnOnce(&Exchange) -> R) -> R {
        let mut ex = self.core.exchange();
        self.fill(&mut ex);
        let env =
            Env { core: &self.core, consumers: &self.snapshot.index, prices: Some(&self.snapshot.prices) };
        let chain = &self.snapshot.routes[0].chain;
        for phase in [Phase::Rewrite, Phase::Access, Phase::BeforeProxy] {
            if chain.hooks(phase) {
                let verdict = now(chain.gate(phase, &mut ex, env));
                assert!(matches!(verdict, Verdict::Next), "a plugin answered");
            }
        }
        ex.response.status = 200;
        ex.response.source = Source::Upstream;
        ex.response.headers.add_id(HeaderId::ContentType, b"application/json");
        chain.header_filter(&mut ex, env);
        chain.log(&ex, env, |_| false);
        let seen = see(&ex);
        self.received = ex.request.headers.take_received();
        self.core.give_back(ex);
        seen
    }

    fn fill(&mut self, ex: &mut Exchange) {
        let request = &mut ex.request;
        let line = parse::request(HEAD, 0, &HeadLimits::REQUEST, &mut request.headers);
        let Ok(Parsed::Complete(line)) = line else { panic!("the head is well formed") };
        request.line = line;
        request.headers.hold_received(std::mem::take(&mut self.received));
        request.path.extend_from_slice(PATH);
        request.wire_path.extend_from_slice(PATH);
        request.host.push_str(HOST);
        ex.client.ip = std::net::Ipv4Addr::LOCALHOST.into();
        ex.timing.received = NOW;
        ex.timing.finished = NOW;
        ex.route.copy_from(&self.snapshot.routes[0].labels);
        ex.route.set_matched("/*", "");
    }
}

/// Polls what has nothing to wait for.
fn now<F: Future>(work: F) -> F::Output {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a plugin waits"),
    }
}

/// `consumer` and `limited`: what the plugins should have come to.
fn chain(plugins: &str, mounts: usize, consumer: &str, limited: bool) -> Work {
    let mut stage = Stage::new(plugins);
    assert_eq!(stage.snapshot.routes[0].chain.mounts().len(), mounts);
    stage.serve(|ex| {
        assert_eq!(ex.consumer.name(), consumer);
        assert_eq!(ex.response.headers.get("x-ratelimit-limit").is_some(), limited);
        assert_eq!(ex.response.headers.get("x-from").is_some(), mounts == 8);
    });
    Box::new(move || stage.serve(|ex| ex.response.headers.len() as u64))
}

fn main() -> ExitCode {
    kit::run(&[
        Case { name: "0-plugins", iterations: 2000, make: |_| chain("", 0, "", false) },
        Case { name: "3-plugins", iterations: 2000, make: |_| chain(GUARDED, 3, "jack", true) },
        Case {
            name: "8-plugins",
            iterations: 2000,
            make: |_| chain(&format!("{GUARDED}, {REWRITTEN}"), 8, "jack", true),
        },
    ])
}
