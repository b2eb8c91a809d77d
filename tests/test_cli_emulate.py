"""mirilla emulate."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers_emulator import GRAPH, Client, succeeded
from helpers_process import restore_sigint
from mirilla.emulator.server import Server


def test_serves_until_ctrl_c(tmp_path: Path, camera_folder: Path):
    graph = tmp_path / "squares.binaryproto"
    graph.write_bytes(GRAPH)
    command = [
        sys.executable,
        "-m",
        "mirilla.cli.main",
        "emulate",
        str(graph),
        "--input-size",
        "8",
        "--port",
        "0",
        "--frames",
        str(camera_folder),
        "--mean",
        "0",
        "--stddev",
        "1",
        "--verbose",
    ]
    source = Path(__file__).resolve().parents[1] / "src"
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source)},
        preexec_fn=restore_sigint,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "VISION_BONNET_HOST=127.0.0.1 VISION_BONNET_PORT=" in line:
                break
        port = int(lines[-1].split("VISION_BONNET_PORT=")[1].split()[0])
        connection = Client.__new__(Client)
        connection.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        with connection as client:
            assert list(client.state().loaded_models) == ["squares"]
            assert succeeded(client.infer(bytes(192), (8, 8, 3), "squares"))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""
    assert "Model 'squares': input 8x8" in "".join(lines)
    assert "Camera: 3 pictures" in "".join(lines)
    assert "image_inference squares" in out
    assert out.rstrip().endswith("Stopped.")


def test_input_size_from_model_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], emulator: Server):
    from mirilla.cli.main import main
    from mirilla.labels import LabelMap
    from mirilla.model import card
    from mirilla.model.spec import ModelSpec

    graph = tmp_path / "m.binaryproto"
    graph.write_bytes(GRAPH)
    boxes = np.zeros((16, 4), np.float32)
    card.save(
        card.ModelCard(ModelSpec(height_px=8, width_px=8), LabelMap.from_names(["face"]), boxes, target="bonnet"), graph
    )
    # the size is known, so it gets as far as the port, which is taken
    assert main(["emulate", str(graph), "--port", str(emulator.port)]) == 1
    assert "Cannot listen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["missing.binaryproto"], 1, "missing.binaryproto"),
        (["--port", "70000"], 2, "70000"),
        (["--fps", "-1"], 2, "--fps"),
        (["--stddev", "0"], 2, "stddev"),
        (["--name", "x"], 2, "--name"),
        (["--frames", "nowhere"], 1, "nowhere"),
        (["{graph}"], 2, "--input-size"),
        (["{graph}", "--input-size", "8", "--name", "FaceDetection"], 2, "FaceDetection"),
        (["{graph}", "--input-size", "6"], 1, "cannot become"),
        (["{graph}", "--input-size", "8", "--host", "203.0.113.7"], 1, "Cannot listen"),
    ],
)
def test_wrong_usage_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, expected: str
):
    from mirilla.cli.main import main

    graph = tmp_path / "m.binaryproto"
    graph.write_bytes(GRAPH)
    assert main(["emulate", *(a.format(graph=graph) for a in arguments)]) == code
    assert expected in capsys.readouterr().err
