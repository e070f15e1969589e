"""PNG charts of a results folder. Run by the environment that has matplotlib, with the folder as argument.

It prints, as JSON, which files belong to which case.
"""

import json
import re
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

SIZE = (8, 4)


def samples(case, target):
    return [block[target] for block in case["blocks"] if target in block]


def targets(case):
    return list(dict.fromkeys(name for block in case["blocks"] for name in sorted(block)))


def file_name(*words):
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-") + ".png"


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def processor_bars(case, folder):
    """Processor time a request, median and range of the middle half."""
    rows = []
    for target in targets(case):
        taken = [sample["cpu_us"] for sample in samples(case, target) if sample["cpu_us"]]
        if taken:
            low, high = min(taken), max(taken)
            if len(taken) > 3:
                low, _, high = statistics.quantiles(taken, n=4)
            ticks = [sample["ticks"] for sample in samples(case, target)]
            user = sum(tick["user"] for tick in ticks)
            share = user / max(1, user + sum(tick["system"] for tick in ticks))
            middle = statistics.median(taken)
            rows.append((middle, low, high, middle * share, target))
    if not rows:
        return None
    rows.sort(reverse=True)
    figure, axes = pyplot.subplots(figsize=SIZE)
    names = [row[4] for row in rows]
    middles = [row[0] for row in rows]
    errors = [[max(0, row[0] - row[1]) for row in rows], [max(0, row[2] - row[0]) for row in rows]]
    axes.barh(names, middles, xerr=errors, color="#7aa6c2", label="system")
    axes.barh(names, [row[3] for row in rows], color="#24557a", label="user")
    axes.set_xlabel("processor time a request, microseconds (median; quartiles)")
    axes.set_title(f"{case['scenario']} {case['name']}")
    axes.legend(loc="best")
    path = folder / file_name(case["scenario"], case["name"], "processor")
    save(figure, path)
    return path.name


def latency_curves(case, folder):
    """The tail of latencies: one line a target, the median over blocks at each quantile."""
    if not case["rate"]:
        return None
    figure, axes = pyplot.subplots(figsize=SIZE)
    for target in targets(case):
        curves = [sample["load"]["curve_us"] for sample in samples(case, target)]
        points = [(curve[0][0], statistics.median(at[1] for at in curve)) for curve in zip(*curves)]
        points = [(1 / (1 - quantile), value) for quantile, value in points if 0 < quantile < 0.99999]
        axes.plot([at[0] for at in points], [at[1] for at in points], label=target, marker=".")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([2, 10, 100, 1000, 10000], ["p50", "p90", "p99", "p99.9", "p99.99"])
    axes.set_ylabel("latency from when it was due, microseconds")
    axes.set_title(f"{case['scenario']} {case['name']}")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    path = folder / file_name(case["scenario"], case["name"], "latency")
    save(figure, path)
    return path.name


def ladder(cases, folder):
    """p99 against the offered rate, where a scenario was run at several."""
    found = {}
    for scenario in dict.fromkeys(case["scenario"] for case in cases):
        rated = sorted((case for case in cases if case["scenario"] == scenario and case["rate"]),
                       key=lambda case: case["rate"])
        if len(rated) < 2:
            continue
        figure, axes = pyplot.subplots(figsize=SIZE)
        for target in targets(rated[0]):
            points = [(case["rate"], statistics.median(
                sample["load"]["latency_us"]["p99"] for sample in samples(case, target)))
                for case in rated if samples(case, target)]
            axes.plot([at[0] for at in points], [at[1] for at in points], label=target, marker="o")
        axes.set_xlabel("offered, requests a second")
        axes.set_ylabel("p99, microseconds")
        axes.set_yscale("log")
        axes.set_title(scenario)
        axes.legend()
        path = folder / file_name(scenario, "p99 by rate")
        save(figure, path)
        found.setdefault(f"{rated[-1]['scenario']} {rated[-1]['name']}", []).append(path.name)
    return found


def main():
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "raw" / "samples.json").read_text())["cases"]
    cases = [case for case in cases if any(case["blocks"])]
    made = ladder(cases, folder)
    for case in cases:
        names = [name for name in (processor_bars(case, folder), latency_curves(case, folder)) if name]
        made.setdefault(f"{case['scenario']} {case['name']}", [])[:0] = names
    print(json.dumps(made))


if __name__ == "__main__":
    main()
