"""P17: twice as many requests as it can serve. It should go on serving what it can, and in time.

Two loads, because there are two ways to be too many. On *kept* connections each client asks again and again, and has one
request under way at most: what is too much finds no connection free and is not sent. What is measured is the gateway with all of
them under way, against the same number of connections when each asks as soon as it was answered: fewer would be served for less, and the
difference be taken for overload. *Handshakes* are new clients over TLS, each on a connection of its own, whether the one before was
served or not: nothing holds them back, and who is not served within a second goes. Signing with RSA makes them dear for the gateway and not
for the load, which so can really offer twice what the gateway can do.
"""

from lib import blocks, certificate, stats
from lib.scenarios import ours
from lib.targets import SHOWN, VARIANTS

PURPOSE = "offered twice its saturation: what is still answered in time, over what is answered at saturation"
MINUTES = 5
TIMES, ROUNDS, GOODPUT_MIN = 2.0, 3, 0.95
FEW, MANY = 64, 1024
KEPT_WITHIN, HANDSHAKE_WITHIN = 0.5, 1.0
# Clients that may wait at a time: more than come within the second that each waits.
WAITING = 8192
# Until those who came first have given up, so that what is measured is not the beginning.
SETTLES = 2 * HANDSHAKE_WITHIN
# The gateway is overloaded only if it has no time left (handshakes have three quarters of ours, the rest is for everybody
# else), and the load only offers what it says if it is not late itself.
BUSY_MIN, LATE_MS_MAX = 0.80, 50.0


def good(taken):
    return taken["load"]["good_rate"]


def late_ms(taken):
    """How late requests were sent, by the load's own fault."""
    return taken["load"]["late_us"]["p99"] / 1000


def kept(bench, target):
    """Rounds of saturation and of overload in turns; only rounds in which both stand count."""
    found = {"few": [], "saturated": [], "overload": []}
    for _ in range(ROUNDS):
        few = ours.standing(bench, target, "/128", "-c", FEW)
        saturated = ours.standing(bench, target, "/128", "-c", MANY)
        if not few or not saturated:
            continue
        rate = TIMES * saturated["rate"]
        # Not by the rules: that the rate is not reached is what is asked for here.
        over = ours.sample(bench, target, "/128", "-c", MANY, "-r", f"{rate:.0f}", "--within", KEPT_WITHIN)
        for kind, taken in zip(found, (few, saturated, over)):
            found[kind].append(taken)
    return found


def handshakes(bench, target):
    """The same with new clients over TLS."""
    found = {"saturated": [], "overload": []}
    shown = bench.directory / certificate.RSA.chain
    seconds = max(3.0, bench.options.seconds)
    arguments = [f"https://127.0.0.1:{target.port}/128", "--new-connections", "--certificate", shown]
    for _ in range(ROUNDS):
        saturated = blocks.standing(
            lambda: blocks.sample(bench.load, [*arguments, "-c", FEW], bench.options.seconds, bench.options.warm_up, target),
            bench.options)[0]
        if not saturated:
            continue
        offered = ["-c", WAITING, "-r", f"{TIMES * saturated['rate']:.0f}", "--within", HANDSHAKE_WITHIN]
        found["saturated"].append(saturated)
        found["overload"].append(blocks.sample(bench.load, [*arguments, *offered], seconds, SETTLES, target))
    return found


def verdict(found):
    """Whether the gateway was what there was too little of, and whether the load kept its word; in a word."""
    busy = stats.median([taken["busy"] for taken in found["overload"]])
    late = stats.median(list(map(late_ms, found["overload"])))
    if busy < BUSY_MIN:
        return f"no: {busy:.0%} busy"
    return f"no: load {late:.0f} ms late" if late > LATE_MS_MAX else "yes"


def row(name, load, found):
    """A line of the table, and the ratio in it."""
    if not found["saturated"]:
        return [name, load, *["-"] * 9], None
    share = stats.paired(list(map(good, found["overload"])), list(map(good, found["saturated"])))
    middle = lambda of, kind="overload": stats.median(list(map(of, found[kind])))
    lost = lambda taken: sum(taken["load"]["errors"].values()) + taken["load"]["late_answers"]
    few = f"{middle(good, 'few'):.0f}" if "few" in found else "-"
    return [name, load, few, f"{middle(good, 'saturated'):.0f}", f"{middle(good):.0f}", ours.shown(share),
            f"{middle(lambda taken: taken['load']['latency_us']['p99']) / 1000:.0f}",
            sum(map(lost, found["overload"])), f"{middle(lambda taken: taken['busy']):.0%}",
            f"{middle(lambda taken: taken['load']['busy']):.0%}", verdict(found)], share


def measured(bench, target, variant, measure):
    try:
        target.start(VARIANTS[variant], bench.load.ports[0])
        return measure(bench, target)
    finally:
        target.end()


def run(bench, say):
    rows, samples, checks, notes = [], {}, [], []
    for target in ours.all_kinds(bench):
        name = SHOWN.get(target.name, target.name)
        loads = {"kept connections": ("plain", kept)}
        # The relay speaks no TLS, and drivers do not differ in what a handshake takes.
        if target.name not in ("relay", "epoll"):
            loads["handshakes"] = ("rsa", handshakes)
        samples[name] = {}
        for load, (variant, measure) in loads.items():
            found = samples[name][load] = measured(bench, target, variant, measure)
            line, share = row(name, load, found)
            rows.append(line)
            say(f"  {name}, {load}: good {line[4]}/s of {line[3]}/s, overloaded: {line[-1]}")
            if share and name.startswith("ours"):
                checks.append((f"{name}, {load}, goodput over saturation", share["median"], "at least", GOODPUT_MIN))
                if line[-1] != "yes":
                    notes.append(f"{name}, {load}: not overloaded ({line[-1]}), so its verdict says nothing.")
    return {
        "columns": ["", "load", f"saturated/s, {FEW}", "saturated/s", "good/s, twice offered", "share [95 % CI]", "p99 ms",
                    "late or lost", "busy", "load busy", "overloaded"],
        "rows": rows, "checks": checks, "samples": samples,
        "notes": [f"On {MANY} kept connections an answer is good within {KEPT_WITHIN:g} s, and a request that finds none free is not sent; "
                  f"a new client waits for {HANDSHAKE_WITHIN:g} s at most, on {FEW} connections when saturated. p99 is of what was answered. "
                  "Load and origin share the other processor.",
                  *notes],
    }
