"""End to end: `mirilla deploy --run` over an sshd on loopback, Google's client there, the emulator as the bonnet."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from helpers_board import Kit, sshd, sshd_program
from helpers_kit_program import kit_folder
from mirilla.cli.main import main
from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.emulator.server import Server
from test_board_kit_client import PHOTOS, photos, python  # noqa: F401

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.name == "nt" or sshd_program() is None or shutil.which("ssh") is None,
        reason="needs OpenSSH's server (Debian: apt-get install openssh-server)",
    ),
]


def test_from_a_compiled_model_to_the_first_box(shared, python, photos, tmp_path, capfd):  # noqa: F811
    model = shared / "data/bonnet/pikachu2_detector.binaryproto"
    if not model.is_file():
        pytest.skip("../shared/data/bonnet is missing")
    folder = kit_folder(tmp_path / "model", model, 0.1)
    with Server(EmulatedBonnet(), port=0) as bonnet:
        variables = {"VISION_BONNET_HOST": "127.0.0.1", "VISION_BONNET_PORT": str(bonnet.port)}
        kit = Kit(tmp_path / "kit", aiy=False, environment=variables)
        (kit.folder / "aiy/picamera.py").touch()
        kit.program("python3", f'#!/bin/sh\nPYTHONPATH={kit.folder}/aiy exec {python} "$@"\n')
        with sshd(kit, tmp_path / "ssh") as server:
            words = ["-F", str(server.config)]
            assert main(["deploy", "--check", server.target, *words]) == 0
            assert "firmware   version 1.2" in capfd.readouterr().out
            options = f"--options=--source {photos} --once --json"
            model = str(folder / "pikachu2_detector.binaryproto")
            assert main(["deploy", model, server.target, "--run", options, *words]) == 0
    out = capfd.readouterr().out
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    boxes = [detection["box_yxyx"] for line in lines for detection in line.get("detections", [])]
    assert all(f"{name}.jpg" in out for name in PHOTOS)
    assert boxes
    assert all(len(box) == 4 and box[0] < box[2] and box[1] < box[3] for box in boxes)


def test_a_classifier_names_pictures(shared, python, photos, tmp_path, capfd):  # noqa: F811
    graph = shared / "data/bonnet/google_squeezenet_160.pb"
    if not graph.is_file():
        pytest.skip("../shared/data/bonnet is missing")
    model, labels = tmp_path / "model/squeezenet.binaryproto", tmp_path / "labels.txt"
    labels.write_text("".join(f"thing {i}\n" for i in range(1001)))
    assert main(["compile", str(graph), "--out", str(model), "--labels", str(labels)]) == 0
    with Server(EmulatedBonnet(), port=0) as bonnet:
        variables = {"VISION_BONNET_HOST": "127.0.0.1", "VISION_BONNET_PORT": str(bonnet.port)}
        kit = Kit(tmp_path / "kit", aiy=False, environment=variables)
        (kit.folder / "aiy/picamera.py").touch()
        kit.program("python3", f'#!/bin/sh\nPYTHONPATH={kit.folder}/aiy exec {python} "$@"\n')
        with sshd(kit, tmp_path / "ssh") as server:
            capfd.readouterr()
            options = f"--options=--source {photos} --once --json --threshold 0.01"
            assert main(["deploy", str(model), server.target, "--run", options, "-F", str(server.config)]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    best = [line["detections"][0] for line in lines if line.get("detections")]
    assert len(best) == len(PHOTOS) + 1  # other.png
    assert all(one["label"] == f"thing {one['class']}" and one["box_yxyx"] == [0, 0, 1, 1] for one in best)
