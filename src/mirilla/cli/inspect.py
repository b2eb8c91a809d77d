"""`mirilla inspect`: what a compiled model or a frozen graph holds, as tables, JSON, a picture or a graph."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from mirilla.cli.arguments import size

if TYPE_CHECKING:
    from mirilla.bonnet.format import Model
    from mirilla.protos.tensorflow_pb2 import GraphDef

NAME = "inspect"
HELP = "show the layers, shapes and memory of a compiled model or frozen graph"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .binaryproto or a frozen graph (.pb)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of tables")
    parser.add_argument("--picture", metavar="FILE", help="draw the arena over time (.png or .svg)")
    parser.add_argument(
        "--to-graph",
        metavar="OUT.pb",
        help="write a compiled model as a frozen graph that TensorFlow runs, weights in the file's precision",
    )
    parser.add_argument("--nodes", action="store_true", help="list the nodes of a frozen graph")
    parser.add_argument(
        "--input-size",
        metavar="PIXELS",
        type=size,
        help="side of the input, or ROWSxCOLUMNS, when the file does not tell",
    )
    parser.add_argument("--input-tensor", metavar="NAME", help="of a graph; usual names are found")
    parser.add_argument("--output-tensors", metavar="NAME,NAME", help="of a graph; usual names are found")


def run(args: argparse.Namespace) -> int:
    """Inspect one file."""
    from mirilla.errors import UsageError

    if args.to_graph and os.path.realpath(args.to_graph) == os.path.realpath(args.model):
        raise UsageError("The graph would be written over the model itself.", "Give --to-graph another name.")
    model, graph_def = _read(args.model)
    if model is not None:
        if args.nodes:
            raise UsageError(
                f"{args.model} is a compiled model; it has ops, no nodes.",
                "Leave --nodes away, or give a frozen graph.",
            )
        return _inspect_model(model, args)
    assert graph_def is not None
    if args.to_graph:
        raise UsageError(f"{args.model} is a frozen graph already.", "Give --to-graph with a .binaryproto.")
    return _inspect_graph(graph_def, args)


def _read(path: str) -> tuple[Model | None, GraphDef | None]:
    """A compiled model or a graph: by the file's ending, else by what can be read."""
    from mirilla.bonnet import format as bonnet_format
    from mirilla.errors import ModelError
    from mirilla.protos.graphdef import read_graph_def

    if path.lower().endswith(".pb"):
        return None, read_graph_def(path)
    if path.lower().endswith(bonnet_format.SUFFIX):
        return bonnet_format.read(path), None
    try:
        return bonnet_format.read(path), None
    except ModelError as error:
        try:
            return None, read_graph_def(path)
        except ModelError:
            raise error from None


def _inspect_model(model: Model, args: argparse.Namespace) -> int:
    from mirilla.bonnet.describe import model_facts
    from mirilla.console import echo, warn

    facts = model_facts(model, args.input_size)
    if args.json:
        print(json.dumps(asdict(facts), indent=2))
    else:
        shape = "x".join(map(str, facts.input.shape))
        show_ops(model, args.input_size)
        echo()
        echo(f"file    {args.model}: {facts.bytes} bytes, sha256 {facts.sha256}")
        echo(f"input   {model.input} {shape}")
        for output in facts.outputs:
            echo(f"output  {output.name} {'x'.join(map(str, output.shape))}")
        weights = sum(constant.bytes for constant in facts.constants)
        echo(f"weights {weights} bytes in {len(model.constants)} constants")
        echo(
            f"arena   at most {facts.peak.bytes} of {facts.arena_bytes} bytes, at op "
            f"{facts.peak.op} {facts.peak.output}"
        )
        echo(f"plan    computed again: {len(facts.plan_differences)} differences")
        for line in facts.plan_differences[:10]:
            warn(line)
    _draw(model, args)
    if args.to_graph:
        from mirilla.bonnet.to_graph import to_graph_def
        from mirilla.protos.graphdef import write_graph_def

        write_graph_def(args.to_graph, to_graph_def(model, args.input_size))
        _say(args, f"graph   {args.to_graph}")
    return 0


