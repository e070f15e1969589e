"""Limits side by side: one client asks for twice as much as it may. How much each gateway lets in, over what it should;
the most it lets in within any second; and what a request costs it, those refused among them."""

from lib import stats
from lib.scenarios import ours
from lib.targets import LIMITS, SHOWN, VARIANTS, Envoy, Haproxy, Nginx, Ringway

PURPOSE = "a client asks for twice its limit: admitted over allowed, the most in any second, processor time a request"
MINUTES = 2
SECONDS, ROUNDS, TIMES, WINDOW = 5.9, 3, 2.0, 1
# Windows begin with the first request, so one more begins within the time than is over.
WINDOWS = 6
LEAST, MOST = 0.98, 1.0

RESOURCES = """\
routes:
  - id: limited
    uri: /*
    plugins:
      {plugin}
    upstream:
      nodes: {{"127.0.0.1:@ORIGIN@": 1}}
      keepalive_pool: {{size: 128, idle_timeout: 600, requests: 1000000000}}
"""
RATE, BURST = LIMITS["RATE"], LIMITS["BURST"]
REQ = f"limit-req: {{rate: {RATE}, burst: {BURST}, nodelay: true, key: remote_addr, rejected_code: 429}}"
COUNT = f"limit-count: {{count: {RATE}, time_window: {WINDOW}, key: remote_addr, rejected_code: 429}}"
# One has its turn at once, beyond what is even and the burst.
EVEN, WINDOWED = RATE * SECONDS + BURST + 1, RATE * WINDOWS


def kinds(bench):
    """Targets, how each limits, what it should let in, and what it may let in within a second."""
    folder = bench.directory / "alone"
    folder.mkdir(exist_ok=True)
    binary = bench.binaries["ringway"]
    found = [
        (Ringway("ringway", binary, folder, resources=RESOURCES.format(plugin=REQ)),
         "limit-req", EVEN, RATE + BURST + 1),
        (Ringway("windows", binary, folder, resources=RESOURCES.format(plugin=COUNT)), "limit-count", WINDOWED, RATE),
    ]
    if "nginx" in bench.options.against:
        found.append((Nginx("nginx", bench.binaries["nginx"], folder), "limit_req", EVEN, RATE + BURST + 1))
    if "haproxy" in bench.options.against:
        found.append((Haproxy("haproxy", bench.binaries["haproxy"], folder), "http_req_rate", WINDOWED, RATE))
    if "envoy" in bench.options.against:
        found.append((Envoy("envoy", bench.binaries["envoy"], folder), "local_ratelimit", EVEN, RATE + BURST + 1))
    return found


def measure(bench, target):
    """Rounds, each with a gateway that has seen nobody."""
    taken_all = []
    for _ in range(ROUNDS):
        try:
            target.start(VARIANTS["limited"], bench.load.ports[0])
            taken_all.append(ours.sample(bench, target, "/128", "-c", 64, "-r", f"{RATE * TIMES:.0f}", "--window", 1,
                                         seconds=SECONDS, warm_up=0))
        finally:
            target.end()
    return taken_all


def run(bench, say):
    rows, checks, samples = [], [], {}
    for target, how, allowed, second in kinds(bench):
        name = f"{'ours' if isinstance(target, Ringway) else SHOWN.get(target.name, target.name)}, {how}"
        taken_all = samples[name] = measure(bench, target)
        reports = [taken["load"] for taken in taken_all]
        admitted = stats.median([report["good"] for report in reports])
        ratio, most = admitted / allowed, max(report["good_in_window_max"] for report in reports)
        others = sum(count for report in reports for status, count in report["statuses"].items()
                     if status not in ("200", "429"))
        bad = others + sum(sum(report["errors"].values()) for report in reports)
        cpu = stats.median([taken["cpu_us"] for taken in taken_all])
        say(f"  {name}: {ratio:.4f}, at most {most} in a second, {cpu:.1f} us a request")
        rows.append([name, f"{stats.median([report['offered'] for report in reports]):.0f}", f"{admitted:.0f}",
                     f"{allowed:.0f}", f"{ratio:.4f}", most, f"{most / second:.3f}", f"{cpu:.1f}", bad])
        if name.startswith("ours"):
            checks += [(f"{name}, admitted", ratio, "at least", LEAST), (f"{name}, admitted", ratio, "at most", MOST)]
    return {
        "columns": ["", "offered", "admitted", "allowed", "admitted over allowed", "most in a second",
                    "over its limit", "cpu us/req", "errors"],
        "rows": rows, "checks": checks, "samples": samples,
        "notes": [f"{RATE}/s, a burst of {BURST} where such a thing is known, for {SECONDS} s, {ROUNDS} rounds: medians, "
                  "and the worst second of all. HAProxy's rate is of two counters over a sliding second; who is refused "
                  "is not counted. Envoy's limit is for all clients together and fills in tokens each 50 ms."],
    }
