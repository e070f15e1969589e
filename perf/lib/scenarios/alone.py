"""Scenarios that ask one question each of ours, without peers or with few."""

SCENARIOS = {}


def wanted(suite, scenarios):
    return [name for name in SCENARIOS if name in (scenarios or (SCENARIOS if suite == "full" else ()))]


def minutes(names):
    return sum(SCENARIOS[name].MINUTES for name in names)


def run(names, bench, say):
    pass
