"""`mirilla compile`: frozen graph to Vision Bonnet model; also the command `bonnet_model_compiler`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mirilla.cli.arguments import size
from mirilla.cli.parser import Parser

if TYPE_CHECKING:
    from mirilla.bonnet.compile import BuildReport

_MAX_LOSSES = 8
_NOTABLE_ERROR = 1e-2  # of a constant's value in fp16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, each also under the name that it has in Google's compiler."""
    parser.add_argument(
        "graph",
        nargs="?",
        metavar="MODEL",
        help="a frozen graph, an export or training folder, the folder of a run, or 'shipped'",
    )
    parser.add_argument(
        "--frozen_graph_path",
        dest="frozen_graph",
        metavar="GRAPH.pb",
        help="the frozen graph, as Google's compiler takes it",
    )
    parser.add_argument(
        "--out",
        "--output_graph_path",
        metavar="MODEL.binaryproto",
        help="the compiled model to write (default: beside the model); a model.json of the graph is written beside it",
    )
    parser.add_argument(
        "--input-tensor",
        "--input_tensor_name",
        metavar="NAME",
        help="input of the network (default: found by a usual name such as Preprocessor/sub)",
    )
    parser.add_argument(
        "--output-tensors",
        "--output_tensor_names",
        metavar="NAME,NAME",
        help="outputs of the network (default: found; concat,concat_1 in SSD graphs)",
    )
    parser.add_argument(
        "--input-size",
        "--input_tensor_size",
        metavar="PIXELS",
        type=size,
        help="side of the square input, or ROWSxCOLUMNS (default: that of the graph's resize op)",
    )
    parser.add_argument(
        "--constant-order",
        default="auto",
        metavar="ORDER",
        help="order of the constants in the file: auto, O1 to O8 (as in known files), or graph; the kit reads them "
        "all (default: auto)",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="names of a classifier's classes, one a line (default: a labels.txt beside it)"
    )
    parser.add_argument("--debug", action="store_true", help="print every op with its place in the arena")


def run(args: argparse.Namespace) -> int:
    """Compile, and print what was built."""
    from mirilla.errors import UsageError

    given = [path for path in (args.graph, args.frozen_graph) if path]
    if len(given) != 1:
        raise UsageError("A model to compile is needed.", "mirilla compile GRAPH.pb --out MODEL.binaryproto")

    from mirilla.detect import resolve

    out = Path(args.out) if args.out else resolve.default_output(given[0])
    if args.out is None:
        resolve.require_own_output(out)
    with resolve.model_file(given[0]) as graph:
        if os.path.realpath(graph) == os.path.realpath(out):
            raise UsageError("The model would overwrite its graph.", "Give --out another name.")
        return _compile(args, graph, out)


def _compile(args: argparse.Namespace, graph: Path, out: Path) -> int:
    from mirilla.bonnet.compile import compile_file
    from mirilla.console import echo
    from mirilla.errors import ModelError

    try:
        ends = args.input_tensor, args.output_tensors, args.input_size
        model, report, card = compile_file(graph, out, *ends, args.constant_order, args.labels)
    except ModelError as error:
        if _is_fixable(str(graph), args):
            fixed = graph.with_name(f"{graph.stem}_fixed.pb")
            error.remedy = f"mirilla doctor {graph} --fix {fixed} writes a graph that compiles."
        raise
    if args.debug:
        from mirilla.cli.bonnet_tables import print_ops

        print_ops(model, args.input_size or report.input_shape[:2])
        echo()
    _print_report(report, str(out))
    if card is not None:
        echo(f"model.json: {card}")
    return 0


def _is_fixable(graph: str, args: argparse.Namespace) -> bool:
    """Whether `mirilla doctor --fix` makes a graph that compiles."""
    from mirilla.doctor import examine as doctor
    from mirilla.errors import MirillaError
    from mirilla.findings import ERROR

    options = doctor.Options(args.input_tensor, args.output_tensors, args.input_size)
    try:
        diagnosis = doctor.examine(graph, options)
    except MirillaError:
        return False
    errors = [found for found in diagnosis.findings if found.severity == ERROR]
    cured = all(found.fixable and found.code != "unknown-name" for found in errors)
    return diagnosis.fixed is not None and bool(errors) and cured


def _print_report(report: BuildReport, out: str) -> None:
    from mirilla.cli.bonnet_tables import shape_text
    from mirilla.console import echo, warn

    for note in report.notes:
        echo(note)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.ops.items(), key=lambda item: -item[1]))
    outputs = ", ".join(f"{name} {shape_text(shape)}" for name, shape in report.outputs)
    echo(f"input   {report.input} {shape_text(report.input_shape)}")
    echo(f"outputs {outputs} (rows x columns x depth)")
    echo(f"ops     {sum(report.ops.values())}: {kinds}")
    echo(f"weights {report.weight_bytes} bytes in {report.constants} constants (order {report.constant_order})")
    echo(
        f"arena   at most {report.peak_bytes} of {report.arena_bytes} bytes "
        f"({report.peak_bytes / report.arena_bytes:.0%}), at {report.peak_op}"
    )
    echo(f"fp16    {report.underflowed} values became zero, {report.subnormal} lost bits (below 6.1e-05)")
    _print_losses(report)
    for finding in report.warnings:
        warn(f"{finding.what} ({finding.certainty}) {finding.remedy}")
    echo(f"{out}: {report.file_bytes} bytes, sha256 {report.sha256}")


def _print_losses(report: BuildReport) -> None:
    """The constants that lose most in fp16."""
    from mirilla.bonnet.describe import short_names
    from mirilla.console import echo, print_table

    short = short_names([loss.name for loss in report.losses])
    notable = [
        loss for loss in report.losses if loss.underflowed or loss.subnormal or loss.worst_absolute > _NOTABLE_ERROR
    ]
    if not notable:
        return
    rows = [
        (
            short[loss.name],
            loss.count,
            loss.underflowed,
            loss.subnormal,
            f"{loss.worst_absolute:.1e}",
            f"{loss.worst_value:.4g}",
        )
        for loss in notable[:_MAX_LOSSES]
    ]
    print_table("", ("constant", "values", "to zero", "lost bits", "worst error", "at"), rows)
    if len(notable) > _MAX_LOSSES:
        echo(f"and {len(notable) - _MAX_LOSSES} constants with smaller errors")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `bonnet_model_compiler`, with the options of Google's compiler."""
    from mirilla.errors import MirillaError

    program = Path(sys.argv[0]).name or "bonnet_model_compiler"
    parser = Parser(prog=program, description="Compile a frozen graph for the Vision Bonnet.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except MirillaError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
