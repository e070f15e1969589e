"""What a run came to: the table at the terminal, results.md, and JSON with every sample."""

import json
import re

from lib import stats, tails
from lib.blocks import RULES
from lib.targets import SHOWN

COLUMNS = ["", "cpu us/req", "user", "system", "x floor", "vs ours [95 % CI]", "req/s", "p50", "p99", "p99.9",
           "batch", "req/wait", "calls/req", "RSS MiB", "busy"]


def figure(value, digits=1, unit=""):
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def middle(case, target, of):
    return stats.median([value for value in case.values(target, of) if value is not None])


def latency(name):
    return lambda taken: taken["load"]["latency_us"][name]


def cpu(taken):
    return taken["cpu_us"]


def ratio(case, above, below):
    return stats.paired(case.values(above, cpu), case.values(below, cpu))


def noise(case):
    """How far ours lies from ours, at most: what differs less is noise."""
    found = ratio(case, "again", "ringway")
    return max(abs(found["low"] - 1), abs(found["high"] - 1)) if found else None


def targets_of(case):
    names = []
    for block in case.blocks:
        names += [name for name in block if name not in names]
    known = list(SHOWN)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def split(case, target):
    """User and system time a request. Ticks are few in one sample, so those of all blocks make the proportion."""
    taken = [block[target] for block in case.blocks if target in block]
    user = sum(one["ticks"]["user"] for one in taken)
    whole = user + sum(one["ticks"]["system"] for one in taken)
    middle_us = middle(case, target, cpu)
    if not whole or middle_us is None:
        return None, None
    return middle_us * user / whole, middle_us * (whole - user) / whole


def row(case, target):
    costs = case.costs.get(target, {})
    floor, ours = ratio(case, target, "relay"), ratio(case, target, "ringway")
    rss = middle(case, target, lambda taken: taken["rss_kib"])
    compared = "1.00" if target == "ringway" else "-"
    if ours and target != "ringway":
        compared = f"{ours['median']:.2f} [{ours['low']:.2f}-{ours['high']:.2f}]"
    return [
        SHOWN.get(target, target),
        figure(middle(case, target, cpu)),
        *map(figure, split(case, target)),
        figure(floor and floor["median"], 2),
        compared,
        figure(middle(case, target, lambda taken: taken["rate"]), 0),
        *(figure(middle(case, target, latency(name)), 0) for name in ("p50", "p99", "p99.9")),
        figure(costs.get("batch")),
        figure(costs.get("requests_per_wait")),
        figure(costs.get("calls_per_request"), 2),
        figure(rss and rss / 1024),
        figure(100 * (middle(case, target, lambda taken: taken["busy"]) or 0), 0, " %"),
    ]


def direct_row(case):
    if not case.direct:
        return []
    blank = ["-"] * 4
    return [["direct", *blank, "-", figure(case.direct["rate"], 0),
             *(figure(latency(name)(case.direct), 0) for name in ("p50", "p99", "p99.9")), *["-"] * 5]]


def heading(case):
    offered = "saturated"
    if case.rate:
        offered = f"offered {case.rate:,}/s"
    elif case.share:
        offered = f"each at {case.share:.0%} of its own saturation"
    reasons = {}
    for taken in case.discarded:
        for fault in taken["faults"]:
            key = f"{taken['target']}: {fault}"
            reasons[key] = reasons.get(key, 0) + 1
    discarded = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items())) or "none"
    own = noise(case)
    spread = f"A/A +-{own:.1%}" if own is not None else "A/A unknown"
    return (f"{case.title()} | {offered} | blocks {len(case.blocks)} | samples discarded {len(case.discarded)}"
            f" ({discarded}) | {spread}{strained(case) if case.share else ''}")


def strained(case):
    """How near its end the load was before each, where each has its own."""
    taken = {name: [block[name] for block in case.blocks if name in block] for name in targets_of(case)}
    return f" | {tails.STRAIN}: " + "; ".join(f"{SHOWN.get(name, name)} {tails.strain(samples)}" for name, samples in taken.items())


def disturbed(case):
    """Samples that stand although the machine was disturbed; only where that was asked for."""
    return sum(bool(taken["faults"]) for block in case.blocks for taken in block.values())


