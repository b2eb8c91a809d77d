"""Checks of a kit, with the probe in a shell of this machine."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from helpers_board import Kit, ShellLink, small_model
from mirilla.board import checks
from mirilla.cli import deploy
from mirilla.cli.main import main
from mirilla.errors import BoardError

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


def test_checks_of_a_good_kit(link, kit, here, capsys):
    assert main(["deploy", "--check", "pi@kit"]) == 0
    out = capsys.readouterr().out
    for words in (
        "Raspberry Pi Zero W",
        "Raspbian GNU/Linux 9",
        "version 1.2",
        "the package can be imported",
        "MB free",
    ):
        assert words in out
    assert "error" not in out
    assert "warning" not in out


def facts(**changes):
    good = {
        "probe": "1",
        "user": "pi",
        "machine": "armv6l",
        "kernel": "4.14.98+",
        "node": "yes",
        "driver": "loaded",
        "python": "3.5.3",
        "aiy": "yes",
        "picamera": "yes",
        "firmware": "1.2",
        "camera": "supported=1 detected=1",
        "free_kb": "4000000",
        "home_writable": "yes",
        "missing": "",
        "joy": "inactive",
    }
    return good | changes


@pytest.mark.parametrize(
    ("changes", "level", "what", "remedy"),
    [
        ({"node": "no"}, "error", "no bonnet answers", "reseat"),
        ({"node": "no", "driver": "there"}, "error", "did not load", "modprobe aiy-vision"),
        ({"node": "no", "driver": "no"}, "error", "kernel 4.14.98\\+ has no driver", "--reinstall"),
        (
            {"node": "no", "driver": "no", "aiy": "no: No module named 'aiy'"},
            "error",
            "not a Vision Kit",
            "--files-only",
        ),
        ({"node": "denied"}, "error", "user pi has no permission to use", "udev"),
        ({"firmware": "timed out"}, "warning", "did not report .*timed out", "off and on"),
        ({"firmware": ""}, "warning", "did not report", "off and on"),
        ({"firmware": "2.0"}, "warning", "version 2.0; only 1.x is known", "aiy-vision-firmware"),
        ({"python": "3.4.2"}, "error", "Python 3.5 or later, found 3.4.2", "python3"),
        ({"python": ""}, "error", "found none", "python3"),
        ({"aiy": "no: No module named 'aiy'"}, "error", "cannot import .*No module", "pip3"),
        ({"camera": "supported=0 detected=0"}, "error", "disabled", "raspi-config"),
        ({"camera": "supported=1 detected=0"}, "error", "no camera is detected", "reseat"),
        ({"camera": ""}, "warning", "its state is unknown", "raspi-config"),
        ({"picamera": "no"}, "error", "picamera is missing", "python3-picamera"),
        ({"free_kb": "1000"}, "error", "1.0 MB free; 22.0 MB are needed", "du -xh"),
        ({"home_writable": "no"}, "error", "cannot be written to", "card"),
        ({"missing": " sha256sum"}, "error", "programs are missing: sha256sum", "coreutils"),
        ({"joy": "active"}, "warning", "only one program can use the camera", "--service"),
        ({"throttled": "throttled=0x50005"}, "warning", "voltage", "supply"),
        ({"machine": "x86_64"}, "warning", "not a Raspberry Pi", "host"),
        ({"service": "failed"}, "warning", "has failed", "journalctl"),
    ],
)
def test_each_finding_has_a_remedy(changes, level, what, remedy):
    found = [
        finding for finding in checks.findings(facts(**changes), need_bytes=1_000_000) if finding.severity != "note"
    ]
    match = [finding for finding in found if re.search(what, finding.what)]
    assert len(match) == 1, found
    assert match[0].severity == level
    assert remedy in match[0].remedy
    if level == "error":
        with pytest.raises(BoardError):
            checks.require(found, "pi@kit")


def test_good_facts():
    assert {finding.severity for finding in checks.findings(facts())} == {"note"}


def test_a_bonnet_in_use_is_not_queried(kit, link):
    (kit.state / "joy_detection_demo.service.active").write_text("active\n")
    inference = kit.folder / "aiy/aiy/vision/inference.py"
    inference.write_text(inference.read_text().replace("return (1, 2)", "raise SystemExit('was asked')"))
    seen = checks.probe(link)
    assert seen["firmware"] == "busy"
    firmware = next(finding for finding in checks.findings(seen) if finding.where == "firmware")
    assert (firmware.severity, "another program" in firmware.what) == ("note", True)


def test_the_probe_of_a_broken_kit(kit, link):
    (kit.root / "dev/vision_spicomm").unlink()
    (kit.root / "proc/modules").write_text("")
    (kit.state / "camera").write_text("supported=1 detected=0\n")
    shutil.rmtree(kit.folder / "aiy")
    (kit.state / "joy_detection_demo.service.active").write_text("active\n")
    seen = checks.probe(link)
    assert (seen["node"], seen["driver"], seen["joy"]) == ("no", "no", "active")
    assert seen["aiy"].startswith("no: No module named")
    names = [finding.where for finding in checks.findings(seen) if finding.severity == "error"]
    assert names == ["bonnet", "aiy", "camera"]


def test_errors_end_the_deployment_before_copying(kit, here, tmp_path, capsys):
    (kit.root / "dev/vision_spicomm").unlink()
    assert main(["deploy", str(small_model(tmp_path / "m")), "pi@kit"]) == 1
    assert "Remedy" in capsys.readouterr().err
    assert os.listdir(kit.home) == []


def test_not_a_posix_shell(kit):
    class Mute(ShellLink):
        def run(self, script, **_):
            return super().run("echo This account is not available.")

    with pytest.raises(BoardError, match=r"does not run a script .This account is not available"):
        checks.probe(Mute(kit))
