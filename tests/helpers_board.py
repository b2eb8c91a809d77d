"""A simulated Vision Kit in a folder, and two links to it: a shell of this machine, and an sshd on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers_bonnet_run import pixels_model
from mirilla.board.link import Result
from mirilla.bonnet import format as binary
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.spec import ModelSpec

# The kit's programs, whose state is in files. The file `wants` sets the state that a start leads to.
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>"$STATE/calls"
where=system
case $1 in --user) where=user; shift; [ -f "$STATE/user-systemd" ] || exit 1 ;; esac
verb=$1; shift
now=no; unit=
for word; do case $word in --now) now=yes ;; -*) ;; *) unit=$word ;; esac; done
case $verb in
  is-active) cat "$STATE/$unit.active" 2>/dev/null || { echo inactive; exit 3; } ;;
  is-enabled) if [ -f "$STATE/$unit.enabled" ]; then echo enabled; else echo disabled; exit 1; fi ;;
  enable) : >"$STATE/$unit.enabled"; if [ $now = yes ]; then echo active >"$STATE/$unit.active"; fi ;;
  disable) rm -f "$STATE/$unit.enabled"; if [ $now = yes ]; then rm -f "$STATE/$unit.active"; fi ;;
  stop) rm -f "$STATE/$unit.active" ;;
  restart|start) cat "$STATE/wants" 2>/dev/null >"$STATE/$unit.active" || echo active >"$STATE/$unit.active" ;;
esac
exit 0
"""
SUDO = """#!/bin/sh
[ -f "$STATE/no-sudo" ] && { echo "sudo: a password is required" >&2; exit 1; }
shift
exec "$@"
"""
VCGENCMD = """#!/bin/sh
case $1 in get_camera) cat "$STATE/camera" ;; get_throttled) echo throttled=0x0 ;; esac
"""
AIY = """
class InferenceEngine:
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def get_firmware_info(self):
        return (1, 2)
"""


