"""The file format: byte-exact round trips, bytes written by hand, and malicious input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers_bonnet
from helpers_graph import small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf
from mirilla.bonnet import wire
from mirilla.errors import MirillaError, ModelError

FILES = (*helpers_bonnet.FILES, "google_person_cat_dog_2017")
SMALL, _ = bonnet.build(small_network().graph_def)


@pytest.mark.parametrize("name", FILES)
def test_known_files_round_trip_byte_for_byte(shared, name, tmp_path):
    path = shared / f"data/bonnet/{name}.binaryproto"
    model = bf.read(path)
    assert not model.unknown
    bf.write(tmp_path / "again", model)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_bytes_of_messages_by_hand():
    kernel = bf.Kernel(2, bf.PADDING_SAME, 3, 3)
    assert wire.serialise(kernel).hex() == "1002180228033003"
    plan = bf.Plan(917504, 393216, 262144, 524288, 1, 1, 0, 1, 0, 1179648)
    assert wire.serialise(plan).hex() == "108080381880801820808010288080203001380140004801680070808048"
    op = bf.Op("Reshape", ("a",), "b", reshape=bf.Reshape(768, 1, 4), plan=bf.Plan(24, output_bytes=6144))
    assert wire.serialise(op).hex() == (
        "0a07526573686170651201611a0162d2c8a4a2020708800610011804cab68d8803051018288030"
    )
    constant = bf.Constant.of("w", np.array([[[[1, -2]]]], np.float16))
    assert wire.serialise(constant).hex() == "080110011801200230023d0000803f4204003c00c04a0177"
    assert constant.values.reshape(-1).tolist() == [1, -2]


@given(st.builds(bf.Kernel, *[st.none() | st.integers(0, 2**64 - 1)] * 4))
def test_messages_round_trip(message):
    assert wire.parse(bf.Kernel, wire.serialise(message), "x") == message


names = st.text(min_size=1, max_size=12)
numbers = st.none() | st.integers(0, 2**40)


@st.composite
def models(draw):
    sides = draw(st.tuples(*[st.integers(1, 3)] * 4))
    bits = draw(st.lists(st.integers(0, 2**16 - 1), min_size=int(np.prod(sides)), max_size=int(np.prod(sides))))
    labels = draw(st.lists(names, min_size=4, max_size=4, unique=True))
    constant = bf.Constant.of(labels[0], np.array(bits, np.uint16).reshape(sides))
    plan = bf.Plan(*[draw(numbers) for _ in range(10)])
    first = bf.Op("Conv", (labels[1], labels[0]), labels[2], kernel=bf.Kernel(draw(numbers), draw(numbers)), plan=plan)
    second = bf.Op(
        draw(names),
        (labels[2],),
        labels[3],
        concat=bf.Concat(draw(numbers)),
        softmax=bf.Softmax(draw(st.none() | st.floats(width=32, allow_nan=False))),
    )
    return bf.Model(
        labels[1],
        (labels[0],),
        (constant,),
        2,
        (labels[3],),
        (first, second),
        draw(numbers),
        draw(st.none() | st.builds(bf.Arena, numbers, numbers)),
    )


@settings(max_examples=80, deadline=None)
@given(models())
def test_models_round_trip(model):
    assert bf.parse(bf.serialise(model)) == model


def test_unknown_fields_keep_their_place():
    raw = wire.serialise(bf.Kernel(2, 1)) + bytes.fromhex("2007") + bytes.fromhex("3801")  # fields 4 and 7
    kernel = wire.parse(bf.Kernel, raw, "x")
    assert [number for number, _ in kernel.unknown] == [4, 7]
    assert wire.serialise(dataclasses.replace(kernel, height=3)).hex() == "10021801200728033801"


@pytest.mark.parametrize(
    "raw",
    [
        "80",  # a tag that does not end
        "10" + "ff" * 10 + "01",  # an integer of more than ten bytes
        "10ffffffffffffffffff7f",  # more than 64 bits
        "0b",  # a group
        "12ffffffffffffffffff01",  # a length of 2**64 - 1
        "1205",  # a length past the end
        "0001",  # field 0
        "10",  # no value
        "0d00",  # four bytes announced, one there
    ],
)
def test_broken_wire_is_refused(raw):
    with pytest.raises(ModelError):
        wire.parse(bf.Kernel, bytes.fromhex(raw), "x")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ops": ()}, "no ops"),
        ({"input": None}, "no input"),
        ({"outputs": ("nothing",)}, "no op writes"),
        ({"constant_names": ()}, "differ"),
        ({"constants": ()}, "differ"),
        ({"ops": SMALL.ops[1:]}, "no earlier op writes"),
        ({"ops": SMALL.ops + SMALL.ops[:1]}, "second time"),
        (
            {"constants": (dataclasses.replace(SMALL.constants[0], d1=1 << 60), *SMALL.constants[1:])},
            "the rule is 2",
        ),
        (
            {"constants": (dataclasses.replace(SMALL.constants[0], data_type=1), *SMALL.constants[1:])},
            "not fp16",
        ),
    ],
)
def test_inconsistent_models_are_refused(change, expected):
    with pytest.raises(ModelError, match=expected):
        bf.parse(bf.serialise(dataclasses.replace(SMALL, **change)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_parsed_or_refused(data):
    content = bytearray(bf.serialise(SMALL))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    try:
        model = bf.parse(bytes(content))
    except MirillaError:
        return
    assert bf.parse(bf.serialise(model)) is not None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content):
    with pytest.raises(ModelError):
        bf.parse(content)


@pytest.mark.parametrize(("head", "what"), [(b"version https://git-lfs", "Git LFS pointer"), (b"<html>", "a web page")])
def test_other_files_are_named(head, what):
    with pytest.raises(ModelError, match=f"{what}, not a compiled model"):
        bf.parse(head + b"\n" * 100)
