"""P12: what 10,000 routes cost a whole request over one, and the last of 100,000 over the first."""

import random

from lib import stats
from lib.scenarios import ours

PURPOSE = "10,000 routes over a single one, and the last of 100,000 over the first"
MINUTES = 3
ROUTES = 10_000
ALL = 100_000
MORE_NS_MAX, MORE_MIB_MAX, LAST_OVER_FIRST_MAX = 150, 20, 1.03


def run(bench, say):
    dice = random.Random(bench.options.seed)
    columns = ["", "cpu us/req", "over one route [95 % CI]", "RSS MiB"]
    with ours.gateway(bench, "one", ours.routes(1)) as one, \
            ours.gateway(bench, "many", ours.routes(ROUTES)) as many, \
            ours.gateway(bench, "all", ours.routes(ALL)) as all_routes:
        places = {"one route": (one, 0), "first of 10,000": (many, 0), "last of 10,000": (many, ROUTES - 1),
                  "first of 100,000": (all_routes, 0), "last of 100,000": (all_routes, ALL - 1)}
        found = {name: [] for name in places}
        for number in range(bench.options.blocks):
            order = list(places)
            dice.shuffle(order)
            for name in order:
                target, at = places[name]
                found[name].append(ours.standing(bench, target, f"/route/{at}/128", "-c", 64))
            say(f"  block {number + 1}: " + "  ".join(
                f"{name} {taken[-1]['cpu_us']:.1f}" for name, taken in found.items() if taken[-1]))
        started = {"one route": one.started_in, "10,000": many.started_in, "100,000": all_routes.started_in}
    costs = {name: [taken and taken["cpu_us"] for taken in all_taken] for name, all_taken in found.items()}
    rss = {name: stats.median([taken["rss_kib"] / 1024 for taken in all_taken if taken])
           for name, all_taken in found.items()}
    rows, checks = [], []
    for name in places:
        over = stats.paired(costs[name], costs["one route"])
        middle = stats.median([cost for cost in costs[name] if cost])
        rows.append([name, f"{middle:.2f}" if middle else "-",
                     ours.shown(over, 3), f"{rss[name]:.1f}" if rss[name] else "-"])
    last = stats.paired(costs["last of 100,000"], costs["first of 100,000"])
    checks.append(("last of 100,000 over first", last and last["median"], "at most", LAST_OVER_FIRST_MAX))
    more = [1000 * (many - one) for many, one in zip(costs["first of 10,000"], costs["one route"]) if many and one]
    checks.append(("more ns a request than with one route", stats.median(more), "at most", MORE_NS_MAX))
    if rss["one route"] and rss["first of 10,000"]:
        checks.append(("more MiB than with one route", rss["first of 10,000"] - rss["one route"], "at most",
                       MORE_MIB_MAX))
    notes = [f"Started, with one route: {started['one route']:.3f} s; with 10,000: "
             f"{started['10,000']:.3f} s; with 100,000: {started['100,000']:.3f} s. "
             "Noise hides 150 ns: counts of instructions decide."]
    return {"columns": columns, "rows": rows, "checks": checks, "notes": notes, "samples": found}
