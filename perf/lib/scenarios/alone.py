"""Scenarios that ask one question each, mostly of ours alone: a module each, with its PURPOSE, how many MINUTES it may
take, and `run(bench, say)`, which returns a table."""

import traceback

from lib.processes import Failed
from lib.scenarios import (
    changes, handshakes, limits, p11_idle, p12_routes, p13_reload, p14_stall, p16_limit, p17_overload, workers)

SCENARIOS = {
    "P11": p11_idle, "P12": p12_routes, "P13": p13_reload, "P14": p14_stall, "P16": p16_limit,
    "P17": p17_overload, "workers": workers, "changes": changes, "handshakes-beside": handshakes, "limits": limits,
}


def wanted(suite, scenarios):
    return [name for name in SCENARIOS if name in (scenarios or (SCENARIOS if suite == "full" else ()))]


def minutes(names):
    return sum(SCENARIOS[name].MINUTES for name in names)


def table(name, columns, rows, notes=(), checks=(), **raw):
    """What a scenario returns. Checks are (what, value, at least or at most, bound); a value of None is of samples that do not stand."""
    verdicts = []
    for what, value, side, bound in checks:
        if value is None:
            verdicts.append(f"{what}: no verdict, too few samples stand; goal {side} {bound:g}")
            continue
        holds = value >= bound if side == "at least" else value <= bound
        verdicts.append(f"{what}: {value:.3g}, goal {side} {bound:g}: {'holds' if holds else 'does not hold'}")
    return {"id": name, "purpose": SCENARIOS[name].PURPOSE, "columns": columns, "rows": rows,
            "notes": [*notes, *verdicts], "raw": raw}


def run(names, bench, say):
    """One after the other. One that fails is told and does not take the others with it."""
    for name in names:
        say(f"{name}: {SCENARIOS[name].PURPOSE}")
        try:
            bench.others.append(table(name, **SCENARIOS[name].run(bench, say)))
        except Exception as error:  # Whatever it was, an hour of other results is worth more.
            say(f"  failed: {error}" if isinstance(error, Failed) else traceback.format_exc())
            bench.others.append(table(name, [""], [["failed"]], notes=[f"{type(error).__name__}: {error}"]))
