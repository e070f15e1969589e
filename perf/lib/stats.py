"""Medians of paired ratios, how sure they are, and whether a difference is one at all."""

import random
import statistics

RESAMPLES = 4000


def median(values):
    return statistics.median(values) if values else None


def interval(values, seed=1):
    """The 95 % bootstrap interval of the median."""
    if len(values) < 3:
        return (min(values), max(values)) if values else (None, None)
    dice = random.Random(seed)
    medians = sorted(
        statistics.median(dice.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975) - 1]


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


def paired(numerator, denominator, seed=1):
    """What the ratios of samples of the same block say; None where there is nothing to compare."""
    ratios = [a / b for a, b in zip(numerator, denominator) if a and b]
    if not ratios:
        return None
    low, high = interval(ratios, seed)
    return {
        "median": median(ratios), "low": low, "high": high,
        "p": signed_rank(ratios), "pairs": len(ratios), "ratios": ratios,
    }
