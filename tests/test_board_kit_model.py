"""The kit's reading of model.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers_kit_program import plain_folder
from mirilla.board.kit.__main__ import main
from mirilla.board.kit.errors import KitError
from mirilla.board.kit.model import load_model
from mirilla.files import sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return plain_folder(tmp_path)


def test_load_model(folder: Path):
    model = load_model(str(folder))
    assert (model.name, model.height, model.width, model.classes, len(model.anchors)) == ("face", 256, 256, 1, 1278)
    assert (model.mean, model.stddev, model.converter) == (127.5, 127.5, "SIGMOID")
    assert model.bonnet_name == "mirilla-" + sha256(folder / "face.binaryproto")[:16]
    (folder / "model.json").rename(folder / "face.model.json")
    assert load_model(str(folder)).name == "face"


def change(folder: Path, edit) -> None:
    card = json.loads((folder / "model.json").read_text())
    edit(card)
    (folder / "model.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "face.binaryproto").unlink(), "no compiled model"),
        (lambda f: (f / "other.binaryproto").write_bytes(b""), "several compiled models: face.binaryproto, other"),
        (lambda f: (f / "model.json").unlink(), "no model.json beside face.binaryproto"),
        (lambda f: (f / "model.json").write_text("{"), "not JSON"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), "not JSON"),
        (lambda f: (f / "model.json").write_text("[1]"), "not a model.json of Mirilla"),
        (lambda f: (f / "face.binaryproto").write_bytes(b"changed"), "belongs to a file with SHA-256"),
        (lambda f: change(f, lambda c: c.update(version=2)), "version 2"),
        (lambda f: change(f, lambda c: c["input"].pop("mean")), "'mean' is missing"),
        (lambda f: change(f, lambda c: c["input"].update(height="tall")), "invalid value"),
        (lambda f: change(f, lambda c: c["anchors"].update(boxes_yxyx=[[1, 2]])), "invalid value"),
        (lambda f: change(f, lambda c: c["anchors"].update(boxes_yxyx=[])), "no anchors"),
        (lambda f: change(f, lambda c: c["post_processing"].update(score_converter="COSINE")), "COSINE"),
    ],
)
def test_broken_folders(folder: Path, spoil, message: str, capsys: pytest.CaptureFixture[str]):
    spoil(folder)
    with pytest.raises(KitError, match=message):
        load_model(str(folder))
    assert main(["--dir", str(folder)]) == 1  # the program prints the same, without a traceback
    error = capsys.readouterr().err
    assert error.startswith("mirilla_kit: error: ")
    assert "Traceback" not in error
