"""`mirilla inspect`: the contents of a compiled model or a frozen graph, as tables, JSON, a picture or a graph."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from mirilla.cli.arguments import size

if TYPE_CHECKING:
    from mirilla.bonnet.describe import ModelFacts
    from mirilla.bonnet.format import Model
    from mirilla.findings import Finding
    from mirilla.graph.deploy import DeployGraph
    from mirilla.protos.tensorflow_pb2 import GraphDef

_MAX_LISTED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a compiled model (.binaryproto) or a frozen graph (.pb)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of tables")
    parser.add_argument("--picture", metavar="FILE", help="draw the arena over time (.png or .svg)")
    parser.add_argument(
        "--to-graph",
        metavar="OUT.pb",
        help="write a compiled model as a frozen graph for TensorFlow, with the weights in the file's precision",
    )
    parser.add_argument("--nodes", action="store_true", help="list the nodes of a frozen graph")
    parser.add_argument(
        "--input-size",
        metavar="PIXELS",
        type=size,
        help="side of the input, or ROWSxCOLUMNS, if the file does not contain it",
    )
    parser.add_argument(
        "--input-tensor", metavar="NAME", help="input of the network in a graph (default: found by its usual name)"
    )
    parser.add_argument(
        "--output-tensors",
        metavar="NAME,NAME",
        help="outputs of the network in a graph (default: found by their usual names)",
    )


def run(args: argparse.Namespace) -> int:
    """Inspect one model."""
    from mirilla.detect.resolve import model_file

    with model_file(args.model) as path:
        args.model = str(path)
        return _inspect(args)


def _inspect(args: argparse.Namespace) -> int:
    from mirilla.bonnet import format as bonnet_format
    from mirilla.doctor.examine import BONNET, GRAPH, kind_of
    from mirilla.errors import ModelError, UsageError
    from mirilla.protos.graphdef import read_graph_def

    if args.to_graph and os.path.realpath(args.to_graph) == os.path.realpath(args.model):
        raise UsageError("The graph would overwrite the model.", "Give --to-graph another name.")
    kind = kind_of(args.model)
    if kind == BONNET:
        if args.nodes:
            raise UsageError(
                f"{args.model}: a compiled model has ops, not nodes.", "Omit --nodes, or give a frozen graph."
            )
        _inspect_model(bonnet_format.read(args.model), args)
    elif kind == GRAPH:
        if args.to_graph:
            raise UsageError(f"{args.model}: this is a frozen graph already.", "Give --to-graph with a .binaryproto.")
        _inspect_graph(read_graph_def(args.model), args)
    else:
        raise ModelError(
            f"{args.model}: neither a compiled model nor a frozen graph.",
            "For a pipeline.config, use 'mirilla doctor'.",
        )
    return 0


def _inspect_model(model: Model, args: argparse.Namespace) -> None:
    from mirilla.bonnet.describe import model_facts

    facts = model_facts(model, args.input_size)
    if args.json:
        print(json.dumps(asdict(facts), indent=2))
    else:
        _print_model(model, facts, args)
    if args.picture:
        _draw(model, args)
    if args.to_graph:
        from mirilla.bonnet.to_graph import to_graph_def
        from mirilla.protos.graphdef import write_graph_def

        write_graph_def(args.to_graph, to_graph_def(model, args.input_size))
        _print_unless_json(args, f"graph   {args.to_graph}")


def _print_model(model: Model, facts: ModelFacts, args: argparse.Namespace) -> None:
    from mirilla.cli.bonnet_tables import print_ops, shape_text
    from mirilla.console import echo, warn

    print_ops(model, args.input_size)
    echo()
    echo(f"file    {args.model}: {facts.bytes} bytes, sha256 {facts.sha256}")
    echo(f"input   {model.input} {shape_text(facts.input.shape)}")
    for output in facts.outputs:
        echo(f"output  {output.name} {shape_text(output.shape)}")
    weights = sum(constant.bytes for constant in facts.constants)
    echo(f"weights {weights} bytes in {len(model.constants)} constants")
    echo(f"arena   at most {facts.peak.bytes} of {facts.arena_bytes} bytes, at op {facts.peak.op} {facts.peak.output}")
    echo(f"plan    {len(facts.plan_differences)} differences from a newly computed memory plan")
    for line in facts.plan_differences[:_MAX_LISTED]:
        warn(line)


def _inspect_graph(graph_def: GraphDef, args: argparse.Namespace) -> None:
    from mirilla.bonnet import compile as bonnet
    from mirilla.graph import reader

    if args.nodes:
        _print_nodes(graph_def, args.json)
        return
    graph = reader.read(graph_def, args.input_tensor, args.output_tensors, args.input_size)
    findings = bonnet.check(graph)
    if args.json:
        print(json.dumps(_graph_json(graph_def, graph, findings), indent=2))
    else:
        _print_graph(graph_def, graph, findings)
    if args.picture:
        _draw(bonnet.build(graph)[0], args)


def _print_nodes(graph_def: GraphDef, as_json: bool) -> None:
    from mirilla.console import print_table

    nodes = list(enumerate(graph_def.node))
    if as_json:
        content = [
            {"index": index, "op": node.op, "name": node.name, "inputs": list(node.input)} for index, node in nodes
        ]
        print(json.dumps(content, indent=2))
    else:
        print_table("", ("#", "op", "name"), [(index, node.op, node.name) for index, node in nodes])


def _graph_json(graph_def: GraphDef, graph: DeployGraph, findings: list[Finding]) -> dict[str, object]:
    from mirilla.bonnet.describe import graph_facts

    return {
        **asdict(graph_facts(graph)),
        "ops_in_file": dict(Counter(node.op for node in graph_def.node).most_common()),
        "bonnet": [
            {
                "rule": finding.code,
                "layer": finding.where,
                "what": finding.what,
                "remedy": finding.remedy,
                "certainty": finding.certainty,
            }
            for finding in findings
        ],
    }


def _print_graph(graph_def: GraphDef, graph: DeployGraph, findings: list[Finding]) -> None:
    from mirilla.bonnet.describe import layer_rows
    from mirilla.cli.bonnet_tables import print_layers, shape_text
    from mirilla.console import echo

    for note in graph.notes:
        echo(note)
    print_layers(graph)
    echo()
    echo(
        f"nodes   {len(graph_def.node)} in the file, {len(graph.layers)} layers from {graph.input} "
        f"{shape_text(graph.input_shape)} to {', '.join(graph.outputs)}"
    )
    echo(f"weights {sum(row.weights for row in layer_rows(graph))} values")
    echo("bonnet  compiles" if not findings else f"bonnet  {len(findings)} findings:")
    for finding in findings[:_MAX_LISTED]:
        echo(f"  {finding.code}: {finding.what} {finding.remedy}")


def _draw(model: Model, args: argparse.Namespace) -> None:
    from mirilla.bonnet.arena_plot import save

    save(args.picture, model, args.input_size)
    _print_unless_json(args, f"picture {args.picture}")


def _print_unless_json(args: argparse.Namespace, text: str) -> None:
    from mirilla.console import echo

    if not args.json:
        echo(text)
