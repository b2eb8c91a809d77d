"""Versions on the kit, with the scripts in a shell of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from helpers_board import Kit, ShellLink, is_whole, small_model
from mirilla.board import install, service
from mirilla.board.payload import Payload, program, read_payload
from mirilla.errors import BoardError
from mirilla.model import card as cards

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


def test_a_version_has_the_model_its_card_and_the_program(link, kit, payloads):
    assert install.install(link, payloads[0])
    version = kit.current.resolve()
    assert os.readlink(kit.current) == f"versions/{payloads[0].name}"
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


def test_the_same_files_are_not_copied_twice(link, kit, payloads, tmp_path):
    install.install(link, payloads[0])
    again = Payload("20190101T000000-" + payloads[0].digest, "face", payloads[0].files)
    assert not install.install(link, again)
    assert kit.versions == [payloads[0].name]
    (kit.current / "model.json").write_text("{}")  # damaged there: then they are
    assert install.install(link, again)
    assert kit.current.resolve().name == again.name


def test_rollback_to_the_previous_version(link, kit, payloads):
    for payload in payloads:
        install.install(link, payload)
    assert kit.versions == [payloads[1].name, payloads[2].name]
    assert install.rollback(link) == payloads[1].name
    assert kit.current.resolve().name == payloads[1].name
    with pytest.raises(BoardError, match="previous version is damaged or missing"):
        install.rollback(link)
    assert kit.current.resolve().name == payloads[1].name


def test_rollback_after_a_rollback_and_an_installation(link, kit, payloads):
    install.install(link, payloads[0])
    install.install(link, payloads[1])
    install.rollback(link)
    install.install(link, payloads[2])
    assert install.rollback(link) == payloads[0].name


def test_no_previous_version(link, payloads):
    with pytest.raises(BoardError, match="Mirilla is not installed"):
        install.rollback(link)
    install.install(link, payloads[0])
    with pytest.raises(BoardError, match="no previous version"):
        install.rollback(link)


def test_a_version_from_before_the_program_had_modules(link, kit, payloads):
    """There mirilla_kit.py is a script; the same unit and the same command start it after a rollback."""
    script = b"print('usage: the old script')\n"
    old = Payload("20170101T000000-01234567", "face", dict(payloads[0].files, **{"mirilla_kit.py": script}))
    install.install(link, old)
    install.install(link, payloads[1])
    unit = service.unit_text(["--help"]).replace("@HOME@", str(kit.home))
    command = re.search("^ExecStart=/usr/bin/(.*)$", unit, re.M)[1]

    def start():
        return subprocess.run(["sh", "-c", command], env=kit.variables, capture_output=True, text=True).stdout

    assert "usage: mirilla_kit.py" in start()
    install.rollback(link)
    assert "usage: the old script" in start()


def test_a_damaged_version_is_not_rolled_back_to(link, kit, payloads):
    install.install(link, payloads[0])
    install.install(link, payloads[1])
    (kit.current.resolve().parent / payloads[0].name / "mirilla_kit.py").write_text("")
    with pytest.raises(BoardError, match="damaged"):
        install.rollback(link)
    assert kit.current.resolve().name == payloads[1].name


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.9999])
def test_an_interrupted_copy_leaves_the_current_version(link, kit, payloads, share):
    install.install(link, payloads[0])
    archive = install.archive(payloads[1]).rstrip(b"\0")  # without the padding at its end
    script = install.install_script(payloads[1], fetch='tar -xf - -C "$new"')
    result = link.run(script, stdin=archive[: int(len(archive) * share)])
    with pytest.raises(BoardError, match="The current version is unchanged"):
        install._explain(link, result)
    assert kit.versions == [payloads[0].name]
    assert is_whole(kit.current)


@pytest.mark.parametrize("after", ["mkdir", "tar", "sha256sum", "mv", "ln"])
def test_power_cut_at_each_step(link, kit, payloads, after):
    """The whole shell is killed right after a step; `current` leads to a whole version, and the next goes well."""
    install.install(link, payloads[0])
    real = shutil.which(after)
    kit.program(after, f'#!/bin/sh\n{real} "$@"\nkill -9 $PPID\n')
    link.run(install.install_script(payloads[1], fetch='tar -xf - -C "$new"'), stdin=install.archive(payloads[1]))
    (kit.folder / "bin" / after).unlink()
    assert is_whole(kit.current)
    assert kit.current.resolve().name == payloads[0].name
    install.install(link, payloads[2])
    assert kit.current.resolve().name == payloads[2].name
    assert not [name for name in kit.versions if name.startswith(".incoming")]
    assert kit.versions == [payloads[0].name, payloads[2].name]


def test_a_wrong_hash(link, kit, payloads):
    install.install(link, payloads[0])
    kit.program("tar", '#!/bin/sh\n/bin/tar "$@" && printf x >>"$4/face.binaryproto"\n')
    with pytest.raises(BoardError, match=r"SHA-256 of the copied files differs.*unchanged"):
        install.install(link, payloads[1])
    assert kit.versions == [payloads[0].name]


def test_a_full_disk(link, kit, payloads):
    kit.program("tar", '#!/bin/sh\necho "tar: x: Cannot write: No space left on device" >&2; exit 2\n')
    with pytest.raises(BoardError, match="no space left") as raised:
        install.install(link, payloads[0])
    assert "du -xh" in raised.value.remedy
    assert kit.versions == []


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is missing here")
def test_two_deployments_at_once(link, kit, payloads):
    install.install(link, payloads[0])
    holder = subprocess.Popen(
        ["flock", kit.home / "mirilla/.lock", "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(BoardError, match="another deployment"):
        install.install(link, payloads[1])
    holder.communicate(b"\n")
    assert install.install(link, payloads[1])


def test_removal_keeps_other_files(link, kit, payloads):
    install.install(link, payloads[0])
    (kit.home / "mirilla/snapshots").mkdir()
    assert install.remove(link) == "snapshots"
    assert os.listdir(kit.home / "mirilla") == ["snapshots"]
    (kit.home / "mirilla/snapshots").rmdir()
    install.install(link, payloads[0])
    assert install.remove(link) == ""
    assert os.listdir(kit.home) == []
    with pytest.raises(BoardError, match="Mirilla is not installed"):
        install.remove(link)
