"""Measuring: one sample, and blocks of samples of all targets in random order.

The rules by which a sample is thrown away are RULES and nothing else. They were written before there was anything to
throw away, they look at the circumstances and at correctness, never at how fast somebody was. "unanswered" came with HTTP/2,
where the other streams of a connection would hide one that is lost.
"""

import os
import random
import resource
import time

from lib import machine, stats, tails

STEAL_MAX = 0.01
FOREIGN_MAX = 0.03
REACHED_MIN = 0.99
# A sample that was disturbed is taken again, so many times, once the machine is quiet or this is over.
AGAIN_MAX = 2
QUIET_SECONDS_MAX, QUIET_SHARE = 4.0, 0.05
# Where samples that do not stand leave a target with too few, so many more blocks at most.
MORE_MAX = 2

RULES = [
    ("steal", "the host took more than 1 % of the processors",
     lambda sample: sample["steal"] > STEAL_MAX),
    ("foreign load", "others used more than 3 % of the processors",
     lambda sample: sample["foreign"] > FOREIGN_MAX),
    ("status", "an answer was not 2xx",
     lambda sample: any(not status.startswith("2") for status in sample["load"]["statuses"])),
    ("errors", "a request came to nothing",
     lambda sample: bool(sample["load"]["errors"]) or sample["load"]["answered"] == 0),
    ("unanswered", "a request had no answer 2 s after the end",
     lambda sample: bool(sample["load"]["unanswered"])),
    ("rate", "less than 99 % of the offered rate was answered",
     lambda sample: bool(sample["load"]["offered_rate"])
     and sample["load"]["rate"] < REACHED_MIN * sample["load"]["offered_rate"]),
]
DISTURBED = {"steal", "foreign load"}


class Clock:
    """Processor times at one moment: the gateway's, ours, the machine's."""

    def __init__(self, pids, own):
        self.at = time.monotonic()
        self.gateway = machine.processor_ns(pids)
        self.modes = machine.user_and_system(pids)
        self.others = machine.others_ns([*pids, *own, os.getpid()])
        self.machine = machine.processors()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.own = machine.processor_ns(own) / 1e9 + usage.ru_utime + usage.ru_stime


def sample(load, arguments, seconds, warm_up, target=None, watched=()):
    """Runs load and says what it cost. `watched` are other processes of ours, whose time is not foreign."""
    pids = target.pids() if target else []
    others = [load.process.pid, *watched]
    clocks = []
    take = lambda: clocks.append(Clock(pids, others))
    report = load.run(arguments, seconds, warm_up, take, take)
    begin, end = clocks
    elapsed = end.at - begin.at
    spent = {name: end.machine[name] - begin.machine[name] for name in end.machine}
    whole = os.cpu_count() * elapsed
    gateway = (end.gateway - begin.gateway) / 1e9
    ours = gateway + end.own - begin.own
    # By the clocks of those who ran. What is neither idle nor anybody's is going to sleep and waking up: at 5,000 requests
    # a second that is 4 % of the machine, and more than others may use.
    foreign = sum(time - begin.others.get(task, 0) for task, time in end.others.items()) / 1e9
    user, system = (after - before for before, after in zip(begin.modes, end.modes))
    answered = max(report["answered"], 1)
    processor_us = gateway * 1e6 / answered
    return {
        "target": target.name if target else "direct",
        "cpu_us": processor_us if pids else None,
        "ticks": {"user": user, "system": system},
        "rate": report["rate"],
        "busy": gateway / elapsed,
        "rss_kib": machine.rss_kib(pids) if pids else None,
        "steal": spent["steal"] / whole,
        "foreign": foreign / whole,
        "nobodys": max(0.0, whole - spent["idle"] - spent["steal"] - ours - foreign) / whole,
        "load": report,
    }


def faults(taken):
    return [name for name, _, broken in RULES if broken(taken)]


