"""The connection to a kit: shell scripts and files over the system's OpenSSH.

`ssh` uses the user's own configuration, agent, known hosts and keys. It runs in batch mode, so it never asks for a
password, and this module handles none. Tests replace it with another implementation of `Link`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from mirilla.errors import BoardError, UsageError

CONNECT_S = 15
FAILED = 255  # the exit status of ssh's own errors; our scripts never exit with it


@dataclass(frozen=True)
class Result:
    """A finished script: exit status, standard output, standard error."""

    code: int
    out: str
    err: str


class Link(Protocol):
    """Runs POSIX shell scripts on a kit, as the user that logged in."""

    @property
    def target(self) -> str: ...

    def run(self, script: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        """Run a script.

        Raises:
            BoardError: the kit cannot be reached, or the script does not finish in time.
        """
        ...

    def follow(self, script: str) -> int:
        """Run a script and show its output. Its standard input is closed when this program ends."""
        ...

    def copy(self, sources: Sequence[str], remote: str) -> None:
        """Copy files and folders into the folder `remote`, relative to the home folder, using scp only."""
        ...


@dataclass(frozen=True)
class SshLink:
    """A kit that is reached with `ssh`.

    target: a destination of ssh: [user@]host, or a Host of the user's configuration.
    options: more options of ssh and scp, such as ("-p", "2222") or ("-F", "file").
    """

    target: str
    options: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.target or self.target.startswith("-") or re.search(r"[\s\0]", self.target):
            raise UsageError(f"'{self.target}' is not a host.", "Give it as for ssh: pi@raspberrypi.local")

    def run(self, script: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        # With ControlPersist, ssh leaves a process behind that keeps standard error open: a pipe would never end, so
        # standard error goes to a file.
        with tempfile.TemporaryFile() as errors:
            with self._started(script, subprocess.PIPE, subprocess.PIPE, errors) as process:
                try:
                    out, _ = process.communicate(stdin, timeout=timeout_s)
                except subprocess.TimeoutExpired:
                    raise BoardError(
                        f"{self.target}: no answer within {timeout_s:.0f} seconds.",
                        "Check that the kit still runs (its light, ping). Switch it off and on, and try again.",
                    ) from None
            errors.seek(0)
            err = errors.read().decode(errors="replace")
        if process.returncode == FAILED:
            raise explain(self.target, err)
        return Result(process.returncode, out.decode(errors="replace"), err)

    def follow(self, script: str) -> int:
        with self._started(script, subprocess.PIPE, None, None) as process:
            code = process.wait()
        if code == FAILED:
            raise explain(self.target, "Connection closed.")
        return code

    def copy(self, sources: Sequence[str], remote: str) -> None:
        host = self.target
        if host.startswith("ssh://"):  # scp has its own scheme
            host = "scp://" + host.removeprefix("ssh://").rstrip("/") + "/" + remote
        else:
            host = f"{host}:{remote}"
        command = [_program("scp"), "-r", "-q", *_batch(), *_for_scp(self.options), "--", *sources, host]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise explain(self.target, done.stderr.decode(errors="replace"))

    @contextlib.contextmanager
    def _started(
        self, script: str, stdin: int, stdout: int | None, stderr: IO[bytes] | None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """ssh running a script; killed if the block is left before it has finished."""
        command = [_program("ssh"), "-T", *_batch(), *self.options, "--", self.target]
        process = subprocess.Popen(
            [*command, f"exec sh -c {shlex.quote(script)}"], stdin=stdin, stdout=stdout, stderr=stderr
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            process.wait()


def explain(target: str, errors: str) -> BoardError:
    """The error for ssh's messages, with a remedy."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    message = next((line for line in reversed(lines) if not line.startswith(("debug", "@"))), "ssh failed")
    for pattern, what, remedy in _MEANINGS:
        if re.search(pattern, errors, re.I):
            return BoardError(f"{target}: {what} (ssh: {message})", remedy.replace("TARGET", target))
    return BoardError(f"{target}: ssh failed ({message}).", f"Try it by hand: ssh {target}")


# Pattern in ssh's messages, meaning, remedy.
_MEANINGS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* has changed",
        "the host key differs from the known one.",
        "After flashing a card this is expected: ssh-keygen -R HOST, then ssh TARGET once and compare the "
        "fingerprint. Otherwise another machine may be answering under this name: do not continue.",
    ),
    (
        r"Host key verification failed|No \S+ host key is known",
        "the host key is not known yet.",
        "Connect once by hand, compare the fingerprint and answer yes: ssh TARGET",
    ),
    (
        r"no matching (host key type|key exchange|cipher|mac)",
        "this machine's ssh and the kit's have no algorithm in common.",
        "The kit's system is very old: flash a newer image, or allow the algorithm in ssh's message for this host in "
        "~/.ssh/config.",
    ),
    (
        r"UNPROTECTED PRIVATE KEY|bad permissions",
        "ssh does not use a key file that others can read.",
        "chmod 600 the key file.",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication",
        "the kit does not accept any of your keys.",
        "Install your key, which asks for the kit's password once: ssh-copy-id TARGET (ssh-keygen creates a key). A "
        "key with a passphrase must be in the agent: ssh-add",
    ),
    (
        r"Could not resolve|Name or service not known|nodename nor servname",
        "the host name is unknown.",
        "Check the name. NAME.local needs mDNS on this machine; your router lists the kit's address.",
    ),
    (
        r"Connection refused",
        "the connection was refused: no SSH server is listening.",
        "Enable SSH on the kit (sudo raspi-config, Interfacing Options, SSH, or an empty file named 'ssh' on the "
        "card's boot partition), and check the port.",
    ),
    (
        r"timed out|No route to host|Network is unreachable|Host is down|not responding",
        "it does not answer.",
        "Check that the kit is switched on (it takes a minute or two to start) and in the same network: ping HOST",
    ),
    (
        r"Connection (closed|reset|to .* closed)|Broken pipe|lost connection|kex_exchange|Write failed|disconnect",
        "the connection was lost.",
        "The current version is unchanged. Try again; if it happens often, move the kit closer to the access point.",
    ),
    (
        r"No space left|Disk quota|write.*failed|Failure$",
        "the files cannot be written.",
        "Free some space on the kit: df -h shows how much there is.",
    ),
    (
        r"Bad configuration option|command-line.*: |Can't open user config",
        "ssh does not accept the options or its configuration.",
        "Fix --ssh-option, -F or ~/.ssh/config.",
    ),
)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BoardError(
            f"The program '{name}' is not installed on this machine.",
            "Install OpenSSH's client (Debian: sudo apt-get install openssh-client).",
        )
    return found


def _batch() -> tuple[str, ...]:
    values = ("BatchMode=yes", f"ConnectTimeout={CONNECT_S}", "ServerAliveInterval=10", "ServerAliveCountMax=3")
    return tuple(word for value in values for word in ("-o", value))


def _for_scp(options: Sequence[str]) -> list[str]:
    """ssh's options for scp, where the port is -P."""
    return ["-P" + word[2:] if word.startswith("-p") else word for word in options]
