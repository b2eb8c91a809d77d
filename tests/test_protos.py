"""The message schemas: generated modules against their .proto files, and both against their originals."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from mirilla.protos import kit_pb2, onnx_pb2, pipeline_pb2, tensorflow_pb2
from mirilla.protos.graphdef import parse_graph_def

MODULES = {"kit": kit_pb2, "onnx": onnx_pb2, "pipeline": pipeline_pb2, "tensorflow": tensorflow_pb2}
FOLDER = Path(str(files("mirilla"))) / "protos"


def test_every_proto_has_its_module():
    assert sorted(path.stem for path in FOLDER.glob("*.proto")) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_packages_are_our_own(name):
    descriptor = MODULES[name].DESCRIPTOR
    assert descriptor.name == f"mirilla/protos/{name}.proto"
    assert descriptor.package.startswith("mirilla.")


@pytest.mark.parametrize("name", MODULES)
def test_the_checked_in_module_is_that_of_the_proto(name, tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    out = tmp_path / "set"
    source = FOLDER.parents[1]
    assert protoc.main(["protoc", f"-I{source}", f"--descriptor_set_out={out}", f"mirilla/protos/{name}.proto"]) == 0
    fresh = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    ours = descriptor_pb2.FileDescriptorProto()
    MODULES[name].DESCRIPTOR.CopyToProto(ours)
    for file in (fresh, ours):
        for message in file.message_type:
            _normalise(message)
    assert ours == fresh


def _normalise(message: descriptor_pb2.DescriptorProto) -> None:
    """Compiler and runtime differ in whether they state JSON names, and in how they write float defaults."""
    for field in message.field:
        field.ClearField("json_name")
        if field.type == field.TYPE_FLOAT and field.HasField("default_value"):
            field.default_value = f"{float(field.default_value):.6g}"
    for inner in message.nested_type:
        _normalise(inner)


@pytest.mark.parametrize("name", MODULES)
def test_the_proto_names_every_message_of_the_module(name):
    """A check of the checked-in module that needs no compiler: names and numbers as in the file's text."""
    source = (FOLDER / f"{name}.proto").read_text()
    plain = "\n".join(line.split("//")[0] for line in source.splitlines())
    fields = sorted((name, int(number)) for name, number in re.findall(r"(\w+)\s*=\s*(\d+)\s*(?:\[|;)", plain))
    assert fields == sorted(_names_and_numbers(MODULES[name].DESCRIPTOR))


def _names_and_numbers(file: FileDescriptor):
    def of_message(message: Descriptor):
        if message.GetOptions().map_entry:
            return
        for field in message.fields:
            yield field.name, field.number
        for enum in message.enum_types:
            yield from ((value.name, value.number) for value in enum.values)
        for inner in message.nested_types:
            yield from of_message(inner)

    for enum in file.enum_types_by_name.values():
        yield from ((value.name, value.number) for value in enum.values)
    for message in file.message_types_by_name.values():
        yield from of_message(message)


def _differences(ours: Descriptor, theirs: Descriptor) -> list[str]:
    """Fields of our message that the original does not have, or has with another number, type or label."""

    def kind(field: FieldDescriptor) -> tuple[object, ...]:
        message = field.message_type
        group = field.containing_oneof.name if field.containing_oneof else None
        return field.number, field.type, field.is_repeated, field.is_packed, message.name if message else None, group

    found = []
    for field in ours.fields:
        original = theirs.fields_by_name.get(field.name)
        if original is None or kind(field) != kind(original):
            found.append(f"{ours.full_name}.{field.name}")
    for inner in ours.nested_types:
        found += _differences(inner, theirs.nested_types_by_name[inner.name])
    return found


def test_tensorflow_messages_are_those_of_tensorboard():
    pytest.importorskip("tensorboard")
    sources = ("graph", "node_def", "attr_value", "tensor", "tensor_shape", "function", "versions", "event", "summary")
    theirs = {}
    for source in sources:
        theirs |= import_module(f"tensorboard.compat.proto.{source}_pb2").DESCRIPTOR.message_types_by_name
    shared = [message for name, message in tensorflow_pb2.DESCRIPTOR.message_types_by_name.items() if name in theirs]
    assert {"GraphDef", "NodeDef", "AttrValue", "TensorProto", "Event"} <= {message.name for message in shared}
    different = [field for message in shared for field in _differences(message, theirs[message.name])]
    assert different == []
    types = import_module("tensorboard.compat.proto.types_pb2").DataType
    assert all(types.Value(name) == number for name, number in tensorflow_pb2.DataType.items())


def test_onnx_messages_are_those_of_onnx():
    onnx = pytest.importorskip("onnx")
    theirs = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name
    ours = onnx_pb2.DESCRIPTOR.message_types_by_name.values()
    different = [field for message in ours for field in _differences(message, theirs[message.name])]
    # members of a oneof there; we write one of them at a time
    assert different == [
        "mirilla.onnx.TypeProto.tensor_type",
        "mirilla.onnx.TensorShapeProto.Dimension.dim_value",
        "mirilla.onnx.TensorShapeProto.Dimension.dim_param",
    ]


def test_what_our_graph_messages_leave_out_is_kept():
    """Functions, debug information and rare tensors survive reading and writing, byte for byte."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto import graph_pb2

    graph = graph_pb2.GraphDef(version=3)
    graph.versions.producer = 24
    node = graph.node.add(name="a", op="Const", device="/cpu:0", input=["x", "^y"])
    node.experimental_debug_info.original_node_names.append("original")
    node.experimental_type.type_id = 3
    for key in ("b", "a", "value"):
        node.attr[key].func.name = "f"
        node.attr[key].func.attr["x"].list.shape.add(unknown_rank=True)
    node.attr["value"].tensor.resource_handle_val.add(name="handle")
    node.attr["value"].tensor.tensor_shape.dim.add(size=-1, name="rows")
    function = graph.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="inner", op="NoOp")
    graph.debug_info.files.append("model.py")
    content = graph.SerializeToString(deterministic=True)
    assert parse_graph_def(content).SerializeToString(deterministic=True) == content
