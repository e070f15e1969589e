"""The tail of latencies, of all requests and of those that no pause of the host has touched."""

from lib import stats

# Given to the load where a tail is asked about: watches both processors meanwhile.
WATCHED = ["--without-pauses", "0,1"]
# With fewer left than this share of the requests there is nothing to be said.
SHARE_MIN = 0.5
# What `strain` tells.
STRAIN = "load busy, p99 late"
# Requests a second that the load can send on time beside clients that share its processor. At 30 % of our saturation it is 82 % busy by itself.
STEADY = 10_000
STRAIN_NOTE = (f"At 30 % of our saturation the load and the origin take some 82 % of their processor; what further clients take there can make it "
               f"send late, and that is tail. So all is asked at {STEADY:,} requests a second, too.")
COLUMNS = ["p99", "p99 outside of pauses", "requests outside"]
NOTE = ("A pause is a processor that runs nobody of ours, for it is the host's or the kernel's: a thread that comes before all else there, woken 1.5 ms late "
        "or more. What was due around one is left out of *outside of pauses*, with everybody, whatever came of it.")


def p99(taken):
    return taken["load"]["latency_us"]["p99"]


def outside(taken, name="p99"):
    """Of requests outside of pauses; None where they were not told apart, or too few are left."""
    seen = taken["load"].get("outside_pauses_us")
    return seen[name] if seen and seen["share"] >= SHARE_MIN else None


def share(taken):
    seen = taken["load"].get("outside_pauses_us")
    return seen["share"] if seen else None


def strain(taken_all):
    """How busy the load was, and how late 1 % of its requests were sent: near its end the load makes the tail."""
    busy, late = (stats.median(list(map(of, taken_all))) for of in (lambda taken: taken["load"]["busy"], lambda taken: taken["load"]["late_us"]["p99"]))
    return f"{busy:.0%}, {late:.0f} us"


def middle(of, taken_all):
    """The median of a figure over samples that have it."""
    return stats.median([value for value in map(of, taken_all) if value is not None])


def cells(taken_all):
    """What COLUMNS has of samples of one kind."""
    shown = lambda value, text: "-" if value is None else format(value, text)
    return [shown(middle(p99, taken_all), ".0f"), shown(middle(outside, taken_all), ".0f"), shown(middle(share, taken_all), ".0%")]


def checks(what, above, below, bound):
    """That p99 is at most so many times another: of all requests, and of those outside of pauses."""
    found = [(of_what, compared(above, below, of)) for of_what, of in (("of all", p99), ("outside of pauses", outside))]
    return [(f"{what}, {of_what}", ratio and ratio["median"], "at most", bound) for of_what, ratio in found]


def compared(above, below, of=outside):
    """The paired ratio of tails of samples taken in turns."""
    return stats.paired(list(map(of, above)), list(map(of, below)))
