"""The bundle for kits without network."""

from __future__ import annotations

import os
import subprocess
import zipfile

import pytest

from helpers_board import Kit, is_whole, small_model
from mirilla.board import bundle
from mirilla.board.payload import read_payload

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the kit's scripts need a POSIX shell")


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path / "kit")


def test_a_bundle_installs_itself(kit, tmp_path):
    payload = read_payload(small_model(tmp_path / "model"))
    bundle.write(payload, tmp_path / "kit.zip")
    bundle.write(payload, tmp_path / "again.zip")
    unpacked = kit.home / "stick"
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(unpacked)
    script = ["sh", str(unpacked / "mirilla-bundle/install.sh")]

    def run(*words):
        return subprocess.run([*script, *words], env=kit.variables, capture_output=True, text=True)

    assert run("--nonsense").returncode == 2
    done = run()
    assert done.returncode == 0, done.stderr
    assert is_whole(kit.current)
    helped = subprocess.run(
        ["python3", str(kit.current / "mirilla_kit.py"), "--help"], env=kit.variables, capture_output=True, text=True
    )
    assert "mirilla_kit.py" in helped.stdout
    done = run("--service")
    assert "state=active" in done.stdout, done.stderr
    assert (kit.root / "etc/systemd/system/mirilla.service").exists()
    assert run("--rollback").returncode == 3  # there is none before
    assert run("--remove").returncode == 0
    assert os.listdir(kit.home) == ["stick"]
    (unpacked / "mirilla-bundle/face.binaryproto").write_bytes(b"other")
    assert "hash" in run().stderr
    assert not kit.current.exists()
