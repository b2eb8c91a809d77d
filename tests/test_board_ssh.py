"""`mirilla deploy` through a real OpenSSH server on loopback that leads into a folder made to look like a kit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers_board import Kit, is_whole, small_model, sshd, sshd_program
from mirilla.board import install
from mirilla.board.link import SshLink, explain
from mirilla.board.payload import read_payload
from mirilla.cli.main import main
from mirilla.errors import BoardError

needs_server = pytest.mark.skipif(
    os.name == "nt" or sshd_program() is None or shutil.which("ssh") is None,
    reason="needs OpenSSH's server (Debian: apt-get install openssh-server)",
)


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path / "kit")


@pytest.fixture
def server(kit, tmp_path):
    with sshd(kit, tmp_path / "ssh") as running:
        yield running


@pytest.fixture
def models(tmp_path):
    return [str(small_model(tmp_path / f"m{i}", threshold=0.3 + i / 10)) for i in range(2)]


def deploy(server, *words):
    return main(["deploy", *words, "-F", str(server.config)])


@needs_server
def test_from_first_copy_to_removal(server, kit, models, capfd):
    assert deploy(server, "--check", server.target) == 0
    assert "firmware   version 1.2" in capfd.readouterr().out
    assert deploy(server, models[0], server.target) == 0
    first = kit.current.resolve()
    assert is_whole(first)
    assert deploy(server, models[1], server.target, "--service", "--options=--web 8080") == 0
    second = kit.current.resolve()
    assert second != first
    assert "mirilla.service is active" in capfd.readouterr().out
    assert deploy(server, "--rollback", server.target) == 0
    assert kit.current.resolve() == first
    assert deploy(server, "--remove", server.target) == 0
    assert os.listdir(kit.home) == []
    assert not list(kit.root.glob("etc/systemd/system/*"))


@needs_server
def test_running_shows_what_the_program_prints(server, kit, models, capfd):
    assert deploy(server, models[0], server.target, "--run", "--options=--help") == 0
    assert "usage: mirilla_kit.py" in capfd.readouterr().out


@needs_server
def test_the_program_ends_with_the_connection(server, kit, models):
    """The client is killed; the program on the kit, which prints nothing, gets SIGTERM."""
    assert deploy(server, models[0], server.target) == 0
    mark = kit.state / "ended"
    (kit.current / "mirilla_kit.py").write_text(
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(mark)!r}, 'w').close(), sys.exit(0)))\n"
        "print('running', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = f"from mirilla.board import link, service; service.run(link.SshLink({server.target!r}, ('-F', "
    code += f"{str(server.config)!r})))"
    client = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    )
    assert client.stdout.readline() == b"running\n"
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    client.stdout.close()
    wait_for(mark.exists)


@needs_server
def test_files_only_by_scp(server, kit, models):
    assert deploy(server, models[0], server.target, "--files-only") == 0
    assert len(kit.versions) == 1
    assert is_whole(kit.home / "mirilla/versions" / kit.versions[0])


@needs_server
def test_two_files_into_a_folder_by_scp(server, kit, models):
    (kit.home / "models").mkdir()
    assert deploy(server, models[0], server.target, "--files-only", "--to", f"{kit.home}/models/") == 0
    assert len(list((kit.home / "models").iterdir())) == 2


@needs_server
def test_a_wrong_key(server, kit, capsys, tmp_path):
    config = tmp_path / "other-config"
    config.write_text(server.config.read_text().replace("/mine", "/other"))
    assert main(["deploy", "--check", server.target, "-F", str(config)]) == 1
    error = capsys.readouterr().err
    assert "does not accept any of your keys" in error
    assert "ssh-copy-id" in error


@needs_server
def test_an_unknown_and_a_changed_host_key(kit, tmp_path, capsys):
    with sshd(kit, tmp_path / "ssh", known=False) as server:
        assert deploy(server, "--check", server.target) == 1
        assert "host key is not known yet" in capsys.readouterr().err
        assert (tmp_path / "ssh/known").read_text() == ""  # nothing was trusted on the way
        other = " ".join((tmp_path / "ssh/other.pub").read_text().split()[:2])
        (tmp_path / "ssh/known").write_text(f"[127.0.0.1]:{server.port} {other}\n")
        assert deploy(server, "--check", server.target) == 1
        assert "differs from the known one" in capsys.readouterr().err


@needs_server
def test_a_port_without_a_server(server, capsys):
    assert deploy(server, "--check", server.target, "-p", "1") == 1
    error = capsys.readouterr().err
    assert "no SSH server is listening" in error
    assert "raspi-config" in error


@needs_server
def test_a_host_that_does_not_exist(server, capsys):
    assert deploy(server, "--check", "pi@no-such-kit.invalid") == 1
    assert "the host name is unknown" in capsys.readouterr().err


@needs_server
def test_a_bad_option(server, capsys):
    assert deploy(server, "--check", server.target, "--ssh-option", "NoSuchOption=1") == 1
    assert "ssh does not accept the options" in capsys.readouterr().err


@needs_server
def test_no_space_on_a_small_disk(server, kit, models, tmp_path, capsys):
    kit.home.joinpath("mirilla").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", kit.home / "mirilla"], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here; the next test limits the file size instead")
    try:
        assert deploy(server, models[0], server.target) == 1
        error = capsys.readouterr().err
        assert "no space left" in error
        assert "Remedy: Free some" in error
        assert os.listdir(kit.home / "mirilla/versions") == []
    finally:
        subprocess.run(["umount", kit.home / "mirilla"], check=True)
    assert deploy(server, models[0], server.target) == 0


@needs_server
def test_no_space_by_a_limit_on_files(kit, models, tmp_path, capsys):
    with sshd(kit, tmp_path / "ssh") as server:
        assert deploy(server, models[0], server.target) == 0
    old = kit.current.resolve()
    with sshd(kit, tmp_path / "ssh", file_limit=30_000) as server:
        assert deploy(server, models[1], server.target) == 1
    assert "no space left" in capsys.readouterr().err
    assert kit.current.resolve() == old
    assert kit.versions == [old.name]


@needs_server
def test_too_little_space_ends_the_deployment_before_copying(server, kit, models, capsys):
    kit.program(
        "df",
        "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\n"
        "echo '/dev/root 7000000 6999000 1000 100% /'\n",
    )
    assert deploy(server, models[0], server.target) == 1
    assert "1.0 MB free; " in capsys.readouterr().err
    assert os.listdir(kit.home) == []


@needs_server
def test_a_wrong_hash(server, kit, models, capsys):
    assert deploy(server, models[0], server.target) == 0
    old = kit.current.resolve()
    kit.program("tar", '#!/bin/sh\n/bin/tar "$@" && printf x >>"$4/face.binaryproto"\n')
    assert deploy(server, models[1], server.target) == 1
    assert "SHA-256 of the copied files differs" in capsys.readouterr().err
    assert kit.current.resolve() == old
    assert kit.versions == [old.name]


@needs_server
@pytest.mark.parametrize("cut", ["client", "server"])
def test_a_connection_lost_during_the_copy(server, kit, models, tmp_path, cut):
    """Half the archive has arrived and been unpacked there when one side is killed."""
    assert deploy(server, models[0], server.target) == 0
    old = kit.current.resolve()
    payload = read_payload(models[1])
    archive = install.archive(payload)
    script = install.install_script(payload, fetch='tar -xf - -C "$new"')
    # A tar that writes its process ids down, so that the right server process can be killed.
    kit.program("tar", '#!/bin/sh\necho $PPID >"$STATE/shell"\nexec /bin/tar "$@"\n')
    client = subprocess.Popen(
        ["ssh", "-F", server.config, "-o", "BatchMode=yes", server.target, "exec sh -s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    # The script by standard input too would be read by tar: it goes in by a file instead.
    (kit.home / "script").write_text(script)
    client.stdin.write(b'exec sh "$HOME/script"\n')
    client.stdin.flush()
    wait_for((kit.state / "shell").exists)
    client.stdin.write(archive[: len(archive) // 2])
    client.stdin.flush()
    incoming = kit.home / "mirilla/versions" / f".incoming-{payload.name}"
    wait_for(lambda: (incoming / "face.binaryproto").exists())
    if cut == "client":
        client.kill()
    else:
        os.kill(parent(int((kit.state / "shell").read_text())), signal.SIGKILL)
    client.stderr.close()
    client.wait(20)
    wait_for(lambda: not incoming.exists())
    assert kit.current.resolve() == old
    assert is_whole(old)
    (kit.folder / "bin/tar").unlink()
    (kit.home / "script").unlink()
    assert deploy(server, models[1], server.target) == 0
    assert kit.versions == sorted([old.name, kit.current.resolve().name])


@needs_server
def test_a_kit_that_stops_during_the_copy(server, kit, models, capsys):
    """The server's process is killed while the copy runs."""
    kit.program("tar", '#!/bin/sh\necho $PPID >"$STATE/shell"\nsleep 30\n')

    def kill():
        wait_for((kit.state / "shell").exists)
        time.sleep(0.2)
        os.kill(parent(int((kit.state / "shell").read_text())), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert deploy(server, models[0], server.target) == 1
    thread.join()
    error = capsys.readouterr().err
    assert "connection was lost" in error
    assert "The current version is unchanged" in error
    assert not kit.current.exists()


@needs_server
def test_a_timeout(server, kit):
    link = SshLink(server.target, ("-F", str(server.config)))
    with pytest.raises(BoardError, match="no answer within 1 second"):
        link.run("sleep 30", timeout_s=1)
    assert link.run("cat; echo err >&2; exit 7", stdin=b"a\0b").code == 7


def test_ssh_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match="'ssh' is not installed"):
        SshLink("pi@kit").run("true")


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("ssh: connect to host kit port 22: No route to host", "does not answer"),
        ("ssh: connect to host kit port 22: Connection timed out", "does not answer"),
        ("pi@kit: Permission denied (publickey,password).", "does not accept"),
        (
            "Unable to negotiate with 10.0.0.2 port 22: no matching host key type found. Their offer: ssh-dss",
            "algorithm",
        ),
        (
            "@ WARNING: UNPROTECTED PRIVATE KEY FILE! @\nLoad key: bad permissions\n"
            "pi@kit: Permission denied (publickey).",
            "others can read",
        ),
        ("client_loop: send disconnect: Broken pipe", "was lost"),
        ("Timeout, server kit not responding.", "does not answer"),
        ("something new", r"ssh failed \(something new\)"),
        ("", r"ssh failed \(ssh failed\)"),
    ],
)
def test_messages_of_ssh(message, what):
    error = explain("pi@kit", message)
    assert re.search(what, error.what)
    assert error.remedy


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def parent(pid: int) -> int:
    """The nearest sshd above a process."""
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists():
            pytest.skip("needs /proc")
        pid = int(stat.read_text().rpartition(")")[2].split()[1])
        if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
            return pid
    raise AssertionError("no sshd above it")
