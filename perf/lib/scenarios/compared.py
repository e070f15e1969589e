"""Scenarios in which gateways stand side by side: what each is for, its load, and the goals of ours against others.

Goals are at-most ratios of our processor time per request to the other's, as docs/performance.md has them.
"""

import time

from lib import blocks, counts
from lib.blocks import Case
from lib.processes import Failed
from lib.targets import VARIANTS, all_of

PURPOSES = {
    "P1": "a plain GET with a 128-byte answer: the base",
    "P2": "the same behind a key, a limit, metrics and an access log",
    "POST": "a body of 1 KiB up, 128 bytes down",
    "P4": "a new connection over TLS 1.3 for each request: handshakes, full and resumed",
    "P5": "1 KiB down over TLS 1.3 on kept connections: what encryption costs",
    "P6": "HTTP/2 with clients, HTTP/1.1 with the origin: many requests on few connections",
    "P7": "calls of gRPC, HTTP/2 on both sides: a message of 100 bytes there and back",
    "P8": "1,000 WebSockets, 64 bytes there and back",
    "TCP": "bytes of TCP passed on as they are, 64 there and back",
    "P9": "64 KiB down, 64 KiB up: copies",
    "P10": "1 MiB down on 16 connections: streaming",
    "P15": "a new connection for each request: the way in",
}

MANY = ["-c", 64]
# As many requests under way as with MANY.
STREAMS = ["-c", 4, "--streams", 16]
TLS_GOALS = {"nginx": 0.80, "haproxy": 0.80, "envoy": 0.30, "pingora": 0.60}
HANDSHAKE_GOALS = {"nginx": 0.75, "haproxy": 0.75, "envoy": 1.0, "pingora": 1.0}
HTTP2_GOALS = {"nginx": 0.80, "haproxy": 0.90, "envoy": 0.5, "pingora": 0.6}
# Of streams of TCP nobody has said anything; they do what WebSockets do, once those are open.
BYTES_GOALS = {"relay": 1.1, "nginx": 0.85, "haproxy": 0.9, "envoy": 0.5, "pingora": 0.7}

CASES = [
    Case("P1", "saturated", "/128", MANY,
         goals={"relay": 1.20, "nginx": 0.80, "haproxy": 0.80, "envoy": 0.22, "pingora": 0.50}),
    Case("P1", "at 5,000/s", "/128", MANY, rate=5000, suites=("full",),
         goals={"relay": 1.25, "nginx": 0.85, "haproxy": 0.75, "envoy": 0.30, "pingora": 0.55}),
    Case("P1", "at 10,000/s", "/128", MANY, rate=10000,
         goals={"relay": 1.25, "nginx": 0.85, "haproxy": 0.75, "envoy": 0.30, "pingora": 0.55}),
    Case("P1", "1 connection", "/128", ["-c", 1], suites=("full",),
         goals={"relay": 1.3, "nginx": 0.95, "haproxy": 1.0, "envoy": 0.4, "pingora": 0.7}),
    # Each at its own rate: the figure is latency, not processor time.
    Case("P1", "at 60 % of own saturation", "/128", MANY, share=0.6, suites=("full",),
         tail_goals={"nginx": 1.0, "haproxy": 1.0, "envoy": 0.6, "pingora": 0.7}),
    Case("POST", "1 KiB saturated", "/128", [*MANY, "-b", 1024],
         goals={"relay": 1.2, "nginx": 0.70, "haproxy": 0.70, "envoy": 0.20, "pingora": 0.50}),
    Case("P15", "saturated", "/128", [*MANY, "--new-connections"],
         goals={"nginx": 0.85, "haproxy": 0.90, "envoy": 0.5, "pingora": 0.6}),
    Case("P2", "saturated", "/128", MANY, variant="guarded",
         goals={"relay": 1.35, "unguarded": 1.08, "nginx": 0.75, "haproxy": 0.75, "envoy": 0.20, "pingora": 0.45}),
    Case("P2", "at 5,000/s", "/128", MANY, variant="guarded", rate=5000, suites=("full",),
         goals={"relay": 1.35, "unguarded": 1.08, "nginx": 0.75, "haproxy": 0.75, "envoy": 0.20, "pingora": 0.45}),
    Case("P5", "saturated", "/1k", MANY, variant="tls", scheme="https", goals=TLS_GOALS, suites=("full",)),
    Case("P5", "at 5,000/s", "/1k", MANY, variant="tls", scheme="https", rate=5000, goals=TLS_GOALS, suites=("full",)),
    Case("P4", "full handshakes", "/128", [*MANY, "--new-connections"], variant="tls", scheme="https",
         goals=HANDSHAKE_GOALS, suites=("full",)),
    Case("P4", "resumed", "/128", [*MANY, "--new-connections", "--resume"], variant="tls", scheme="https",
         goals=HANDSHAKE_GOALS, suites=("full",)),
    Case("P6", "4 connections, 16 streams each", "/128", STREAMS, variant="h2", scheme="h2c", goals=HTTP2_GOALS,
         suites=("full",)),
    Case("P6", "1 connection, 64 streams", "/128", ["-c", 1, "--streams", 64], variant="h2", scheme="h2c",
         goals=HTTP2_GOALS, suites=("full",)),
    Case("P7", "100 bytes", "/perf.Echo/Unary", [*STREAMS, "--message-bytes", 100], variant="grpc", scheme="grpc",
         goals=HTTP2_GOALS, suites=("full",)),
    Case("P8", "64 bytes, 1,000 connections", "/", ["-c", 1000, "--message-bytes", 64], variant="websocket", scheme="ws",
         goals=BYTES_GOALS, suites=("full",), warm_up=1.5),
    Case("TCP", "64 bytes", "", [*MANY, "--message-bytes", 64], variant="stream", scheme="tcp", goals=BYTES_GOALS,
         suites=("full",)),
    Case("P9", "64 KiB down", "/64k", MANY, variant="large", suites=("full",),
         goals={"relay": 1.15, "nginx": 0.65, "haproxy": 1.0, "envoy": 0.6, "pingora": 0.7}),
    Case("P9", "64 KiB up", "/128", [*MANY, "-b", 65536], variant="large", suites=("full",),
         goals={"relay": 1.15, "nginx": 0.65, "haproxy": 1.0, "envoy": 0.6, "pingora": 0.7}),
    Case("P10", "1 MiB down, 16 connections", "/1m", ["-c", 16], variant="large", suites=("full",),
         goals={"relay": 1.1, "nginx": 0.85, "haproxy": 1.0, "envoy": 0.6, "pingora": 0.7}),
]
SCENARIOS = list(PURPOSES)


