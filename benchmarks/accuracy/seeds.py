"""Statistics over seeds and variants: means, ranges, paired differences with intervals.

A few seeds of one variant are not enough to estimate the noise; the seeds of all variants together are. The interval of
a difference is that of a randomised block design: an AP is the sum of a variant effect, a seed effect and noise, and
the noise has the same variance for all.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RESIZES = ("letterbox", "squash")


def summary(lines: Iterable[Mapping[str, Any]], size: str = ">= 16 px", base: str | None = None) -> list[dict]:
    """Per variant: mean and range over seeds of both resizes, the paired difference to its base, the cost.

    The base of 'tf1 with ...' is 'tf1'; the base of all others is 'base', or the first line's variant. The difference
    has a 95 % interval (see above) if there are at least two seeds of two variants.
    """
    seen: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        seen.setdefault(line["variant"], {})[line["seed"]] = line
    first = base or next((name for name in seen if name == "base"), next(iter(seen), ""))
    chance, freedom = _noise([{s: _mean(run, size) for s, run in runs.items()} for runs in seen.values()])
    result = []
    for name, runs in seen.items():
        against = seen.get("tf1" if name.startswith("tf1 ") else first, {})
        both = sorted(set(runs) & set(against)) if runs is not against else []
        mean = statistics.mean(_mean(runs[s], size) - _mean(against[s], size) for s in both) if both else None
        low, high = (None, None) if mean is None else _interval(mean, chance, freedom, len(both))
        row: dict[str, Any] = {
            "variant": name,
            "seeds": len(runs),
            "difference": mean,
            "low": low,
            "high": high,
            "cpu_s": statistics.mean(run["cpu_s"] for run in runs.values()),
        }
        for resize in RESIZES:
            values = [run["figures"][resize][size] for run in runs.values()]
            row[resize] = {"mean": statistics.mean(values), "least": min(values), "most": max(values)}
        result.append(row)
    return result


def _mean(line: Mapping[str, Any], size: str) -> float:
    return statistics.mean(line["figures"][resize][size] for resize in RESIZES)


def _noise(runs: Sequence[Mapping[int, float]]) -> tuple[float, int]:
    """Standard deviation of the noise, which neither variant nor seed explains, and its degrees of freedom.

    Args:
        runs: for each variant, seed -> AP. The design must be complete, so the subset of variants and seeds with the
            most degrees of freedom is used.
    """
    often = [seed for seed, _ in Counter(seed for run in runs for seed in run).most_common()]
    designs = [
        [[run[s] for s in often[:k]] for run in runs if all(s in run for s in often[:k])]
        for k in range(2, len(often) + 1)
    ]
    rows = max(designs, key=_degrees_of_freedom, default=[])
    freedom = _degrees_of_freedom(rows)
    if freedom < 1:
        return 0.0, 0
    of_variant = [statistics.mean(row) for row in rows]
    of_seed = [statistics.mean(column) for column in zip(*rows, strict=True)]
    whole = statistics.mean(of_variant)
    rest = sum(
        (value - a - b + whole) ** 2
        for row, a in zip(rows, of_variant, strict=True)
        for value, b in zip(row, of_seed, strict=True)
    )
    return (rest / freedom) ** 0.5, freedom


def _degrees_of_freedom(rows: Sequence[Sequence[float]]) -> int:
    return (len(rows) - 1) * (len(rows[0]) - 1) if rows else 0


def _interval(mean: float, chance: float, freedom: int, seeds: int) -> tuple[float | None, float | None]:
    if not freedom:
        return None, None
    from scipy import stats

    half = float(stats.t.ppf(0.975, freedom)) * chance * (2 / seeds) ** 0.5
    return mean - half, mean + half