class Case:
    """One load in one scenario; what blocks of it brought."""

    def __init__(self, scenario, name, path, arguments, variant="plain", rate=None, share=None, goals=None,
                 suites=("quick", "full"), scheme="http", warm_up=0.0, tail_goals=None):
        self.scenario, self.name, self.variant, self.scheme = scenario, name, variant, scheme
        self.path, self.arguments = path, arguments
        self.rate, self.share = rate, share
        # At most so many times the other's processor time a request; of the other's p99.
        self.goals, self.tail_goals, self.suites = goals or {}, tail_goals or {}, suites
        # Where many connections are to be opened first, the run's own may be too short.
        self.warm_up = warm_up
        self.blocks, self.discarded, self.costs, self.direct = [], [], {}, None

    def title(self):
        return f"{self.scenario} {self.name}"

    def load_arguments(self, port, rate):
        arguments = [f"{self.scheme}://127.0.0.1:{port}{self.path}", *self.arguments]
        # Nothing is due at a time where each asks once it was answered, as when the origin is asked directly.
        if self.tail_goals and rate:
            arguments += tails.WATCHED
        if self.variant == "guarded":
            from lib.targets import KEY_HEADER
            arguments += ["-H", KEY_HEADER]
        return arguments + (["-r", f"{rate:.0f}"] if rate else [])

    def values(self, target, of):
        """A figure of a target in each block; None where its sample was discarded."""
        return [of(block[target]) if block.get(target) else None for block in self.blocks]


def wait_for_quiet():
    """Until nobody uses the processors, we being at rest, or it takes too long."""
    until = time.monotonic() + QUIET_SECONDS_MAX
    while machine.busy_share(0.25) > QUIET_SHARE and time.monotonic() < until:
        pass


def standing(take, options):
    """A sample by `take`, again if the machine was disturbed meanwhile, and the samples that were thrown away. None if
    it never stands."""
    discarded = []
    for _ in range(AGAIN_MAX + 1):
        taken = take()
        taken["faults"] = faults(taken)
        broken = set(taken["faults"]) - (DISTURBED if options.keep_disturbed else set())
        if not broken:
            return taken, discarded
        discarded.append(taken)
        if broken - DISTURBED:
            break
        wait_for_quiet()
    return None, discarded


def run_block(case, targets, load, dice, rates, options):
    """One block: each target once, in random order. Returns the samples that stand."""
    order = list(targets)
    dice.shuffle(order)
    block = {}
    for target in order:
        rate = case.rate
        if case.share:
            rate = case.share * rates[target.name] if rates.get(target.name) else None
            if rate is None:
                continue
        arguments = [*case.load_arguments(target.port, rate), "--seed", dice.randrange(1 << 30)]
        taken, discarded = standing(
            lambda: sample(load, arguments, options.seconds, max(options.warm_up, case.warm_up), target), options)
        case.discarded += discarded
        if taken:
            block[target.name] = taken
        target.empty_logs()
    return block


def lacks_pairs(case, targets, options):
    """Whether a target has fewer samples than can be judged, though there were enough blocks."""
    wanted = min(options.blocks, stats.PAIRS_MIN)
    return any(sum(target.name in block for block in case.blocks) < wanted for target in targets)


def run_case(case, targets, load, options, say):
    """Blocks of a case, with a line of progress each."""
    # The same seed gives the same order, whatever else runs.
    dice = random.Random(f"{options.seed} {case.title()}")
    rates = getattr(options, "saturation", {})
    say(f"  {case.title()}: {options.blocks} blocks of {len(targets)} targets, {options.seconds} s each")
    # The origin asks for no keys and speaks no TLS.
    if case.variant not in ("guarded", "tls"):
        arguments = case.load_arguments(load.origin(case.variant), case.rate)
        case.direct = sample(load, arguments, options.seconds, max(options.warm_up, case.warm_up))
    for number in range(options.blocks + MORE_MAX):
        if number >= options.blocks and not lacks_pairs(case, targets, options):
            break
        if time.monotonic() > options.until:
            say("    no time is left for more blocks")
            break
        block = run_block(case, targets, load, dice, rates, options)
        case.blocks.append(block)
        shown = "  ".join(
            f"{target.name} {block[target.name]['cpu_us']:.1f}" if target.name in block else f"{target.name} -"
            for target in targets)
        say(f"    block {number + 1}: {shown}")
    if case.name == "saturated" and case.variant == "plain" and case.scenario == "P1":
        for target in targets:
            seen = [rate for rate in case.values(target.name, lambda taken: taken["rate"]) if rate]
            if seen:
                rates[target.name] = sorted(seen)[len(seen) // 2]
        options.saturation = rates


