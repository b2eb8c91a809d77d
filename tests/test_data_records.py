"""TFRecord files' framing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla.data import records
from mirilla.errors import DataError


def test_masked_crc_of_the_published_vector():
    # CRC-32C of "123456789" is 0xe3069283; rotated right by 15 and shifted by 0xa282ead8:
    assert records.masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def _file(tmp_path, *contents):
    path = tmp_path / "a.tfrecord"
    with open(path, "wb") as file:
        for content in contents:
            records.write_record(file, content)
    return path


@given(st.lists(st.binary(max_size=300), max_size=6))
@settings(max_examples=30, deadline=None)
def test_records_round_trip(tmp_path_factory, contents):
    path = _file(tmp_path_factory.mktemp("r"), *contents)
    assert list(records.read_records(path)) == contents


def test_every_cut_and_every_flipped_byte_is_found(tmp_path):
    path = _file(tmp_path, b"first", b"second")
    whole = path.read_bytes()
    first = 16 + len(b"first")
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        if cut == first:
            assert list(records.read_records(path)) == [b"first"]
            continue
        with pytest.raises(DataError, match=rf"a\.tfrecord: record {int(cut > first)} "):
            list(records.read_records(path))
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match=rf"record {int(at >= first)} "):
            list(records.read_records(path))


def test_a_huge_length_reads_nothing(tmp_path):
    head = struct.pack("<Q", 2**62)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(head + struct.pack("<I", records.masked_crc32c(head)) + b"x" * 20)
    with pytest.raises(DataError, match="the file ends after"):
        list(records.read_records(path))
