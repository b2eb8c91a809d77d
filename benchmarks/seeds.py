"""What several seeds of several variants say together: means, ranges, paired differences."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RESIZES = ("letterbox", "squash")


def summary(lines: Iterable[Mapping[str, Any]], size: str = ">= 16 px", base: str | None = None) -> list[dict]:
    """Per variant: mean and range over seeds of both resizes, the paired difference to its base, the cost.

    The base of 'tf1 with ...' is 'tf1', of all others the first line's variant. The interval of the difference is
    Student's, 95 %, over seeds; with one seed there is none.
    """
    seen: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        seen.setdefault(line["variant"], {})[line["seed"]] = line
    first = base or next((name for name in seen if name == "base"), next(iter(seen), ""))
    result = []
    for name, runs in seen.items():
        against = seen.get("tf1" if name.startswith("tf1 ") else first, {})
        both = sorted(set(runs) & set(against)) if runs is not against else []
        mean, low, high = _paired([_mean(runs[s], size) - _mean(against[s], size) for s in both])
        one: dict[str, Any] = {
            "variant": name, "seeds": len(runs), "difference": mean, "low": low, "high": high,
            "cpu_s": statistics.mean(run["cpu_s"] for run in runs.values()),
        }
        for resize in RESIZES:
            values = [run["figures"][resize][size] for run in runs.values()]
            one[resize] = {"mean": statistics.mean(values), "least": min(values), "most": max(values)}
        result.append(one)
    return result


def _mean(line: Mapping[str, Any], size: str) -> float:
    return statistics.mean(line["figures"][resize][size] for resize in RESIZES)


def _paired(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    if not values:
        return None, None, None
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, None, None
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half
