"""Medians of paired ratios, how sure they are, and whether a difference is one at all."""

import math
import statistics

# How sure an interval is to have the true median, at least; with fewer values than that takes, see `coverage`, it is from the
# smallest to the largest.
SURE = 0.95
# The fewest pairs whose interval is that sure; of fewer nothing is judged.
PAIRS_MIN = 6


def median(values):
    return statistics.median(values) if values else None


def coverage(count, rank):
    """How likely the true median lies between the values of this rank from either end, 1 being the outermost, of so many that know nothing
    of each other, however they are spread: each is above it or below it as a coin falls."""
    return 1 - 2 * sum(math.comb(count, below) for below in range(rank)) / 2**count


def interval(values):
    """The interval of the median, between two of the values: with 95 % certainty from 6 values on (5 give 94 %, 4 give 88)."""
    if not values:
        return None, None
    rank = 1
    while coverage(len(values), rank + 1) >= SURE:
        rank += 1
    in_order = sorted(values)
    return in_order[rank - 1], in_order[-rank]


def signed_rank(ratios):
    """The two-sided p of Wilcoxon's signed-rank test that ratios lie around 1: exact, ties broken by order."""
    differences = sorted((ratio - 1 for ratio in ratios if ratio != 1), key=abs)
    count = len(differences)
    if count == 0:
        return 1.0
    above = sum(rank for rank, difference in enumerate(differences, 1) if difference > 0)
    total = count * (count + 1) // 2
    # ways[s]: how many of the 2^count choices of signs have the sum s of positive ranks.
    ways = [1] + [0] * total
    for rank in range(1, count + 1):
        for at in range(total, rank - 1, -1):
            ways[at] += ways[at - rank]
    extreme = min(above, total - above)
    return min(1.0, 2 * sum(ways[: extreme + 1]) / 2**count)


def paired(numerator, denominator):
    """What the ratios of samples of the same block say; None where there is nothing to compare."""
    ratios = [a / b for a, b in zip(numerator, denominator) if a and b]
    if not ratios:
        return None
    low, high = interval(ratios)
    return {
        "median": median(ratios), "low": low, "high": high,
        "p": signed_rank(ratios), "pairs": len(ratios), "ratios": ratios,
    }
