"""Two runs held against each other: whether each ratio of ours to another's is the same in both, as far as their intervals tell.

Ratios, since a machine is not as fast today as it was yesterday; their intervals, since no ratio is the same twice. Where two overlap, nothing has
been shown to differ. With few pairs an interval is wide, or too narrow to be one: such a ratio is told and not judged.
"""

import json
from pathlib import Path

from lib import stats, tails
from lib.processes import Failed
from lib.targets import SHOWN

COLUMNS = ["case", "of", "ours over", "first run", "95 % CI", "second run", "95 % CI", ""]
# What is compared: processor time a request, and the tail where each is at a share of its own saturation.
CPU = {"cpu us/req": lambda taken: taken["cpu_us"]}
TAIL = {"p99": tails.p99, "p99 outside of pauses": tails.outside}


def load(folder):
    path = Path(folder) / "raw" / "samples.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failed(f"{path}: expected the samples of a run: {error}") from error


def ratios(run):
    """By case, figure and other: what ours is over theirs."""
    found = {}
    for case in run["cases"]:
        figures = TAIL if case["rate"] is None and "% of own saturation" in case["name"] else CPU
        others = {name for block in case["blocks"] for name in block} - {"ringway"}
        for other in sorted(others):
            for name, figure in figures.items():
                values = [[figure(block[target]) if block.get(target) else None for block in case["blocks"]] for target in ("ringway", other)]
                if seen := stats.paired(*values):
                    found[f"{case['scenario']} {case['name']}", name, other] = seen
    return found


def verdict(first, second):
    if min(first["pairs"], second["pairs"]) < stats.PAIRS_MIN:
        return "too few pairs"
    return "same" if first["low"] <= second["high"] and second["low"] <= first["high"] else "DIFFERS"


def rows(first, second):
    """A line for each ratio that either run has."""
    lines = []
    for key in [*first, *(key for key in second if key not in first)]:
        cells = []
        for seen in (first.get(key), second.get(key)):
            cells += [f"{seen['median']:.2f}", f"{seen['low']:.2f}-{seen['high']:.2f}"] if seen else ["-", "-"]
        is_in_both = key in first and key in second
        case, of, other = key
        lines.append([case, of, SHOWN.get(other, other), *cells, verdict(first[key], second[key]) if is_in_both else "in one only"])
    return lines


def compare(first, second):
    """The table, and how many ratios were judged and differ."""
    lines = rows(ratios(load(first)), ratios(load(second)))
    judged = [line for line in lines if line[-1] in ("same", "DIFFERS")]
    return lines, len(judged), sum(line[-1] == "DIFFERS" for line in judged)