@dataclass
class Kit:
    """The kit's folders: home, root (MIRILLA_KIT_ROOT), bin (first in PATH), state."""

    folder: Path
    aiy: bool = True
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("home", "root/dev", "root/proc/device-tree", "root/etc/systemd/system", "bin", "state", "aiy"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.root / "dev/vision_spicomm").touch()
        (self.root / "proc/device-tree/model").write_bytes(b"Raspberry Pi Zero W Rev 1.1\0")
        (self.root / "proc/modules").write_text("aiy_vision 45056 0 - Live 0x00000000\n")
        (self.root / "etc/os-release").write_text('PRETTY_NAME="Raspbian GNU/Linux 9 (stretch)"\n')
        (self.root / "etc/machine").write_text("armv6l\n")
        (self.state / "camera").write_text("supported=1 detected=1\n")
        path = str(self.folder / "aiy") if self.aiy else ""
        if self.aiy:
            (self.folder / "aiy/aiy/vision").mkdir(parents=True, exist_ok=True)
            for name in ("aiy/aiy/__init__.py", "aiy/aiy/vision/__init__.py", "aiy/picamera.py"):
                (self.folder / name).touch()
            (self.folder / "aiy/aiy/vision/inference.py").write_text(AIY)
        self.program("python3", f'#!/bin/sh\nPYTHONPATH="{path}" exec "{self.python}" "$@"\n')
        self.program("systemctl", SYSTEMCTL)
        self.program("sudo", SUDO)
        self.program("vcgencmd", VCGENCMD)
        self.program("journalctl", '#!/bin/sh\necho "journalctl $*" >>"$STATE/calls"\necho "a line of the log"\n')
        self.program("loginctl", '#!/bin/sh\necho "loginctl $*" >>"$STATE/calls"\n')
        self.program("dpkg-query", "#!/bin/sh\nexit 1\n")
        self.program("sync", "#!/bin/sh\nexit 0\n")  # flushing a test machine's disks would take long

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def current(self) -> Path:
        return self.home / "mirilla/current"

    @property
    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.home / "mirilla/versions").iterdir())

    @property
    def variables(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "MIRILLA_KIT_ROOT": str(self.root),
            "MIRILLA_SETTLE_S": "0",
            "MIRILLA_START_S": "1",
            "STATE": str(self.state),
            **self.environment,
        }

    def program(self, name: str, text: str) -> None:
        """Put a program into the kit's PATH."""
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def calls(self) -> str:
        path = self.state / "calls"
        return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class ShellLink:
    """A kit without a network: the scripts run in a shell of this machine."""

    kit: Kit
    target: str = "pi@kit"

    def run(self, script: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        done = subprocess.run(
            ["sh", "-c", script], input=stdin, capture_output=True, env=self.kit.variables, timeout=timeout_s
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def follow(self, script: str) -> int:
        with subprocess.Popen(["sh", "-c", script], env=self.kit.variables, stdin=subprocess.PIPE) as process:
            return process.wait()

    def copy(self, sources: Sequence[str], remote: str) -> None:
        for source in map(Path, sources):
            target = self.kit.home / remote / source.name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)


def small_model(folder: Path, name: str = "face", *, threshold: float = 0.5) -> Path:
    """A compiled model of a few bytes with its model.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.binaryproto"
    binary.write(path, pixels_model())
    card = cards.ModelCard(ModelSpec(), LabelMap.from_names(["face"]), name=name, target="bonnet", threshold=threshold)
    cards.save(card, path)
    return path


@dataclass(frozen=True)
class Sshd:
    """A running sshd, and the configuration with which a client reaches it."""

    port: int
    config: Path
    kit: Kit
    user: str

    @property
    def target(self) -> str:
        return f"{self.user}@127.0.0.1"


@contextlib.contextmanager
def sshd(kit: Kit, folder: Path, *, known: bool = True, file_limit: int | None = None) -> Iterator[Sshd]:
    """An SSH server on loopback that leads into the kit, with its own keys and configuration.

    Args:
        known: put the host key into the client's known hosts.
        file_limit: the largest file, in bytes, that a process of this server can write.
    """
    import getpass
    import resource

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "mine", "other"):
        if not (folder / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "authorized").write_text((folder / "mine.pub").read_text())
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n" if known else "")
    variables = " ".join(f'"{name}={value}"' for name, value in kit.variables.items())
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"Subsystem sftp internal-sftp -d {kit.home}\n"
        f"SetEnv {variables}\n"
    )
    config = folder / "config"
    config.write_text(
        f"Host *\n  Port {port}\n  IdentityFile {folder}/mine\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile /dev/null\n"
    )
    limits = None
    if file_limit is not None:

        def limits() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    with _separation_folder(), open(folder / "sshd.log", "wb") as log:
        server = subprocess.Popen(
            [sshd_program(), "-D", "-e", "-f", str(folder / "sshd_config")],
            stderr=log,
            preexec_fn=limits,
            start_new_session=True,
        )
        try:
            _wait_for(port, server, folder / "sshd.log")
            yield Sshd(port, config, kit, getpass.getuser())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(10)


def sshd_program() -> str | None:
    """The path of sshd, which must be started by its full path; None if it is not installed."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def _separation_folder() -> Iterator[None]:
    """As root, sshd needs an empty folder, which the system creates at its start."""
    folder = Path("/run/sshd")
    made = os.geteuid() == 0 and not folder.exists()
    if made:
        folder.mkdir(mode=0o755)
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(100):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"sshd did not start: {log.read_text()}")


def is_whole(version: Path) -> bool:
    """Whether a version's files match its hashes."""
    done = subprocess.run(["sha256sum", "-c", "--status", "SHA256SUMS"], cwd=version, capture_output=True)
    json.loads((version / "model.json").read_text())
    return done.returncode == 0 and stat.S_ISREG((version / "mirilla_kit.py").stat().st_mode)
