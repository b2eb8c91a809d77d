"""The target `model.ckpt.meta`: the exported graph with variables instead of constants, and a saver.

`tf.train.import_meta_graph("model.ckpt.meta")` and its saver's `restore` rebuild the network from this file and the
checkpoint beside it, as they did from the original's export. Its graph is also `inference_graph.pbtxt`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mirilla.errors import ModelError
from mirilla.protos.tensorflow_pb2 import CollectionDef, GraphDef, MetaGraphDef, SaverDef, VariableDef
from mirilla.targets.graph_builder import FLOAT, INT64, STRING, DType, GraphBuilder, Shape

GLOBAL_STEP = "global_step"
NOT_TRAINED = ("moving_mean", "moving_variance")
_KEPT_CHECKPOINTS, _KEPT_EVERY_HOURS = 5, 10000.0  # the saver's defaults in TensorFlow 1


def check(graph: GraphDef, variables: Collection[str]) -> None:
    """Check that every variable is a constant of the graph.

    Raises:
        ModelError: one is not.
    """
    missing = sorted(set(variables) - {node.name for node in graph.node if node.op == "Const"})
    if missing:
        raise ModelError(
            f"The graph has no constant '{missing[0]}', so it cannot become a variable.",
            "Give the frozen graph that was made from these variables.",
        )


def build(graph: GraphDef, variables: Collection[str]) -> MetaGraphDef:
    """The graph with variables, initialisers and a saver; `global_step` is added.

    Args:
        graph: made by `frozen_graph.build`.
        variables: names of its constants that are variables.

    Raises:
        ModelError: see `check`.
    """
    check(graph, variables)
    builder = GraphBuilder()
    shapes: dict[str, tuple[tuple[int, ...], DType]] = {}
    for node in graph.node:
        if node.name in variables:
            shape = tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)
            shapes[node.name] = shape, FLOAT
            _add_variable(builder, node.name, shape, FLOAT)
        elif node.name.removesuffix("/read") not in variables:
            builder.graph_def.node.add().CopyFrom(node)
    shapes[GLOBAL_STEP] = (), INT64
    _add_variable(builder, GLOBAL_STEP, (), INT64)
    meta = MetaGraphDef(saver_def=_add_saver(builder, shapes))
    meta.graph_def.CopyFrom(builder.graph_def)
    for collection, names in (
        ("variables", list(shapes)),
        ("trainable_variables", [n for n in shapes if n != GLOBAL_STEP and not n.endswith(NOT_TRAINED)]),
        (GLOBAL_STEP, [GLOBAL_STEP]),
    ):
        messages = [_variable_def(name).SerializeToString() for name in names]
        meta.collection_def[collection].CopyFrom(CollectionDef(bytes_list={"value": messages}))
    return meta


def _add_variable(builder: GraphBuilder, name: str, shape: tuple[int, ...], dtype: DType) -> None:
    """The nodes that `tf.get_variable` adds, with zeros as the initial value."""
    zeros = builder.const(np.zeros(shape, dtype.name), at=f"{name}/Initializer/zeros")
    builder.op("VariableV2", at=name, dtype=dtype, shape=Shape(shape), container=b"", shared_name=b"")
    builder.op("Assign", name, zeros, at=f"{name}/Assign", T=dtype, use_locking=True, validate_shape=True)
    builder.op("Identity", name, at=f"{name}/read", T=dtype)


def _variable_def(name: str) -> VariableDef:
    return VariableDef(
        variable_name=f"{name}:0",
        initializer_name=f"{name}/Assign",
        snapshot_name=f"{name}/read:0",
        initial_value_name=f"{name}/Initializer/zeros:0",
        trainable=name != GLOBAL_STEP and not name.endswith(NOT_TRAINED),
    )


def _add_saver(builder: GraphBuilder, variables: dict[str, tuple[tuple[int, ...], DType]]) -> SaverDef:
    """The nodes of `tf.train.Saver`: one op saves all variables, one restores them."""
    names = sorted(variables)
    types = [variables[name][1] for name in names]
    with builder.scope("save"):
        file = builder.strings(b"model", "Const")
        keys = builder.strings([name.encode() for name in names], "SaveV2/tensor_names")
        slices = builder.strings([b""] * len(names), "SaveV2/shape_and_slices")
        saved = builder.op("SaveV2", file, keys, slices, *names, name="SaveV2", dtypes=types)
        written = builder.op("Identity", file, f"^{saved}", name="control_dependency", T=STRING)
        keys = builder.strings([name.encode() for name in names], "RestoreV2/tensor_names")
        slices = builder.strings([b""] * len(names), "RestoreV2/shape_and_slices")
        restored = builder.op("RestoreV2", file, keys, slices, name="RestoreV2", dtypes=types)
        assigned = [
            builder.op(
                "Assign",
                name,
                f"{restored}:{i}" if i else restored,
                name="Assign",
                T=dtype,
                use_locking=True,
                validate_shape=True,
            )
            for i, (name, dtype) in enumerate(zip(names, types, strict=True))
        ]
        done = builder.op("NoOp", *(f"^{node}" for node in assigned), name="restore_all")
    return SaverDef(
        filename_tensor_name=f"{file}:0",
        save_tensor_name=f"{written}:0",
        restore_op_name=done,
        max_to_keep=_KEPT_CHECKPOINTS,
        keep_checkpoint_every_n_hours=_KEPT_EVERY_HOURS,
        version=SaverDef.V2,
    )
