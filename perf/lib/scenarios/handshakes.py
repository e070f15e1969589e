"""Whether handshakes of TLS hold up those who ask in clear: P1 at 30 % of its saturation and at a steady rate while clients arrive over TLS."""

from lib import blocks, stats, tails
from lib.load import Load
from lib.processes import Failed
from lib.scenarios import ours
from lib.targets import SHOWN, VARIANTS

PURPOSE = "plain requests at 30 % of saturation and at a steady rate while 300 handshakes of TLS a second arrive: p99 of the plain ones"
MINUTES = 3
SHARE, HANDSHAKES, ROUNDS = 0.3, 300, 4
P99_MAX = 2.0


def plain(bench, target, *arguments, **more):
    """A run in clear, beside the port for TLS."""
    url = f"http://127.0.0.1:{target.other}/128"
    options = bench.options
    return blocks.sample(bench.load, [url, "-c", 64, *arguments], options.seconds, options.warm_up, target, **more)


def measure(bench, target, other, rate):
    found = {"rate": rate, "quiet": [], "beside": [], "arrived": []}
    arrivals = [f"https://127.0.0.1:{target.port}/128", "-c", 64, "-r", HANDSHAKES, "--new-connections",
                "-d", bench.options.seconds + bench.options.warm_up, "-w", 0.2]
    for _ in range(ROUNDS):
        found["quiet"].append(plain(bench, target, "-r", f"{rate:.0f}", *tails.WATCHED))
        other.begin(arrivals)
        found["beside"].append(plain(bench, target, "-r", f"{rate:.0f}", *tails.WATCHED, watched=[other.process.pid]))
        found["arrived"].append(other.finish(bench.options.seconds + 15))
    return found


def at_each_rate(bench, target, other):
    saturation = plain(bench, target)["rate"]
    if saturation < 1:
        raise Failed(f"{target.name} answers nothing in clear beside TLS")
    return {"30 %": measure(bench, target, other, SHARE * saturation), "steady": measure(bench, target, other, tails.STEADY)}


def row(name, found):
    ratio, of_all = (tails.compared(found["beside"], found["quiet"], of) for of in (tails.outside, tails.p99))
    middles = [tails.cells(found[kind])[1] for kind in ("quiet", "beside")]
    arrived = stats.median([report["rate"] for report in found["arrived"]])
    bad = sum(sum(report["errors"].values()) for report in found["arrived"])
    bad += sum(map(ours.errors, found["quiet"] + found["beside"]))
    return [name, f"{found['rate']:.0f}", *map(tails.strain, (found["quiet"], found["beside"])), *middles, ours.shown(ratio), ours.shown(of_all),
            f"{arrived:.0f}", bad]


def run(bench, say):
    rows, checks, samples = [], [], {}
    other = Load(bench.tools, bench.directory, "handshakes", origins=0, gives_way=True)
    try:
        for target in ours.all_kinds(bench):
            # The relay speaks no TLS, and drivers do not differ in how long a handshake keeps a core.
            if target.name in ("relay", "epoll"):
                continue
            name = SHOWN.get(target.name, target.name)
            try:
                target.start(VARIANTS["tls"], bench.load.ports[0])
                samples[name] = at_each_rate(bench, target, other)
            finally:
                target.end()
            for at, found in samples[name].items():
                rows.append(row(name, found))
                say(f"  {name}: {found['rate']:.0f} requests/s, p99 outside of pauses {rows[-1][4]} us quiet, {rows[-1][5]} us beside")
                if name.startswith("ours"):
                    words = {"30 %": "at 30 % of saturation", "steady": f"at {tails.STEADY:,}/s"}[at]
                    checks += tails.checks(f"{name}, {words}, p99 beside handshakes over quiet", found["beside"], found["quiet"], P99_MAX)
    finally:
        other.end()
    return {
        "columns": ["", "plain req/s", f"{tails.STRAIN}, quiet", "beside", "p99 quiet", "p99 beside", "ratio [95 % CI]", "of all, with pauses", "handshakes/s", "errors"],
        "rows": rows, "checks": checks, "samples": samples,
        "notes": ["The clients of the handshakes share the other processor with the load and the origin. They have what "
                  "those leave over (SCHED_IDLE).", tails.STRAIN_NOTE, f"p99 is outside of pauses. {tails.NOTE}"],
    }
