"""P14: the origin of one route stalls for a second an answer. Others must not notice."""

from lib import stats
from lib.load import Load
from lib.scenarios import ours

PURPOSE = "one upstream stalls for a second an answer: the other route's p99"
MINUTES = 1.5
STALLED, RATE, ROUNDS = 200, 3000, 8
P99_MAX = 1.10


def run(bench, say):
    resources = "routes:\n" + ours.route("quick", "/128") + ours.route("slow", "/stall", bench.load.ports[1])
    quiet, beside, stalled = [], [], []
    other = Load(bench.tools, bench.directory, "stall", origins=0, gives_way=True)
    try:
        with ours.gateway(bench, "stall", resources) as target:
            url = f"http://127.0.0.1:{target.port}/stall?ms=1000"
            seconds = bench.options.seconds
            for number in range(ROUNDS):
                quiet.append(ours.sample(bench, target, "/128", "-c", 64, "-r", RATE))
                other.begin([url, "-c", STALLED, "-d", seconds + bench.options.warm_up, "-w", 0.2])
                beside.append(ours.sample(bench, target, "/128", "-c", 64, "-r", RATE,
                                          watched=[other.process.pid]))
                stalled.append(other.finish(seconds + 15))
                say(f"  round {number + 1}: p99 {p99(quiet[-1]):.0f} us quiet, {p99(beside[-1]):.0f} us beside")
    finally:
        other.end()
    ratio = stats.paired([p99(taken) for taken in beside], [p99(taken) for taken in quiet])
    rows = [[name, f"{stats.median([taken['load']['latency_us']['p50'] for taken in taken_all]):.0f}",
             f"{stats.median([p99(taken) for taken in taken_all]):.0f}", sum(map(ours.errors, taken_all))]
            for name, taken_all in (("quiet", quiet), (f"beside {STALLED} stalled", beside))]
    return {
        "columns": [f"other route at {RATE}/s", "p50", "p99", "errors"], "rows": rows,
        "notes": [f"Stalled requests answered meanwhile: {sum(report['answered'] for report in stalled)}. Their clients share the other "
                  "processor with the load and the origin, and have what those leave over (SCHED_IDLE), so what is added to p99 is the "
                  "gateway's doing."],
        "checks": [("p99 beside the stall over quiet", ratio["median"], "at most", P99_MAX)],
        "samples": {"quiet": quiet, "beside": beside, "stalled": stalled},
    }


def p99(taken):
    return taken["load"]["latency_us"]["p99"]
