"""P13: a change of one of 10,000 routes every second under load. No request may notice."""

import threading
import time

from lib import counts, stats, tails
from lib.scenarios import ours

PURPOSE = "one of 10,000 routes changes every second under 30 % load: no error"
MINUTES = 2
ROUTES, ROUNDS = 10_000, 4
SHARE, EVERY_SECONDS, SECONDS = 0.3, 1.0, 6
TAIL_MAX = 1.5
QUANTILES = ("p50", "p99", "p99.9", "max")


class Changes(threading.Thread):
    """Writes the resources anew every second, one route different each time."""

    def __init__(self, target, text, count):
        super().__init__(daemon=True)
        self.path, self.text = target.resources_path(), text
        self.stopped, self.count = threading.Event(), count

    def run(self):
        while not self.stopped.wait(EVERY_SECONDS):
            self.count += 1
            changed = self.text.replace(f"/route/{self.count}/128", f"/route/{self.count}/changed-{self.count}/128")
            # In one step: a half-written file would be waited for.
            fresh = self.path.with_suffix(".new")
            fresh.write_text(changed)
            fresh.replace(self.path)


def is_served(target, count, within=3):
    """Whether the last change comes to be what is served."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if counts.fetch(target.port, f"/route/{count}/changed-{count}/128") == "x" * 128:
            return True
        time.sleep(0.05)
    return False


def run(bench, say):
    found = {"quiet": [], "with changes": []}
    seconds, count = min(SECONDS, 3 * bench.options.seconds), 0
    with ours.gateway(bench, "reload", ours.routes(ROUTES)) as target:
        path, text = f"/route/{ROUTES - 1}/128", target.resources_path().read_text()
        rate = SHARE * ours.saturation(bench, target, path, "-c", 64)
        say(f"  at {rate:.0f}/s, {ROUNDS} rounds of {seconds:g} s quiet and {seconds:g} s with changes")
        arguments = (path, "-c", 64, "-r", f"{rate:.0f}", *tails.WATCHED)
        for _ in range(ROUNDS):
            found["quiet"].append(ours.sample(bench, target, *arguments, seconds=seconds))
            changes = Changes(target, text, count)
            changes.start()
            found["with changes"].append(ours.sample(bench, target, *arguments, seconds=seconds))
            changes.stopped.set()
            changes.join()
            count = changes.count
        last = is_served(target, count)
    rows = []
    for name, taken in found.items():
        middles = [stats.median([one["load"]["latency_us"][quantile] for one in taken]) for quantile in QUANTILES]
        rows.append([name, f"{stats.median([one['load']['rate'] for one in taken]):.0f}",
                     sum(map(ours.errors, taken)), *(f"{middle:.0f}" for middle in middles)])
    ratio = tails.compared(found["with changes"], found["quiet"], lambda taken: tails.outside(taken, "p99.9"))
    of_all = tails.compared(found["with changes"], found["quiet"], lambda taken: taken["load"]["latency_us"]["p99.9"])
    return {
        "columns": ["", "req/s", "errors", *QUANTILES], "rows": rows,
        "notes": [f"{count} changes; the last one {'is' if last else 'IS NOT'} served. "
                  f"p99.9 over quiet: {ours.shown(ratio)} outside of pauses, {ours.shown(of_all)} of all.", tails.NOTE],
        "checks": [("errors", rows[1][2], "at most", 0), ("p99.9 over quiet, of all", of_all and of_all["median"], "at most", TAIL_MAX),
                   ("p99.9 over quiet, outside of pauses", ratio and ratio["median"], "at most", TAIL_MAX)],
        "samples": found,
    }
