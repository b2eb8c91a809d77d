"""The files of a version."""

from __future__ import annotations

import pytest

from helpers_board import small_model
from mirilla.board.payload import read_payload
from mirilla.errors import ModelError, UsageError


def test_files_that_would_not_run(tmp_path):
    path = small_model(tmp_path / "a")
    (tmp_path / "a/model.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match=r"no model\.json"):
        read_payload(path)
    (tmp_path / "elsewhere.json").rename(tmp_path / "a/model.json")
    path.write_bytes(path.read_bytes() + b"\x0a")
    with pytest.raises(ModelError):
        read_payload(path)
    (tmp_path / "graph.pb").write_bytes(b"")
    with pytest.raises(UsageError) as raised:
        read_payload(tmp_path / "graph.pb")
    assert "mirilla compile" in raised.value.remedy
    other = small_model(tmp_path / "b")
    text = (tmp_path / "b/model.json").read_text()
    (tmp_path / "b/face.model.json").write_text(text.replace('"face.binaryproto"', '"../../.bashrc"'))
    with pytest.raises(ModelError, match="cannot be the name of a model file"):
        read_payload(other)
