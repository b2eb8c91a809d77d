"""Versions, service and removal with the kit's scripts in a shell of this machine, without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile

import pytest

from helpers_board import Kit, ShellLink, is_whole, small_model
from mirilla.board import bundle, checks, install, service
from mirilla.board.payload import Payload, program, read_payload
from mirilla.cli import deploy
from mirilla.cli.main import main
from mirilla.errors import BoardError, ModelError, UsageError
from mirilla.model import card as cards

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the kit's scripts need a POSIX shell")


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path / "kit")


@pytest.fixture
def link(kit):
    return ShellLink(kit)


@pytest.fixture
def packs(tmp_path):
    """Three versions of different content, in the order of their making."""
    return [
        read_payload(small_model(tmp_path / f"m{i}", threshold=0.3 + i / 10), stamp=f"20180704T12000{i}")
        for i in range(3)
    ]


@pytest.fixture
def here(link, monkeypatch):
    """The command line, with the kit's shell instead of ssh."""
    monkeypatch.setattr(deploy, "_link", lambda args, host: link)


def test_a_version_holds_the_model_its_card_and_the_program(link, kit, packs):
    assert install.install(link, packs[0])
    version = kit.current.resolve()
    assert os.readlink(kit.current) == f"versions/{packs[0].name}"
    assert sorted(path.name for path in version.iterdir()) == [
        "SHA256SUMS",
        "face.binaryproto",
        "mirilla_kit.py",
        "model.json",
    ]
    assert is_whole(version)
    assert (version / "mirilla_kit.py").read_bytes() == program()
    card = cards.load(version / "model.json", version / "face.binaryproto")
    assert card.threshold == pytest.approx(0.3)


def test_the_same_files_are_not_copied_twice(link, kit, packs, tmp_path):
    install.install(link, packs[0])
    again = Payload("20190101T000000-" + packs[0].digest, "face", packs[0].files)
    assert not install.install(link, again)
    assert kit.versions == [packs[0].name]
    (kit.current / "model.json").write_text("{}")  # damaged there: then they are
    assert install.install(link, again)
    assert kit.current.resolve().name == again.name


def test_one_version_before_is_kept_and_rolled_back_to(link, kit, packs):
    for pack in packs:
        install.install(link, pack)
    assert kit.versions == [packs[1].name, packs[2].name]
    assert install.rollback(link) == packs[1].name
    assert kit.current.resolve().name == packs[1].name
    with pytest.raises(BoardError, match="previous version is damaged or missing"):
        install.rollback(link)
    assert kit.current.resolve().name == packs[1].name


def test_after_a_rollback_the_next_version_goes_back_to_the_good_one(link, kit, packs):
    install.install(link, packs[0])
    install.install(link, packs[1])
    install.rollback(link)
    install.install(link, packs[2])
    assert install.rollback(link) == packs[0].name


def test_nothing_to_roll_back_to(link, packs):
    with pytest.raises(BoardError, match="Mirilla is not installed"):
        install.rollback(link)
    install.install(link, packs[0])
    with pytest.raises(BoardError, match="no previous version"):
        install.rollback(link)


def test_a_version_from_before_the_program_had_modules(link, kit, packs):
    """There mirilla_kit.py is a script; the same unit and the same command start it after a rollback."""
    script = b"print('usage: the old script')\n"
    old = Payload("20170101T000000-01234567", "face", dict(packs[0].files, **{"mirilla_kit.py": script}))
    install.install(link, old)
    install.install(link, packs[1])
    unit = service.unit_text(["--help"]).replace("@HOME@", str(kit.home))
    command = re.search("^ExecStart=/usr/bin/(.*)$", unit, re.M)[1]

    def start():
        return subprocess.run(["sh", "-c", command], env=kit.variables, capture_output=True, text=True).stdout

    assert "usage: mirilla_kit.py" in start()
    install.rollback(link)
    assert "usage: the old script" in start()


def test_a_damaged_version_is_not_rolled_back_to(link, kit, packs):
    install.install(link, packs[0])
    install.install(link, packs[1])
    (kit.current.resolve().parent / packs[0].name / "mirilla_kit.py").write_text("")
    with pytest.raises(BoardError, match="damaged"):
        install.rollback(link)
    assert kit.current.resolve().name == packs[1].name


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.9999])
def test_a_copy_cut_off_leaves_the_old_version(link, kit, packs, share):
    install.install(link, packs[0])
    archive = install.archive(packs[1]).rstrip(b"\0")  # without the padding at its end
    script = install.install_script(packs[1], fetch='tar -xf - -C "$new"')
    result = link.run(script, stdin=archive[: int(len(archive) * share)])
    with pytest.raises(BoardError, match="The current version is unchanged"):
        install._explain(link, result)
    assert kit.versions == [packs[0].name]
    assert is_whole(kit.current)


