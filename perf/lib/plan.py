"""The suites, and how long each takes: what there is to sample, added up, so that nothing is left out for want of time."""

from typing import NamedTuple

from lib import counts, targets
from lib.scenarios import alone, compared


# Minutes that a suite may take from a fresh clone, and what builds take of them on two processors that nobody else uses.
WHOLE = {"quick": 15, "full": 90}
BUILDS = {"quick": 9.5, "full": 16}


class Suite(NamedTuple):
    """Blocks of each case, seconds of a sample and of warm-up before it, minutes after which no new block begins, peers."""
    blocks: int
    seconds: float
    warm_up: float
    minutes: float
    against: list


SUITES = {
    "quick": Suite(6, 0.6, 0.3, 5.5, ["nginx", "haproxy"]),
    "full": Suite(6, 1.3, 0.5, 72, ["nginx", "haproxy", "envoy", "pingora"]),
}
# From one sample to the next: the load's last answers, clocks, random order; and what is taken again on a quiet machine.
BETWEEN, AGAIN = 0.35, 1.08
# Starting and ending all targets of a variant, and counting system calls of one target.
START, COUNT = 6.0, counts.SECONDS + 1.0


def case_seconds(case, suite):
    warm_up = max(suite.warm_up, case.warm_up)
    names = targets.names(suite.against, case.variant)
    sample = suite.seconds + warm_up + BETWEEN
    counted = 0 if case.share else (COUNT + max(0.3, case.warm_up)) * (len(names) - 1)
    direct = 0 if case.variant in ("guarded", "tls") else sample
    return suite.blocks * len(names) * sample * AGAIN + counted + direct


def minutes(name):
    """(of what stands side by side, of the other scenarios)."""
    suite = SUITES[name]
    cases = compared.wanted(name, None)
    seconds = sum(case_seconds(case, suite) for case in cases) + START * len({case.variant for case in cases})
    return seconds / 60, alone.minutes(alone.wanted(name, None))
