"""P14: the origin of one route stalls for a second an answer. Others must not notice.

How long others take is compared with when nobody asks for that route, and with when as many do and it does not stall. Each request is due at a time of
its own; were they all sent at once, and so answered at once, they would hold up others by their number, whatever the origin does.
"""

from lib import stats, tails
from lib.load import Load
from lib.scenarios import ours

PURPOSE = "one upstream stalls for a second an answer: the other route's p99"
MINUTES = 1.5
# Of the route that must not notice, of the other; how many of those can be under way.
RATE, STALLED_RATE, STALLED_MAX = 3000, 200, 400
ROUNDS = 8
P99_MAX = 1.10
KINDS = {
    "quiet": None,
    f"beside {STALLED_RATE}/s": "ms=0",
    f"beside {STALLED_RATE}/s that stall": "ms=1000",
}


def run(bench, say):
    resources = "routes:\n" + ours.route("quick", "/128") + ours.route("slow", "/stall", bench.load.ports[1])
    taken, others = {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}
    other = Load(bench.tools, bench.directory, "stall", origins=0, gives_way=True)
    try:
        with ours.gateway(bench, "stall", resources) as target:
            seconds, warm_up = bench.options.seconds, max(bench.options.warm_up, 1.2)
            for number in range(ROUNDS):
                for kind, query in KINDS.items():
                    if query:
                        # Longer than what is measured on both sides, so that the first of those that stall are answered before it.
                        other.begin([f"http://127.0.0.1:{target.port}/stall?{query}", "-c", STALLED_MAX, "-r", STALLED_RATE,
                                     "-d", seconds + warm_up, "-w", 0.1])
                    taken[kind].append(ours.sample(bench, target, "/128", "-c", 64, "-r", RATE, *tails.WATCHED, warm_up=warm_up,
                                                   watched=[other.process.pid] if query else ()))
                    if query:
                        others[kind].append(other.finish(seconds + warm_up + 15))
                shown = ", ".join(f"{tails.p99(samples[-1]):.0f} us {kind}" for kind, samples in taken.items())
                say(f"  round {number + 1}: p99 {shown}")
    finally:
        other.end()
    return told(taken, others)


def told(taken, others):
    quiet, prompt, stalled = taken.values()
    ratios = {kind: (tails.compared(samples, quiet, tails.p99), tails.compared(samples, quiet), tails.compared(samples, prompt))
              for kind, samples in taken.items()}
    rows = [[kind, f"{stats.median([one['load']['latency_us']['p50'] for one in samples]):.0f}", *tails.cells(samples),
             *map(ours.shown, ratios[kind]), sum(map(ours.errors, samples)), sum(report["answered"] for report in others[kind])]
            for kind, samples in taken.items()]
    return {
        "columns": [f"other route at {RATE}/s", "p50", *tails.COLUMNS, "over quiet, of all [95 % CI]", "over quiet, outside", "over the same without a stall, outside", "errors", "answered beside"],
        "rows": rows,
        "notes": [tails.NOTE, "Clients of the route that stalls share the other processor with the load and the origin, and have what those leave over "
                  "(SCHED_IDLE), so what is added to p99 is the gateway's doing."],
        "checks": [*tails.checks("p99 beside the stall over quiet", stalled, quiet, P99_MAX),
                   *tails.checks("p99 beside the stall over beside as many that do not", stalled, prompt, P99_MAX)],
        "samples": {"taken": taken, "others": others},
    }
