"""`mirilla export --to`: every target, its example, and what a detector makes of its file."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from helpers_targets import shipped_source
from mirilla import shipped
from mirilla.cli.main import main
from mirilla.data import read_dataset
from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.exports import parity, pictures, write
from mirilla.targets import table
from mirilla.targets.names import EXAMPLE, TARGETS
from mirilla.toy import dataset as toy

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")
pytest.importorskip("cv2")
pytest.importorskip("ncnn")
BUILDABLE = [target.name for target in table.chosen("all", print)]  # without those whose compiler is missing here
RUN = [name for name in BUILDABLE if name != "web" or shutil.which("node")]  # Node.js runs the page's network


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Every target of the shipped model, compared on drawn faces."""
    folder = tmp_path_factory.mktemp("exports") / "out"
    assert main(["export", "shipped", "--to", "all", "--out", str(folder)]) == 0
    return folder


def test_every_target_has_a_folder_with_its_comparison(exports):
    assert {path.name for path in exports.iterdir()} == set(BUILDABLE)
    for name in BUILDABLE:
        card = json.loads((exports / name / "model.json").read_bytes())
        assert card["file"]["target"] == name
        assert (exports / name / card["file"]["name"]).is_file()
        assert (exports / name / "labels.txt").read_text() == "face\n"
        if name not in RUN:
            continue
        (parity,) = json.loads((exports / name / "parity.json").read_bytes())
        assert parity["model_ap"] - parity["file_ap"] < 0.02


@pytest.mark.parametrize("name", BUILDABLE)
def test_the_example_runs(exports, name, tmp_path):
    if name == "c" and shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    folder = shutil.copytree(exports / name, tmp_path / name)
    shutil.copy(shipped.PHOTO, folder / "photo.jpg")
    lines = (folder / EXAMPLE).read_text().splitlines()
    assert len([line for line in lines if line]) <= 10
    settings = {**os.environ, "BROWSER": "echo"}  # the web page's example prints instead of opening a window
    command = [sys.executable, EXAMPLE]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("name", RUN)
def test_a_detector_runs_the_file(exports, name):
    detector = Detector.load(exports / name)
    found = detector(decode_rgb(shipped.PHOTO), 0.55)
    assert len(found) == 1
    y, x = (found.boxes_yxyx[0, :2] + found.boxes_yxyx[0, 2:]) / 2
    low_y, low_x, high_y, high_x = shipped.PHOTO_FACE_YXYX
    assert low_y < y < high_y
    assert low_x < x < high_x


def test_an_export_is_replaced_but_other_folders_are_not(exports, tmp_path, capsys):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "mine.txt").write_text("mine")
    assert main(["export", "shipped", "--to", "onnx", "--out", str(tmp_path)]) != 0
    assert "other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--to", "onnx"], "needs a model"),
        (["export", "shipped", "--to", "onx"], "Unknown target 'onx'"),
        (["export", "shipped"], "is for --to"),
        (["export", "nowhere", "--to", "onnx"], "no such model"),
        (["export", "shipped", "--to", "onnx", "--calibrate", "nowhere"], "nowhere"),
    ],
)
def test_errors(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) != 0
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_files_have_the_threshold_that_was_measured(tmp_path, monkeypatch):
    """A file that detects best at another score than its model says so, wherever it has the threshold."""

    def shifted(*arguments):
        return replace(compare(*arguments), model_threshold=0.5, threshold=0.57)

    compare = parity.compare
    monkeypatch.setattr(parity, "compare", shifted)
    used = pictures.choose(read_dataset(toy.write(tmp_path / "drawn", train=12, val=4)))
    targets = [table.target(name) for name in ("c", "onnx")]
    write.export(shipped_source(), targets, tmp_path, pictures=used, tolerance=1, log=print)
    moved = round(shipped_source().card.threshold + 0.07, 2)
    for name in ("c", "onnx"):
        assert json.loads((tmp_path / name / "model.json").read_bytes())["recommended_threshold"] == moved
        Detector.load(tmp_path / name)
    assert f"#define MIRILLA_THRESHOLD {moved * 10:.1f}e-01f\n" in (tmp_path / "c" / "mirilla_model.h").read_text()
    assert f'"recommended_threshold":{moved:g}'.encode() in (tmp_path / "onnx" / "model.onnx").read_bytes()


def test_the_page_has_every_target():
    page = (Path(__file__).parents[1] / "docs/boards.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| `(\S+)` \|", page, re.M))
    assert rows == {name: table.target(name).file for name in TARGETS}


def test_the_pages_commands_run(exports, tmp_path, monkeypatch, capsys):
    """`export --to all` is what the fixture runs; the page's next command takes one of its folders."""
    page = (Path(__file__).parents[1] / "docs/boards.md").read_text("utf-8")
    commands = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^mirilla .*", page, re.M)]
    assert commands[0] == ["export", "shipped", "--to", "all", "--out", "files"]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exports, "files")
    shutil.copy(shipped.PHOTO, "holiday.jpg")
    for command in commands[1:]:
        assert main(command) == 0
    assert "holiday.jpg: face" in capsys.readouterr().out
