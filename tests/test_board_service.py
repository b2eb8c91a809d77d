"""The systemd unit, with the kit's scripts in a shell of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from helpers_board import Kit, ShellLink, small_model
from mirilla.board import install, service
from mirilla.board.payload import read_payload
from mirilla.cli import deploy
from mirilla.cli.main import main
from mirilla.errors import BoardError, UsageError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the kit's scripts need a POSIX shell")


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path / "kit")


@pytest.fixture
def link(kit):
    return ShellLink(kit)


@pytest.fixture
def payloads(tmp_path):
    """Three versions of different content, in the order of their making."""
    return [
        read_payload(small_model(tmp_path / f"m{i}", threshold=0.3 + i / 10), stamp=f"20180704T12000{i}")
        for i in range(3)
    ]


@pytest.fixture
def here(link, monkeypatch):
    """The command line, with the kit's shell instead of ssh."""
    monkeypatch.setattr(deploy, "_link", lambda args, host: link)


def test_the_unit(tmp_path):
    text = service.unit_text(["--web", "8080", "--alert-command", 'say "50% $HOME" \\ @HOME@'])
    lines = text.splitlines()
    assert "User=@USER@" in lines
    assert "Restart=always" in lines
    assert "Conflicts=joy_detection_demo.service" in lines
    command = next(line for line in lines if line.startswith("ExecStart="))
    assert command == (
        "ExecStart=/usr/bin/python3 @HOME@/mirilla/current/mirilla_kit.py --dir @HOME@/mirilla/current --web 8080 "
        '--alert-command "say \\"50%% $$HOME\\" \\\\ \\x40HOME@"'
    )
    users = service.unit_text(user_unit=True)
    assert "User=" not in users
    assert "WantedBy=default.target" in users
    assert re.search(r"^\[Service\]\nType=notify$", users, re.M)
    with pytest.raises(UsageError, match="control character"):
        service.parse_options("--alert-command 'a\nExecStartPre=evil'")
    with pytest.raises(UsageError, match="--dir"):
        service.parse_options("--dir=/elsewhere")
    if shutil.which("systemd-analyze"):
        path = tmp_path / "mirilla.service"
        filled = text
        for old, new in (
            ("/usr/bin/python3", "/bin/sh"),
            ("@USER@", "root"),
            ("\\x40HOME@", "home"),
            ("@HOME@", str(tmp_path)),
        ):
            filled = filled.replace(old, new)
        path.write_text(filled)
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
        assert "mirilla.service" not in done.stderr.replace("dev-vision_spicomm", "")


def test_the_service_replaces_the_joy_demo_until_it_is_removed(link, kit, payloads, here, tmp_path, capsys):
    for name in ("active", "enabled"):
        (kit.state / f"joy_detection_demo.service.{name}").write_text("active\n")
    model = str(small_model(tmp_path / "m", threshold=0.25))
    assert main(["deploy", model, "pi@kit", "--service"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert not (kit.home / "mirilla").exists()
    assert main(["deploy", model, "pi@kit", "--service", "--yes", "--options=--web 8080"]) == 0
    out = capsys.readouterr().out
    assert "a line of the log" in out
    assert "mirilla.service is active" in out
    unit = (kit.root / "etc/systemd/system/mirilla.service").read_text()
    assert f"python3 {kit.home}/mirilla/current/mirilla_kit.py --dir {kit.home}/mirilla/current --web 8080" in unit
    assert "@" not in unit
    assert not (kit.state / "joy_detection_demo.service.enabled").exists()
    assert (kit.state / "mirilla.service.enabled").exists()
    # a second model: the service starts again with it
    before = kit.calls().count("restart --no-block mirilla.service")
    assert main(["deploy", str(small_model(tmp_path / "n")), "pi@kit"]) == 0
    assert kit.calls().count("restart --no-block mirilla.service") == before + 1
    assert main(["deploy", "--rollback", "pi@kit"]) == 0
    assert kit.calls().count("restart --no-block mirilla.service") == before + 2
    assert main(["deploy", "--remove", "pi@kit"]) == 0
    assert os.listdir(kit.home) == []
    assert not list(kit.root.glob("etc/systemd/system/*"))
    assert (kit.state / "joy_detection_demo.service.enabled").exists()
    assert (kit.state / "joy_detection_demo.service.active").exists()


def test_run_follows_the_services_log_or_starts_the_program(link, kit, here, tmp_path, capfd):
    kit.program("journalctl", '#!/bin/sh\ncase "$*" in *-f) echo followed ;; esac\n')
    model = str(small_model(tmp_path / "m"))
    (kit.state / "joy_detection_demo.service.active").write_text("active\n")
    assert main(["deploy", model, "pi@kit", "--run", "--yes", "--options=--help"]) == 0
    assert "usage: mirilla_kit.py" in capfd.readouterr().out
    assert not (kit.state / "joy_detection_demo.service.active").exists()
    assert main(["deploy", model, "pi@kit", "--run", "--service"]) == 0
    assert "followed" in capfd.readouterr().out
    assert main(["deploy", model, "pi@kit", "--run"]) == 0
    assert "followed" in capfd.readouterr().out


def test_a_service_that_fails(link, kit, here, tmp_path, capsys):
    (kit.state / "wants").write_text("failed\n")
    assert main(["deploy", str(small_model(tmp_path / "m")), "pi@kit", "--service"]) == 1
    printed = capsys.readouterr()
    assert "does not run (systemd reports 'failed')" in printed.err
    assert "--rollback" in printed.err
    assert "a line of the log" in printed.out


def test_without_sudo_it_is_a_user_unit(link, kit, payloads):
    (kit.state / "no-sudo").touch()
    install.install(link, payloads[0])
    with pytest.raises(BoardError, match="sudo asks for a password"):
        service.install(link, replace_joy=False)
    (kit.state / "user-systemd").touch()
    assert service.install(link, replace_joy=False).state == "active"
    assert "User=" not in (kit.home / ".config/systemd/user/mirilla.service").read_text()
    assert service.remove(link)
    assert not list(kit.home.glob(".config/systemd/user/*"))
    assert not service.remove(link)
