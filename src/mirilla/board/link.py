"""A line to a kit: shell scripts and files over the system's OpenSSH.

Everything is left to `ssh`: the user's config, agent, known hosts and keys. It runs in batch mode, so it
never asks for a password, and none is handled here. Whatever runs scripts and copies files as `Link` says
can stand in for it.
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
from typing import Protocol

from mirilla.errors import BoardError, UsageError

CONNECT_S = 15
FAILED = 255  # ssh's own exit status; our scripts never end with it


@dataclass(frozen=True)
class Result:
    """What a script left: exit status, standard output, standard error."""

    code: int
    out: str
    err: str


class Link(Protocol):
    """Runs POSIX shell scripts on a kit, as the user that was logged in."""

    @property
    def target(self) -> str: ...

    def run(self, script: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        """Run a script to its end; BoardError when the kit cannot be reached or does not answer in time."""
        ...

    def follow(self, script: str) -> int:
        """Run a script with its output shown here; its standard input closes when this program ends."""
        ...

    def copy(self, folder: str, remote: str) -> None:
        """Copy a folder with all in it to `remote`, relative to the home folder, by scp alone."""
        ...


@dataclass(frozen=True)
class SshLink:
    """A kit behind `ssh`.

    target: what ssh takes: [user@]host, or a Host of the user's config.
    options: further options of ssh and scp, such as ("-p", "2222") or ("-F", "file").
    """

    target: str
    options: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.target or self.target.startswith("-") or re.search(r"[\s\0]", self.target):
            raise UsageError(f"'{self.target}' is no host.", "Give it as ssh takes it: pi@raspberrypi.local")

    def run(self, script: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        # ssh may leave a connection of the user's own (ControlPersist) behind that holds standard error
        # open, so that goes to a file: a pipe would never end.
        with tempfile.TemporaryFile() as errors:
            with self._started(script, subprocess.PIPE, subprocess.PIPE, errors) as process:
                try:
                    out, _ = process.communicate(stdin, timeout=timeout_s)
                except subprocess.TimeoutExpired:
                    raise BoardError(
                        f"{self.target}: no answer within {timeout_s:.0f} seconds.",
                        "Is the kit still alive (its light, ping)? Switch it off and on, and try again.",
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

    def copy(self, folder: str, remote: str) -> None:
        host = self.target
        if host.startswith("ssh://"):  # scp has another form for it
            host = "scp://" + host.removeprefix("ssh://").rstrip("/") + "/" + remote
        else:
            host = f"{host}:{remote}"
        command = [_program("scp"), "-r", "-q", *_batch(), *_for_scp(self.options), "--", folder, host]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise explain(self.target, done.stderr.decode(errors="replace"))

    @contextlib.contextmanager
    def _started(self, script: str, stdin, stdout, stderr) -> Iterator[subprocess.Popen]:
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
    """What ssh's own messages mean, with a remedy for each."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if not line.startswith(("debug", "@"))), "ssh failed")
    for pattern, what, remedy in _MEANINGS:
        if re.search(pattern, errors, re.I):
            return BoardError(f"{target}: {what} (ssh: {said})", remedy.replace("TARGET", target))
    return BoardError(f"{target}: ssh failed ({said}).", f"Try it by hand: ssh {target}")


_MEANINGS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* has changed",
        "the host key is not the one that is known for this host.",
        "After a newly flashed card that is expected: ssh-keygen -R HOST, then ssh TARGET once and compare the "
        "fingerprint. Otherwise another machine answers under this name: do not go on.",
    ),
    (
        r"Host key verification failed|No \S+ host key is known",
        "the host key is not known yet.",
        "Connect once by hand, compare the fingerprint and say yes: ssh TARGET",
    ),
    (
        r"no matching (host key type|key exchange|cipher|mac)",
        "this machine's ssh and the kit's share no algorithm.",
        "The kit's system is very old: flash a newer image, or allow the algorithm that ssh names for this host "
        "in ~/.ssh/config.",
    ),
    (
        r"UNPROTECTED PRIVATE KEY|bad permissions",
        "ssh does not use a key that others can read.",
        "chmod 600 the key's file.",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication",
        "the kit does not accept any of your keys.",
        "Put your key there, which asks for the kit's password once: ssh-copy-id TARGET (ssh-keygen makes a "
        "key if you have none). A key with a passphrase must be in the agent: ssh-add",
    ),
    (
        r"Could not resolve|Name or service not known|nodename nor servname",
        "no host of this name is found.",
        "Check the name; NAME.local needs mDNS on this machine. The kit's address is in your router's list.",
    ),
    (
        r"Connection refused",
        "the machine is there, but no SSH server listens.",
        "Switch SSH on at the kit (sudo raspi-config, Interfacing Options, SSH, or an empty file named 'ssh' on "
        "the card's boot partition), and check the port.",
    ),
    (
        r"timed out|No route to host|Network is unreachable|Host is down|not responding",
        "it does not answer.",
        "Is the kit switched on (it starts for a minute or two), and in the same network? Try: ping HOST",
    ),
    (
        r"Connection (closed|reset|to .* closed)|Broken pipe|lost connection|kex_exchange|Write failed|disconnect",
        "the connection was cut.",
        "Nothing is half-installed: what ran before still runs. Try again; nearer to the access point if it "
        "happens often.",
    ),
    (
        r"No space left|Disk quota|write.*failed|Failure$",
        "the files could not be written there.",
        "Free some space on the kit: df -h shows it.",
    ),
    (
        r"Bad configuration option|command-line.*: |Can't open user config",
        "ssh does not take the options or its config.",
        "Mend --ssh-option, -F or ~/.ssh/config.",
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
    """ssh's options as scp takes them: the port is -P there."""
    return ["-P" + word[2:] if word.startswith("-p") else word for word in options]
