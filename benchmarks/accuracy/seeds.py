"""What several seeds of several variants say together: means, ranges, paired differences with intervals.

One variant's few seeds hardly tell how much a seed matters, all variants' together do. So the interval of a difference
is that of a randomised block design: a run's AP is its variant's part, plus its seed's, plus chance, and chance is of
the same size for all.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RESIZES = ("letterbox", "squash")


def summary(lines: Iterable[Mapping[str, Any]], size: str = ">= 16 px", base: str | None = None) -> list[dict]:
    """Per variant: mean and range over seeds of both resizes, the paired difference to its base, the cost.

    The base of 'tf1 with ...' is 'tf1', of all others 'base', or the first line's variant. The interval of the
    difference holds 95 % (see above); without two seeds of two variants there is none.
    """
    seen: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        seen.setdefault(line["variant"], {})[line["seed"]] = line
    first = base or next((name for name in seen if name == "base"), next(iter(seen), ""))
    chance, freedom = _chance([{s: _mean(run, size) for s, run in runs.items()} for runs in seen.values()])
    result = []
    for name, runs in seen.items():
        against = seen.get("tf1" if name.startswith("tf1 ") else first, {})
        both = sorted(set(runs) & set(against)) if runs is not against else []
        mean = statistics.mean(_mean(runs[s], size) - _mean(against[s], size) for s in both) if both else None
        low, high = (None, None) if mean is None else _interval(mean, chance, freedom, len(both))
        one: dict[str, Any] = {
            "variant": name,
            "seeds": len(runs),
            "difference": mean,
            "low": low,
            "high": high,
            "cpu_s": statistics.mean(run["cpu_s"] for run in runs.values()),
        }
        for resize in RESIZES:
            values = [run["figures"][resize][size] for run in runs.values()]
            one[resize] = {"mean": statistics.mean(values), "least": min(values), "most": max(values)}
        result.append(one)
    return result


def _mean(line: Mapping[str, Any], size: str) -> float:
    return statistics.mean(line["figures"][resize][size] for resize in RESIZES)


def _chance(runs: Sequence[Mapping[int, float]]) -> tuple[float, int]:
    """Standard deviation of what neither variant nor seed explains, and its degrees of freedom.

    Args:
        runs: of each variant, seed -> AP. The design must be complete, so those variants count, with those of their
            seeds, that leave the most freedom.
    """
    often = [seed for seed, _ in Counter(seed for one in runs for seed in one).most_common()]
    designs = [
        [[one[s] for s in often[:k]] for one in runs if all(s in one for s in often[:k])]
        for k in range(2, len(often) + 1)
    ]
    rows = max(designs, key=_freedom, default=[])
    freedom = _freedom(rows)
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


def _freedom(rows: Sequence[Sequence[float]]) -> int:
    return (len(rows) - 1) * (len(rows[0]) - 1) if rows else 0


def _interval(mean: float, chance: float, freedom: int, seeds: int) -> tuple[float | None, float | None]:
    if not freedom:
        return None, None
    from scipy import stats

    half = float(stats.t.ppf(0.975, freedom)) * chance * (2 / seeds) ** 0.5
    return mean - half, mean + half
