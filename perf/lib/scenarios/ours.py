"""What scenarios of ours alone share: one gateway with routes of one's own, and how fast it goes."""

from contextlib import contextmanager

from lib import blocks, counts, targets
from lib.targets import VARIANTS, Ringway

ROUTE = """\
  - id: "{id}"
    uri: {uri}
    upstream:
      nodes: {{"127.0.0.1:{port}": 1}}
      keepalive_pool: {{size: 128, idle_timeout: 600, requests: 1000000000}}
"""


SHARED = """\
  - id: "{id}"
    uri: {uri}
    upstream_id: origin
"""
UPSTREAM = """\
upstreams:
  - id: origin
    nodes: {"127.0.0.1:@ORIGIN@": 1}
    keepalive_pool: {size: 128, idle_timeout: 600, requests: 1000000000}
"""


def route(id, uri, port="@ORIGIN@"):
    return ROUTE.format(id=id, uri=uri, port=port)


def routes(count):
    """So many routes of exact paths to one upstream."""
    made = (SHARED.format(id=f"r{number}", uri=f"/route/{number}/128") for number in range(count))
    return f"{UPSTREAM}routes:\n{''.join(made)}#END\n"


@contextmanager
def gateway(bench, name, resources=None, variant="plain", **more):
    """A gateway of ours that ends with the block."""
    folder = bench.directory / "alone"
    folder.mkdir(exist_ok=True)
    target = Ringway(name, bench.binaries["ringway"], folder, resources=resources, **more)
    try:
        target.start(VARIANTS[variant], bench.load.origin(variant))
        yield target
    finally:
        target.end()


def all_kinds(bench):
    """Ours on both drivers, the relay, and the peers; none is started."""
    folder = bench.directory / "alone"
    folder.mkdir(exist_ok=True)
    names = ["ringway", "epoll", "relay", *bench.options.against]
    made = {target.name: target for target in targets.all_of(
        bench.binaries, bench.options.against, bench.directory, "alone")}
    return [made[name] for name in names]


def sample(bench, target, path, *arguments, seconds=None, warm_up=None, watched=()):
    """One run against the gateway."""
    url = f"http://127.0.0.1:{target.port}{path}"
    seconds = seconds or bench.options.seconds
    warm_up = bench.options.warm_up if warm_up is None else warm_up
    return blocks.sample(bench.load, [url, *arguments], seconds, warm_up, target, watched)


def standing(bench, target, path, *arguments, **more):
    """A run that the rules let stand, or none."""
    return blocks.standing(lambda: sample(bench, target, path, *arguments, **more), bench.options)[0]


def shown(ratio, digits=2):
    """A paired ratio with its interval."""
    if not ratio:
        return "-"
    return f"{ratio['median']:.{digits}f} [{ratio['low']:.{digits}f}-{ratio['high']:.{digits}f}]"


def metric(target, name):
    """One of its figures."""
    text = counts.fetch(target.metrics, "/metrics")
    found = [line for line in text.splitlines() if line.startswith(name)]
    return float(found[0].rpartition(" ")[2]) if found else None


def saturation(bench, target, path, *arguments):
    """Requests a second at which each connection always has one under way."""
    return sample(bench, target, path, *arguments, seconds=min(2.0, bench.options.seconds))["rate"]


def errors(taken):
    """Requests of a sample that came to nothing or to no 2xx, those of the warm-up and the end among them."""
    report = taken["load"]
    seen = {**report["statuses"]}
    for word, count in report["outside"].items():
        seen[word] = seen.get(word, 0) + count
    bad = sum(count for word, count in seen.items() if not word.startswith("2"))
    return bad + sum(report["errors"].values())
