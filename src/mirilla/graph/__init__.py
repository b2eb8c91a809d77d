"""Frozen graphs: reading them, simplifying them into a deploy graph, and running it in numpy."""

from __future__ import annotations

from mirilla.graph.deploy import DeployGraph
from mirilla.graph.reader import load, read
from mirilla.protos.graphdef import read_graph_def, write_graph_def

__all__ = ["DeployGraph", "load", "read", "read_graph_def", "write_graph_def"]
