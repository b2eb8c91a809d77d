"""`mirilla doctor`: check whether a model can run on the Vision Kit, and fix graphs."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from typing import TYPE_CHECKING

from mirilla.cli.compile import size

if TYPE_CHECKING:
    from mirilla.doctor.examine import Diagnosis
    from mirilla.doctor.fix import FixedGraph
    from mirilla.findings import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a frozen graph (.pb), a compiled model (.binaryproto) or a pipeline.config"
    )
    parser.add_argument("--fix", metavar="OUT.pb", help="write the graph with all fixes that keep its outputs")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--name", metavar="NAME", help="name under which the model will be loaded")
    parser.add_argument("--classes", metavar="N", type=_count, help="number of classes that the decoder expects")
    parser.add_argument("--input-tensor", metavar="NAME", help="input of the network; default: found by usual names")
    parser.add_argument(
        "--output-tensors", metavar="NAME,NAME", help="outputs of the network; default: found by usual names"
    )
    parser.add_argument(
        "--input-size",
        metavar="PIXELS",
        type=size,
        help="side of the input, or ROWSxCOLUMNS, if the file does not define it",
    )
    parser.epilog = (
        "The exit code is 0 if all findings are notes (with --fix: those that are left in the fixed graph), else 1."
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of classes: use 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Examine a file, and fix it with --fix."""
    from mirilla.detect.resolve import model_file
    from mirilla.doctor import examine as doctor
    from mirilla.doctor.rules import has_problems
    from mirilla.errors import ModelError

    if args.fix:
        _check_fix(args.file, args.fix)
    options = doctor.Options(args.input_tensor, args.output_tensors, args.input_size, args.classes, args.name)
    with model_file(args.file) as path:
        diagnosis = doctor.examine(path, options)
    fixed = diagnosis.fixed if args.fix else None
    if fixed is not None:
        doctor.save(diagnosis, args.fix)
    if args.json:
        print(json.dumps(diagnosis.to_json() | ({"fixed": args.fix} if fixed else {}), indent=2))
    else:
        _print(diagnosis, args.fix)
    if fixed is not None:
        return int(has_problems(found for found in diagnosis.findings if not found.fixable))
    if args.fix:
        raise ModelError(
            f"{args.file} cannot be fixed: its network could not be read. Nothing was written.",
            "Follow the remedies above first.",
        )
    return int(has_problems(diagnosis.findings))


def _check_fix(path: str, out: str) -> None:
    from mirilla.doctor import examine as doctor
    from mirilla.errors import UsageError

    if doctor.kind_of(path) != doctor.GRAPH:
        raise UsageError(
            f"{path}: not a frozen graph; --fix fixes only graphs.",
            "Follow the remedies; 'mirilla inspect --to-graph' turns a compiled model into a graph.",
        )
    if os.path.realpath(out) == os.path.realpath(path):
        raise UsageError("--fix would overwrite the graph itself.", "Choose another path for --fix.")


def _print(diagnosis: Diagnosis, fix: str | None) -> None:
    from mirilla.console import echo
    from mirilla.doctor.rules import VERDICTS

    for found in diagnosis.findings:
        _print_finding(found)
    facts = diagnosis.facts
    if facts is not None:
        echo(
            f"{facts['ops']} ops; peak memory {facts['peak_bytes']} of {facts['arena_bytes']} bytes, "
            f"at {facts['peak_op']}"
        )
    counts = Counter(VERDICTS[found.severity] for found in diagnosis.findings)
    summary = ", ".join(f"{count} x {verdict}" for verdict, count in counts.items()) or "no findings"
    echo(f"{diagnosis.path}: {diagnosis.verdict} ({summary})")
    if diagnosis.fixed is not None and fix:
        _print_fixes(diagnosis, diagnosis.fixed, fix)
        return
    fixable = sum(found.fixable for found in diagnosis.findings)
    if fixable:
        echo(f"--fix OUT.pb fixes {fixable} of {len(diagnosis.findings)}")


def _print_fixes(diagnosis: Diagnosis, fixed: FixedGraph, path: str) -> None:
    from mirilla.console import echo
    from mirilla.findings import NOTE

    for change in fixed.changes:
        echo(f"fixed: {change}")
    if fixed.difference is not None:
        echo(f"largest difference of the outputs before and after, on random images in numpy: {fixed.difference:.1e}")
    else:
        echo("outputs before and after were not compared: the original graph cannot be run")
    left = [found for found in diagnosis.findings if not found.fixable and found.severity != NOTE]
    echo(f"{path}: written; " + (f"{len(left)} of the findings above remain" if left else "no problems remain"))


def _print_finding(found: Finding) -> None:
    from mirilla.console import echo, print_table
    from mirilla.doctor.rules import VERDICTS
    from mirilla.findings import PROVEN

    fixable = ", --fix fixes it" if found.fixable else ""
    echo(f"{VERDICTS[found.severity].upper()}  {found.code}  {found.where}  ({found.certainty}{fixable})")
    echo(f"  {found.what}")
    if found.rule:
        echo(f"  Rule: {found.rule}")
    echo(f"  {'Shown by' if found.certainty == PROVEN else 'Inferred'}: {found.evidence}")
    echo(f"  Remedy: {found.remedy}")
    if found.alive:
        total = sum(size for _, size in found.alive)
        print_table("", ["alive at the same time", "bytes"], [*found.alive, ("total", total)])
    echo()
