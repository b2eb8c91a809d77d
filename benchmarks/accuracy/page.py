"""Write the tables of accuracy.md from the results of measure.py and ablation.py.

    python -m benchmarks.accuracy.page --accuracy DIR/accuracy.json ... --ablation DIR/ablation.jsonl ...
                                      --zoo DIR/accuracy.json

A table is between `<!-- table: NAME -->` and `<!-- end -->` in the page; everything else stays as it is. Tables without
new data are not changed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import error_sizes, seeds
from benchmarks.common import SIZES, decimal, markdown

from mirilla.files import write_text

PAGE = Path(__file__).resolve().parents[1] / "accuracy.md"
MAIN_SET = "ilc2021"


def load(paths: Iterable[Path]) -> dict[str, Any]:
    """Merge several accuracy.json; for a model measured twice the last one counts."""
    models: dict[str, dict] = {}
    differences: dict[tuple, dict] = {}
    first: dict[str, Any] = {}
    for path in paths:
        content = json.loads(path.read_text())
        first = first or content
        models |= {model["name"]: model for model in content["models"]}
        differences |= {(d["a"], d["b"], d["figure"]): d for d in content["differences"]}
    ordered = sorted(models.values(), key=lambda m: m["is_peer"])  # ours first
    return {**first, "models": ordered, "differences": list(differences.values())}


def accuracy_table(content: Mapping[str, Any], photos: str = MAIN_SET) -> str:
    """The three metrics with their intervals, for every model and way to run it."""
    rows = [
        (model["name"], way["arithmetic"], way["resize"], *(ranged(way["figures"][size]) for size in SIZES))
        for model in content["models"]
        for way in model["measured"]
        if way["set"] == photos
    ]
    return markdown(("model", "arithmetic", "input", *SIZES), rows)


def other_sets_table(content: Mapping[str, Any]) -> str:
    """AP over all faces and from 16 px on the other sets."""
    sets = [s for s in content["sets"] if s != MAIN_SET]
    if not sets:
        return ""
    rows = []
    for model in content["models"]:
        ways: dict[tuple, dict] = {}
        for way in model["measured"]:
            ways.setdefault((way["arithmetic"], way["resize"]), {})[way["set"]] = way["figures"]
        for (arithmetic, resize), figures in ways.items():
            cells = [ranged(figures[s][size]) if s in figures else "-" for s in sets for size in SIZES[:2]]
            rows.append((model["name"], arithmetic, resize, *cells))
    return markdown(("model", "arithmetic", "input", *(f"{s}, {z}" for s in sets for z in SIZES[:2])), rows)


def cost_table(content: Mapping[str, Any]) -> str:
    """The cost of each model."""
    rows = []
    for model in content["models"]:
        facts, ms = model["facts"], model["ms"]
        peak, size = facts["arena_peak_bytes"], facts["file_bytes"]
        rows.append(
            (
                model["name"],
                "x".join(map(str, facts["input_px"][::-1])),
                f"{facts['parameters']:,}",
                f"{facts['macs'] / 1e6:.1f} M",
                "-" if peak is None else f"{peak:,}",
                "-" if size is None else f"{size:,}",
                "-" if ms is None else f"{ms['network']:.1f}",
                "-" if ms is None else f"{ms['total']:.1f}",
            )
        )
    return markdown(
        ("model", "input", "parameters", "MACs", "arena peak, bytes", "file, bytes", "network, ms", "total, ms"), rows
    )


def zoo_table(content: Mapping[str, Any]) -> str:
    """The zoo's models in the bonnet's arithmetic: their cost and their AP after equal trainings."""
    rows = []
    for model in content["models"]:
        halves = {
            way["resize"]: way["figures"]
            for way in model["measured"]
            if way["set"] == MAIN_SET and way["arithmetic"] == "fp16"
        }
        if not halves or "cpu_s" not in model["facts"].get("training", {}):
            continue
        facts = model["facts"]
        rows.append(
            (
                model["name"],
                f"{facts['parameters']:,}",
                f"{facts['macs'] / 1e6:.1f} M",
                f"{facts['arena_peak_bytes']:,}",
                *(ranged(halves["letterbox"][size]) for size in SIZES),
                ranged(halves["squash"][SIZES[1]]),
                f"{facts['training']['cpu_s']:,}",
            )
        )
    columns = ("parameters", "MACs", "arena peak, bytes", *SIZES, f"{SIZES[1]}, squashed", "CPU seconds")
    return markdown(("model", *columns), rows)


def differences_table(content: Mapping[str, Any]) -> str:
    """Paired differences with their intervals."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for difference in content["differences"]:
        rows.setdefault((difference["a"], difference["b"]), {})[difference["figure"]] = ranged(difference, sign=True)
    return markdown(
        ("first", "minus second", *SIZES),
        [(a, b, *(figures.get(size, "-") for size in SIZES)) for (a, b), figures in rows.items()],
    )