def _say(args: argparse.Namespace, text: str) -> None:
    from mirilla.console import echo

    if not args.json:
        echo(text)


def _draw(model: Model, args: argparse.Namespace) -> None:
    if args.picture:
        from mirilla.bonnet.arena_plot import save

        save(args.picture, model, args.input_size)
        _say(args, f"picture {args.picture}")


def show_ops(model: Model, input_size: tuple[int, int] | None) -> None:
    """The table of a compiled model's ops."""
    from mirilla.bonnet.describe import op_rows, short_names
    from mirilla.console import print_table

    rows = op_rows(model, input_size)
    short = short_names([row.output for row in rows])
    cells = []
    for row in rows:
        kernel = "" if row.kernel is None else f"{row.kernel[0]}x{row.kernel[1]} s{row.stride} {row.padding}"
        cells.append(
            (
                row.index,
                row.kind,
                short[row.output],
                "x".join(map(str, row.shape)),
                kernel,
                row.post,
                row.layout,
                row.address,
                row.output_bytes,
                row.scratch_address,
                row.scratch_bytes,
                row.in_use,
            )
        )
    print_table(
        "",
        [
            "#",
            "op",
            "output",
            "shape",
            "kernel",
            "then",
            "layout",
            "address",
            "bytes",
            "scratch at",
            "scratch",
            "in use",
        ],
        cells,
    )


def _inspect_graph(graph_def: GraphDef, args: argparse.Namespace) -> int:
    from mirilla.bonnet import compile as bonnet
    from mirilla.bonnet.describe import graph_facts, layer_rows, short_names
    from mirilla.console import echo, print_table
    from mirilla.graph import reader

    if args.nodes:
        nodes = [
            {"index": index, "op": node.op, "name": node.name, "inputs": list(node.input)}
            for index, node in enumerate(graph_def.node)
        ]
        if args.json:
            print(json.dumps(nodes, indent=2))
        else:
            print_table("", ["#", "op", "name"], [(one["index"], one["op"], one["name"]) for one in nodes])
        return 0
    graph = reader.read(graph_def, args.input_tensor, args.output_tensors, args.input_size)
    findings = bonnet.check(graph)
    if args.json:
        facts = asdict(graph_facts(graph))
        facts["ops_in_file"] = dict(Counter(node.op for node in graph_def.node).most_common())
        facts["bonnet"] = [
            {"rule": one.code, "layer": one.where, "what": one.what, "remedy": one.remedy, "certainty": one.certainty}
            for one in findings
        ]
        print(json.dumps(facts, indent=2))
    else:
        for note in graph.notes:
            echo(note)
        rows = layer_rows(graph)
        short = short_names([row.output for row in rows])
        print_table(
            "",
            ["#", "layer", "output", "shape", "kernel", "then", "weights"],
            [
                (
                    row.index,
                    row.kind,
                    short[row.output],
                    "x".join(map(str, row.shape)),
                    ""
                    if row.kernel is None or row.stride is None
                    else f"{row.kernel[0]}x{row.kernel[1]} s{row.stride[0]} {row.padding}",
                    row.activation,
                    row.weights,
                )
                for row in rows
            ],
        )
        echo()
        echo(
            f"nodes   {len(graph_def.node)} in the file, {len(rows)} layers from {graph.input} "
            f"{'x'.join(map(str, graph.input_shape))} to {', '.join(graph.outputs)}"
        )
        echo(f"weights {sum(row.weights for row in rows)} values")
        echo("bonnet  compiles" if not findings else f"bonnet  {len(findings)} findings:")
        for finding in findings[:10]:
            echo(f"  {finding.code}: {finding.what} {finding.remedy}")
    if args.picture:
        _draw(bonnet.build(graph)[0], args)
    return 0
