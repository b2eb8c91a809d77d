"""Atomic writes: nothing half-written stays, and the leftovers of killed processes go."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from mirilla import files
from mirilla.errors import MirillaError

pytestmark = pytest.mark.skipif(files.fcntl is None, reason="Windows has no such locks")

_WRITER = """
import sys, time
from mirilla.files import writing
with writing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def _start_writing(path):
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def _age(folder):
    (temporary,) = folder.glob(".*.part")
    os.utime(temporary, (time.time() - 60, time.time() - 60))
    return temporary


def test_the_file_of_a_killed_process_is_removed_by_the_next(tmp_path):
    process = _start_writing(tmp_path / "a.bin")
    leftover = _age(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / ".notes.part").write_text("mine")
    files.write_bytes(tmp_path / "b.bin", b"whole")
    assert not leftover.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.part", "b.bin"]


def test_a_file_that_is_being_written_stays(tmp_path):
    process = _start_writing(tmp_path / "a.bin")
    temporary = _age(tmp_path)
    files.write_bytes(tmp_path / "b.bin", b"whole")
    assert temporary.exists()
    process.kill()
    process.wait()


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a.bin", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_reported_of_the_destination():
    with pytest.raises(MirillaError, match=r"^out/b\.jpg: No space left") as caught, files.explaining("a.jpg"):
        raise OSError(errno.ENOSPC, "no space", "in/a.jpg", None, "out/b.jpg")
    assert caught.value.remedy