def sizes_table(content: Mapping[str, Any]) -> str:
    """Recall and false positives by size, for each model's main way."""
    named = {model["name"]: way["by_size"] for model in content["models"] if (way := main_way(model)) is not None}
    if not named:
        return ""
    columns = ["size, px", "faces", *(f"{name}: {what}" for name in named for what in ("recall", "false alarms"))]
    rows = []
    for b, size in enumerate(error_sizes.NAMES):
        cells: list[object] = [size, next(iter(named.values()))["bins"][b]["faces"]]
        for sizes in named.values():
            row = error_sizes.rows_of(sizes)[b]
            cells += [row[2], row[4]]
        rows.append(cells)
    return markdown(columns, rows)


def main_way(model: Mapping[str, Any], photos: str = MAIN_SET, size: str = ">= 16 px") -> dict[str, Any] | None:
    """The main way to run a model: the bonnet's arithmetic, with the better of the two resizes."""
    ways = [way for way in model["measured"] if way["set"] == photos]
    halves = [way for way in ways if way["arithmetic"] == "fp16"]
    return max(halves or ways, key=lambda way: way["figures"][size]["value"], default=None)


def ablation_table(lines: Sequence[Mapping[str, Any]], size: str = ">= 16 px") -> str:
    """Mean over seeds, their range, the paired difference to the base, and the cost."""
    rows = []
    kinds = ("base", "without", "with", "tf1")  # the user's variants last
    for variant in sorted(
        seeds.summary(lines, size), key=lambda o: (*kinds, o["variant"].split()[0]).index(o["variant"].split()[0])
    ):
        rows.append(
            (
                variant["variant"],
                variant["seeds"],
                *(
                    f"{decimal(variant[r]['mean'])} ({decimal(variant[r]['least'])}-{decimal(variant[r]['most'])})"
                    for r in ("letterbox", "squash")
                ),
                "-"
                if variant["difference"] is None
                else decimal(variant["difference"], sign=True)
                + (
                    ""
                    if variant["low"] is None
                    else f" ({decimal(variant['low'], sign=True)} to {decimal(variant['high'], sign=True)})"
                ),
                f"{variant['cpu_s']:,.0f}",
            )
        )
    return markdown(
        ("variant", "seeds", "letterboxed", "squashed", "change of both resizes' mean", "CPU seconds"), rows
    )


def ranged(figure: Mapping[str, Any], sign: bool = False) -> str:
    """.817 (.790-.842)"""
    if figure["value"] is None:
        return "-"
    low, high = decimal(figure["low"], sign=sign), decimal(figure["high"], sign=sign)
    return f"{decimal(figure['value'], sign=sign)} ({low}{' to ' if sign else '-'}{high})"


def fill(text: str, tables: Mapping[str, str]) -> str:
    """The page with new tables between their marks.

    Raises:
        ValueError: the page has no such mark, or one that does not end.
    """
    for name, table in tables.items():
        mark, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        start = text.find(mark)
        stop = text.find(end, start)
        if start < 0 or stop < 0:
            raise ValueError(f"the page has no table '{name}'")
        text = text[: start + len(mark)] + table + text[stop:]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tables of accuracy.md.")
    parser.add_argument("--accuracy", nargs="+", type=Path, default=[])
    parser.add_argument("--ablation", nargs="+", type=Path, default=[])
    parser.add_argument("--zoo", nargs="+", type=Path, default=[])
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    tables: dict[str, str] = {}
    if args.accuracy:
        content = load(args.accuracy)
        tables = {
            "accuracy": accuracy_table(content),
            "cost": cost_table(content),
            "differences": differences_table(content),
            "sizes": sizes_table(content),
            "other sets": other_sets_table(content),
            "protocols": "".join(f"- {line}\n" for line in protocols(content)),
        }
    if args.ablation:
        lines = [json.loads(line) for path in args.ablation for line in path.read_text().splitlines()]
        tables["ablation"] = ablation_table(lines)
    if args.zoo:
        tables["zoo"] = zoo_table(load(args.zoo))
    write_text(args.page, fill(args.page.read_text(), tables))


def protocols(content: Mapping[str, Any]) -> list[str]:
    """One line per model and way: the part of the protocol that is specific to it."""
    return [
        f"{model['name']}, {way['arithmetic']}, {way['resize']}: "
        + way["protocol"].partition("run: ")[2].partition("; photos:")[0]
        for model in content["models"]
        for way in model["measured"]
        if way["set"] == MAIN_SET
    ]


if __name__ == "__main__":
    main()
