"""`mirilla doctor`: will it run on the Vision Kit, what stands against it, and what can be mended."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from mirilla.cli.compile import size

if TYPE_CHECKING:
    from mirilla.doctor.examine import Diagnosis
    from mirilla.findings import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a frozen graph (.pb), a compiled model (.binaryproto) or a pipeline.config"
    )
    parser.add_argument(
        "--fix", metavar="OUT.pb", help="write the graph with all mended that can be; what it computes stays the same"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--name", metavar="NAME", help="the name under which the model will be loaded")
    parser.add_argument("--classes", metavar="N", type=_count, help="classes that the decoder knows")
    parser.add_argument("--input-tensor", metavar="NAME", help="where the network begins; usual names are found")
    parser.add_argument("--output-tensors", metavar="NAME,NAME", help="where it ends; usual names are found")
    parser.add_argument(
        "--input-size",
        metavar="PIXELS",
        type=size,
        help="side of the input, or ROWSxCOLUMNS, where the file does not tell",
    )
    parser.epilog = (
        "The exit code is 0 when nothing stands against the file (with --fix: against what was written), else 1."
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of classes: give 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Examine one file, and mend it when asked to."""
    from mirilla.doctor import examine as doctor
    from mirilla.doctor.rules import stands_against
    from mirilla.errors import ModelError, UsageError

    if args.fix:
        if doctor.kind_of(args.file) != doctor.GRAPH:
            raise UsageError(
                f"{args.file} is no frozen graph, and only graphs are mended.",
                "Change what the findings name; of a compiled model 'mirilla inspect --to-graph' makes a graph.",
            )
        if os.path.realpath(args.fix) == os.path.realpath(args.file):
            raise UsageError("The mended graph would be written over the graph itself.", "Give --fix another name.")
    options = doctor.Options(args.input_tensor, args.output_tensors, args.input_size, args.classes, args.name)
    diagnosis = doctor.examine(args.file, options)
    mended = diagnosis.mended if args.fix else None
    if args.fix and mended is not None:
        doctor.save(diagnosis, args.fix)
    if args.json:
        print(json.dumps(diagnosis.to_json() | ({"fixed": args.fix} if mended else {}), indent=2))
    else:
        _show(diagnosis, args.fix)
    if args.fix and mended is None:
        raise ModelError(
            f"{args.file} cannot be mended: its network could not be read, so nothing was written.",
            "Follow the remedies above first.",
        )
    if mended is not None:
        return int(stands_against([one for one in diagnosis.findings if not one.fixable]))
    return int(stands_against(diagnosis.findings))


def _show(diagnosis: Diagnosis, fix: str | None) -> None:
    from mirilla.console import echo
    from mirilla.doctor.rules import VERDICTS

    for one in diagnosis.findings:
        _show_finding(one)
    facts = diagnosis.facts
    if facts:
        echo(
            f"{facts['ops']} ops, at most {facts['peak_bytes']} of {facts['arena_bytes']} bytes of the "
            "arena in use "
            f"(at {facts['peak_op']})"
        )
    counts = {VERDICTS[one.severity]: 0 for one in diagnosis.findings}
    for one in diagnosis.findings:
        counts[VERDICTS[one.severity]] += 1
    listed = ", ".join(f"{count} x {severity}" for severity, count in counts.items()) or "nothing found"
    echo(f"{diagnosis.path}: {diagnosis.verdict} ({listed})")
    mended = diagnosis.mended
    if mended is None or not fix:
        fixable = sum(one.fixable for one in diagnosis.findings)
        if fixable:
            echo(f"--fix OUT.pb mends {fixable} of {len(diagnosis.findings)}")
        return
    for change in mended.changes:
        echo(f"mended: {change}")
    if mended.difference is not None:
        echo(f"outputs before and after differ by at most {mended.difference:.1e} on random pictures (numpy)")
    else:
        echo("outputs before and after were not compared: the graph could not be run as it was")
    left = [one for one in diagnosis.findings if not one.fixable and one.severity != "note"]
    remain = "; nothing stands against it" if not left else f"; {len(left)} of the findings above remain"
    echo(f"{fix}: written{remain}")


def _show_finding(one: Finding) -> None:
    from mirilla.console import echo, print_table
    from mirilla.doctor.rules import VERDICTS

    fixable = ", --fix mends it" if one.fixable else ""
    echo(f"{VERDICTS[one.severity].upper()}  {one.code}  {one.where}  ({one.certainty}{fixable})")
    echo(f"  {one.what}")
    if one.rule:
        echo(f"  Rule: {one.rule}")
    echo(f"  {'Shown by' if one.certainty == 'proven' else 'Inferred'}: {one.evidence}")
    echo(f"  Remedy: {one.remedy}")
    if one.alive:
        total = sum(count for _, count in one.alive)
        print_table("", ["alive together", "bytes"], [*one.alive, ("together", total)])
    echo()