def goals(case):
    """Each goal of ours against another: the ratio, its interval, and whether it holds."""
    found = []
    wanted = [(case.title(), cpu, *goal) for goal in case.goals.items()]
    wanted += [(f"{case.title()}, p99{of_what}", of, *goal) for goal in case.tail_goals.items()
               for of_what, of in (("", tails.p99), (" outside of pauses", tails.outside))]
    for title, of, other, goal in wanted:
        seen = stats.paired(case.values("ringway", of), case.values(other, of))
        if not seen:
            continue
        verdict = "holds" if seen["high"] <= goal else "does not hold" if seen["low"] > goal else "open"
        if seen["pairs"] < stats.PAIRS_MIN:
            verdict = "too few pairs"
        found.append({"case": title, "other": other, "goal": goal, "verdict": verdict,
                      **{name: seen[name] for name in ("median", "low", "high", "p", "pairs")}})
    return found


def file_name(*words):
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def text_table(columns, rows):
    """Aligned for the terminal."""
    widths = [max(len(str(line[at])) for line in [columns, *rows]) for at in range(len(columns))]
    lines = []
    for line in [columns, *rows]:
        cells = [str(cell).ljust(width) if at == 0 else str(cell).rjust(width)
                 for at, (cell, width) in enumerate(zip(line, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(columns, rows):
    lines = ["| " + " | ".join(map(str, columns)) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, line)) + " |" for line in rows])


def goal_rows(cases):
    return [[goal["case"], SHOWN.get(goal["other"], goal["other"]), f"{goal['median']:.2f}",
             f"{goal['low']:.2f}-{goal['high']:.2f}", f"{goal['p']:.3f}", goal["pairs"], f"{goal['goal']:.2f}",
             goal["verdict"]] for case in cases for goal in goals(case)]


GOAL_COLUMNS = ["case", "ours over", "ratio", "95 % CI", "p", "pairs", "goal, at most", ""]


def case_rows(case):
    return direct_row(case) + [row(case, target) for target in targets_of(case)]


def terminal(cases, others):
    """All tables as plain text."""
    parts = []
    for case in cases:
        parts.append(heading(case) + "\n" + text_table(COLUMNS, case_rows(case)))
    if rows := goal_rows(cases):
        parts.append("Goals\n" + text_table(GOAL_COLUMNS, rows))
    for other in others:
        parts.append(f"{other['id']} {other['purpose']}\n" + text_table(other["columns"], other["rows"])
                     + "".join(f"\n{note}" for note in other["notes"]))
    return "\n\n".join(parts)


def markdown(facts, cases, others, charts):
    """results.md: everything a reader needs to believe it or not."""
    machine, options = facts["machine"], facts["options"]
    lines = [
        f"# Results of {facts['revision']}, {facts['date']}", "",
        f"Suite `{options['suite']}`, {options['blocks']} blocks of {options['seconds']} s, seed {options['seed']}. "
        f"{machine['processor']}, {machine['processors']} processors"
        f"{' of a virtual machine' if machine['hypervisor'] else ''}, Linux {machine['kernel']}. "
        "Times in microseconds. How to read this: `perf/README.md`.", "",
    ]
    if count := sum(disturbed(case) for case in cases):
        lines += [f"**{count} samples stand although the machine was disturbed (`--keep-disturbed`): "
                  "these figures prove nothing.**", ""]
    for case in cases:
        lines += [f"## {case.title()}", "", heading(case), "", markdown_table(COLUMNS, case_rows(case)), ""]
        lines += [f"![{case.title()}]({name})\n" for name in charts.get(case.title(), [])]
    if rows := goal_rows(cases):
        lines += ["## Goals", "", markdown_table(GOAL_COLUMNS, rows), ""]
    for other in others:
        lines += [f"## {other['id']} {other['purpose']}", "", markdown_table(other["columns"], other["rows"]), ""]
        lines += [f"{note}\n" for note in other["notes"]]
    lines += ["## Rules by which samples were discarded", ""]
    lines += [f"- {name}: {why}" for name, why, _ in RULES]
    lines += ["", "## Programs", ""]
    for name, version in facts["versions"].items():
        tls = facts["tls"].get(name)
        lines += [f"- {name}: {version.splitlines()[0] if version else 'unknown'}{f'; TLS by {tls}' if tls else ''}"]
    return "\n".join(lines) + "\n"


def raw(facts, cases, others, more):
    """Everything, for whoever wants to count again."""
    return json.dumps({
        **facts, **more,
        "cases": [{
            "scenario": case.scenario, "name": case.name, "variant": case.variant, "rate": case.rate,
            "blocks": case.blocks, "discarded": case.discarded, "costs": case.costs, "direct": case.direct,
            "goals": goals(case),
        } for case in cases],
        "others": others,
    }, separators=(",", ":"), default=str)
