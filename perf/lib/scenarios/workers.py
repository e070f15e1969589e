"""Two cores against one: what sharing costs a request."""

import random

from lib import stats
from lib.scenarios import ours
from lib.targets import KEY_HEADER

PURPOSE = "two cores over one: processor time a request at the same rate"
MINUTES = 1
RATE = 5000
RATIO_MAX = 1.05


def run(bench, say):
    dice = random.Random(bench.options.seed)
    found = {"1 core": [], "2 cores": []}
    with ours.gateway(bench, "one-core", variant="guarded") as one, \
            ours.gateway(bench, "two-cores", variant="guarded", cores="0-1") as two:
        targets = {"1 core": one, "2 cores": two}
        for number in range(bench.options.blocks):
            order = list(targets)
            dice.shuffle(order)
            for name in order:
                found[name].append(
                    ours.standing(bench, targets[name], "/128", "-c", 64, "-r", RATE, "-H", KEY_HEADER))
            say(f"  block {number + 1}: " + "  ".join(
                f"{name} {taken[-1]['cpu_us']:.1f}" for name, taken in found.items() if taken[-1]))
    costs = {name: [taken and taken["cpu_us"] for taken in all_taken] for name, all_taken in found.items()}
    ratio = stats.paired(costs["2 cores"], costs["1 core"])
    rows = []
    for name, values in costs.items():
        middle = stats.median([value for value in values if value])
        over = ours.shown(ratio) if name == "2 cores" else "1.00"
        rows.append([name, f"{middle:.1f}" if middle else "-", over])
    return {
        "columns": ["", f"cpu us/req at {RATE}/s, guarded", "ratio [95 % CI]"], "rows": rows, "samples": found,
        "checks": [("two cores over one", ratio and ratio["median"], "at most", RATIO_MAX)],
        "notes": ["The second core shares its processor with the load, so it is woken later and batches differ."],
    }