@pytest.mark.parametrize("after", ["mkdir", "tar", "sha256sum", "mv", "ln"])
def test_power_cut_at_each_step(link, kit, packs, after):
    """The whole shell is killed right after a step; `current` leads to a whole version, and the next goes well."""
    install.install(link, packs[0])
    real = shutil.which(after)
    kit.program(after, f'#!/bin/sh\n{real} "$@"\nkill -9 $PPID\n')
    link.run(install.install_script(packs[1], fetch='tar -xf - -C "$new"'), stdin=install.archive(packs[1]))
    (kit.folder / "bin" / after).unlink()
    assert is_whole(kit.current)
    assert kit.current.resolve().name == packs[0].name
    install.install(link, packs[2])
    assert kit.current.resolve().name == packs[2].name
    assert not [name for name in kit.versions if name.startswith(".incoming")]
    assert kit.versions == [packs[0].name, packs[2].name]


def test_a_wrong_hash_is_seen_on_the_kit(link, kit, packs):
    install.install(link, packs[0])
    kit.program("tar", '#!/bin/sh\n/bin/tar "$@" && printf x >>"$4/face.binaryproto"\n')
    with pytest.raises(BoardError, match=r"SHA-256 of the copied files differs.*unchanged"):
        install.install(link, packs[1])
    assert kit.versions == [packs[0].name]


def test_no_space_is_told(link, kit, packs):
    kit.program("tar", '#!/bin/sh\necho "tar: x: Cannot write: No space left on device" >&2; exit 2\n')
    with pytest.raises(BoardError, match="no space left") as raised:
        install.install(link, packs[0])
    assert "du -xh" in raised.value.remedy
    assert kit.versions == []


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is missing here")
def test_two_deployments_do_not_meet(link, kit, packs):
    install.install(link, packs[0])
    holder = subprocess.Popen(
        ["flock", kit.home / "mirilla/.lock", "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(BoardError, match="another deployment"):
        install.install(link, packs[1])
    holder.communicate(b"\n")
    assert install.install(link, packs[1])


def test_removal_leaves_what_others_put_there(link, kit, packs):
    install.install(link, packs[0])
    (kit.home / "mirilla/snapshots").mkdir()
    assert install.remove(link) == "snapshots"
    assert os.listdir(kit.home / "mirilla") == ["snapshots"]
    (kit.home / "mirilla/snapshots").rmdir()
    install.install(link, packs[0])
    assert install.remove(link) == ""
    assert os.listdir(kit.home) == []
    with pytest.raises(BoardError, match="Mirilla is not installed"):
        install.remove(link)


def test_a_file_in_the_folders_place(link, kit, packs):
    (kit.home / "mirilla").write_text("mine")
    with pytest.raises(BoardError, match="not a folder"):
        install.install(link, packs[0])
    assert (kit.home / "mirilla").read_text() == "mine"


def test_payload_refuses_what_would_not_run(tmp_path):
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


def test_the_service_replaces_the_joy_demo_and_gives_its_place_back(link, kit, packs, here, tmp_path, capsys):
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


def test_a_service_that_fails_is_told(link, kit, here, tmp_path, capsys):
    (kit.state / "wants").write_text("failed\n")
    assert main(["deploy", str(small_model(tmp_path / "m")), "pi@kit", "--service"]) == 1
    said = capsys.readouterr()
    assert "does not run (systemd says 'failed')" in said.err
    assert "--rollback" in said.err
    assert "a line of the log" in said.out


def test_without_sudo_the_unit_is_the_users_own(link, kit, packs):
    (kit.state / "no-sudo").touch()
    install.install(link, packs[0])
    with pytest.raises(BoardError, match="sudo asks for a password"):
        service.install(link, replace_joy=False)
    (kit.state / "user-systemd").touch()
    assert service.install(link, replace_joy=False).state == "active"
    assert "User=" not in (kit.home / ".config/systemd/user/mirilla.service").read_text()
    assert service.remove(link)
    assert not list(kit.home.glob(".config/systemd/user/*"))
    assert not service.remove(link)


def test_checks_of_a_good_kit(link, kit, here, capsys):
    assert main(["deploy", "--check", "pi@kit"]) == 0
    out = capsys.readouterr().out
    for words in ("Raspberry Pi Zero W", "Raspbian GNU/Linux 9", "version 1.2", "the package imports", "MB free"):
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
        ({"node": "denied"}, "error", "user pi may not use it", "udev"),
        ({"firmware": "timed out"}, "warning", "did not tell .*timed out", "off and on"),
        ({"firmware": ""}, "warning", "did not tell", "off and on"),
        ({"firmware": "2.0"}, "warning", "version 2.0; known is 1.x", "aiy-vision-firmware"),
        ({"python": "3.4.2"}, "error", "Python 3.5 or later, found 3.4.2", "python3"),
        ({"python": ""}, "error", "found none", "python3"),
        ({"aiy": "no: No module named 'aiy'"}, "error", "cannot import .*No module", "pip3"),
        ({"camera": "supported=0 detected=0"}, "error", "switched off", "raspi-config"),
        ({"camera": "supported=1 detected=0"}, "error", "no camera answers", "reseat"),
        ({"camera": ""}, "warning", "could not be asked", "raspi-config"),
        ({"picamera": "no"}, "error", "picamera is missing", "python3-picamera"),
        ({"free_kb": "1000"}, "error", "1.0 MB free; needed are 22.0", "du -xh"),
        ({"home_writable": "no"}, "error", "cannot be written", "card"),
        ({"missing": " sha256sum"}, "error", "programs are missing: sha256sum", "coreutils"),
        ({"joy": "active"}, "warning", "only one program can use the camera", "--service"),
        ({"throttled": "throttled=0x50005"}, "warning", "voltage", "supply"),
        ({"machine": "x86_64"}, "warning", "not a Raspberry Pi", "host"),
        ({"service": "failed"}, "warning", "has failed", "journalctl"),
    ],
)
def test_each_finding_has_a_remedy(changes, level, what, remedy):
    found = [one for one in checks.findings(facts(**changes), need_bytes=1_000_000) if one.severity != "note"]
    match = [one for one in found if re.search(what, one.what)]
    assert len(match) == 1, found
    assert match[0].severity == level
    assert remedy in match[0].remedy
    if level == "error":
        with pytest.raises(BoardError):
            checks.require(found, "pi@kit")