def wanted(suite, scenarios):
    """The cases of a suite; scenarios that are asked for by name come whole."""
    if scenarios:
        return [case for case in CASES if case.scenario in scenarios]
    return [case for case in CASES if suite in case.suites]


def heads(targets, variant, say):
    """What the origin is sent through each target, and whether all say the same."""
    needed = {"x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"}
    seen = {}
    # The origin looks at no header lines of HTTP/2, and TCP has none.
    if variant in ("grpc", "stream"):
        return seen
    for target in targets:
        head = counts.fetch(target.port, "/echo", counts.KEYED if "guarded" in target.variants else (), variant)
        seen[target.name] = head
        names = {line.partition(":")[0].strip().lower() for line in head.splitlines()[1:]}
        if target.name != "relay" and needed - names:
            say(f"    {target.name} does not add {', '.join(sorted(needed - names))}")
    return seen


def refuse_strangers(targets, variant):
    """Whoever stands among the guarded must refuse a request without a key, or the comparison is none."""
    for target in targets if variant not in ("grpc", "stream") else ():
        guarded = target.name != "relay" and "guarded" in target.variants
        status = counts.answer(target.port, "/128", variant=variant)[0]
        if status != ("401" if guarded else "200"):
            raise Failed(f"{target.name} answers {status} to a request without a key")


def run(cases, bench, say):
    """Runs cases variant by variant, each with all its targets running side by side."""
    done = []
    # What matters most goes first, in case time runs out.
    for variant in sorted({case.variant for case in cases}, key=list(VARIANTS).index):
        targets = all_of(bench.binaries, bench.options.against, bench.directory, variant)
        say(f"variant {variant}: starting {', '.join(target.name for target in targets)}")
        try:
            for target in targets:
                target.start(VARIANTS[variant], bench.load.origin(variant))
            bench.raw.setdefault("heads", {})[variant] = heads(targets, variant, say)
            refuse_strangers(targets, variant)
            for case in (case for case in cases if case.variant == variant):
                if time.monotonic() > bench.options.until:
                    say(f"  {case.title()}: left out, no time is left")
                    continue
                blocks.run_case(case, targets, bench.load, bench.options, say)
                case.costs = counts.of_case(case, targets, bench.load, say)
                done.append(case)
                bench.save(done)
        except Failed as error:
            say(f"variant {variant} failed: {error}")
        finally:
            for target in targets:
                target.end()
    return done
