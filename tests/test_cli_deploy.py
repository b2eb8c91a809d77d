"""The command line of `mirilla deploy`."""

from __future__ import annotations

import os

import pytest

from helpers_board import Kit, ShellLink, is_whole, small_model
from mirilla.cli import deploy
from mirilla.cli.main import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the kit's scripts need a POSIX shell")


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path / "kit")


@pytest.fixture
def link(kit):
    return ShellLink(kit)


@pytest.fixture
def here(link, monkeypatch):
    """The command line, with the kit's shell instead of ssh."""
    monkeypatch.setattr(deploy, "_link", lambda args, host: link)


def test_files_only(kit, here, tmp_path, capsys):
    (kit.root / "dev/vision_spicomm").unlink()
    assert main(["deploy", str(small_model(tmp_path / "m")), "pi@board", "--files-only"]) == 0
    assert len(kit.versions) == 1
    assert is_whole(kit.home / "mirilla/versions" / kit.versions[0])
    assert not kit.current.exists()


def test_files_only_to_a_folder(kit, here, tmp_path, capsys):
    model = small_model(tmp_path / "m")
    (kit.home / "models").mkdir()
    assert main(["deploy", str(model), "pi@board", "--files-only", "--to", "models/"]) == 0
    assert "face.binaryproto and model.json copied to models/" in capsys.readouterr().out
    assert (kit.home / "models/face.binaryproto").read_bytes() == model.read_bytes()
    assert sorted(path.name for path in (kit.home / "models").iterdir()) == ["face.binaryproto", "model.json"]
    assert not (kit.home / "mirilla").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["model.binaryproto"],
        ["model", "host", "--to", "/home/pi/"],
        ["model", "host", "--files-only", "--to", "$(reboot)"],
        ["a", "b", "c"],
        ["--check"],
        ["--rollback"],
        ["model", "host", "--bundle", "x.zip"],
        ["host", "--check", "--run"],
        ["model", "host", "--options=--web 1"],
        ["model", "-oProxyCommand=evil", "--yes"],
        ["host", "--check", "--remove"],
        ["model", "a host"],
    ],
)
def test_wrong_usage(words, capsys):
    try:
        code = main(["deploy", *words])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
