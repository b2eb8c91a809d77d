"""One word for a model: every verb takes a file, an export, training or run folder, and 'shipped'."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mirilla import config, shipped
from mirilla.cli.main import main
from mirilla.detect import resolve
from mirilla.detect.models import read_source
from mirilla.job.configure import is_detector, start_file
from mirilla.labels import LabelMap, save_label_map
from mirilla.weights.checkpoint import Checkpoint, save
from mirilla.weights.load import load_weights

KINDS = ("file", "export", "train", "run", "shipped")
VERBS = ("compile", "doctor", "inspect", "emulate", "deploy", "detect", "export", "start")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Kind -> the word that names such a model: the shipped one as an export, a training folder and a run."""
    root = tmp_path_factory.mktemp("models")
    run = root / "faces"
    shutil.copytree(shipped.FOLDER, run / "export")
    (run / "run.json").write_text("{}")
    spec_pipeline = config.sample(1, "none.record", "none.record", str(run / "label_map.pbtxt"))
    save_label_map(run / "label_map.pbtxt", LabelMap.from_names(["face"]))
    (run / "train").mkdir()
    config.save(run / "train" / "pipeline.config", spec_pipeline)
    weights = load_weights(shipped.default_weights())
    save(run / "train", Checkpoint(7, dict(weights.variables), {}))
    return {
        "file": str(run / "export/frozen_inference_graph.pb"),
        "export": str(run / "export"),
        "train": str(run / "train"),
        "run": str(run),
        "shipped": "shipped",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_every_kind(verb, kind, models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = models[kind]
    if verb == "emulate":
        with resolve.compiled_model(word) as path:
            assert path.suffix == ".binaryproto"
        assert not path.exists()
    elif verb == "export":
        source, _ = read_source(Path(word))
        assert source.card.labels.names == ("face",)
    elif verb == "start":
        if kind != "shipped":
            assert is_detector(start_file(word))
    else:
        arguments = {
            "compile": ["compile", word, "--out", "kit.binaryproto"],
            "doctor": ["doctor", word],
            "inspect": ["inspect", word],
            "deploy": ["deploy", word, "--bundle", "kit.zip"],
            "detect": ["detect", "--model", word, str(shipped.PHOTO), "--threshold", "0.5"],
        }[verb]
        assert main(arguments) == 0, capsys.readouterr().err
        if verb == "detect":
            assert "face 0.8" in capsys.readouterr().out


def test_compile_without_out_writes_beside_the_model_and_spares_other_files(models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(models["export"], tmp_path / "export")
    assert main(["compile", str(folder)]) == 0
    made = next(folder.glob("*.binaryproto"))
    assert json.loads((folder / f"{made.stem}.model.json").read_bytes())["file"]["name"] == made.name
    assert main(["compile", str(folder / "frozen_inference_graph.pb")]) == 0  # its own earlier file
    assert main(["compile", "shipped"]) == 0
    assert (tmp_path / "face.binaryproto").is_file()
    (tmp_path / "face.binaryproto").unlink()
    (tmp_path / "model.json").unlink()
    (tmp_path / "face.binaryproto").write_text("mine")
    assert main(["compile", "shipped"]) == 2
    assert (tmp_path / "face.binaryproto").read_text() == "mine"
    assert "did not write" in capsys.readouterr().err