def test_good_facts_give_no_complaint():
    assert {one.severity for one in checks.findings(facts())} == {"note"}


def test_a_bonnet_at_work_is_not_disturbed(kit, link):
    (kit.state / "joy_detection_demo.service.active").write_text("active\n")
    inference = kit.folder / "aiy/aiy/vision/inference.py"
    inference.write_text(inference.read_text().replace("return (1, 2)", "raise SystemExit('was asked')"))
    seen = checks.probe(link)
    assert seen["firmware"] == "busy"
    firmware = next(one for one in checks.findings(seen) if one.where == "firmware")
    assert (firmware.severity, "at work" in firmware.what) == ("note", True)


def test_the_probe_finds_what_is_wrong(kit, link):
    (kit.root / "dev/vision_spicomm").unlink()
    (kit.root / "proc/modules").write_text("")
    (kit.state / "camera").write_text("supported=1 detected=0\n")
    shutil.rmtree(kit.folder / "aiy")
    (kit.state / "joy_detection_demo.service.active").write_text("active\n")
    seen = checks.probe(link)
    assert (seen["node"], seen["driver"], seen["joy"]) == ("no", "no", "active")
    assert seen["aiy"].startswith("no: No module named")
    names = [one.where for one in checks.findings(seen) if one.severity == "error"]
    assert names == ["bonnet", "aiy", "camera"]


def test_errors_stop_before_anything_is_copied(kit, here, tmp_path, capsys):
    (kit.root / "dev/vision_spicomm").unlink()
    assert main(["deploy", str(small_model(tmp_path / "m")), "pi@kit"]) == 1
    assert "Remedy" in capsys.readouterr().err
    assert os.listdir(kit.home) == []


def test_a_shell_that_is_none(kit):
    class Mute(ShellLink):
        def run(self, script, **_):
            return super().run("echo This account is not available.")

    with pytest.raises(BoardError, match=r"does not run a script .This account is not available"):
        checks.probe(Mute(kit))


def test_files_only_copies_and_looks_at_nothing(kit, here, tmp_path, capsys):
    (kit.root / "dev/vision_spicomm").unlink()
    assert main(["deploy", str(small_model(tmp_path / "m")), "pi@board", "--files-only"]) == 0
    assert len(kit.versions) == 1
    assert is_whole(kit.home / "mirilla/versions" / kit.versions[0])
    assert not kit.current.exists()


def test_a_bundle_installs_itself(kit, packs, tmp_path):
    bundle.write(packs[0], tmp_path / "kit.zip")
    bundle.write(packs[0], tmp_path / "again.zip")
    unpacked = kit.home / "stick"
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(unpacked)
    script = ["sh", str(unpacked / "mirilla-bundle/install.sh")]

    def go(*words):
        return subprocess.run([*script, *words], env=kit.variables, capture_output=True, text=True)

    assert go("--nonsense").returncode == 2
    done = go()
    assert done.returncode == 0, done.stderr
    assert is_whole(kit.current)
    helped = subprocess.run(
        ["python3", str(kit.current / "mirilla_kit.py"), "--help"], env=kit.variables, capture_output=True, text=True
    )
    assert "mirilla_kit.py" in helped.stdout
    done = go("--service")
    assert "state=active" in done.stdout, done.stderr
    assert (kit.root / "etc/systemd/system/mirilla.service").exists()
    assert go("--rollback").returncode == 3  # there is none before
    assert go("--remove").returncode == 0
    assert os.listdir(kit.home) == ["stick"]
    (unpacked / "mirilla-bundle/face.binaryproto").write_bytes(b"other")
    assert "hash" in go().stderr
    assert not kit.current.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["model.binaryproto"],
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
