"""The systemd unit that starts the program at power-on, and running the program by hand.

It is a system unit if sudo works without a password (as on the kit's image), otherwise a user unit. The kit's own demo
uses the camera; it is disabled only if the caller requests it, and `remove` enables it again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mirilla.board.checks import JOY
from mirilla.board.link import Link, Result
from mirilla.board.payload import PROGRAM
from mirilla.errors import BoardError, UsageError

UNIT = "mirilla.service"
WATCHDOG_S = 120  # systemd restarts the program after this time without a watchdog notification
START_S = 90  # to wait for the start, which takes about twenty seconds on a Pi Zero


@dataclass(frozen=True)
class State:
    """A service after a change: its state in systemd (active, failed, ...) and its last log lines."""

    state: str
    log: tuple[str, ...]


def unit_text(options: Sequence[str] = (), *, user_unit: bool = False) -> str:
    """The unit's file. @HOME@ and @USER@ are replaced on the kit.

    Args:
        options: options of the program.
        user_unit: a unit of the user's own systemd, which has no User=.

    Raises:
        UsageError: a unit cannot contain an option.
    """
    words = ["--dir", "@HOME@/mirilla/current", *map(_quoted, options)]
    lines = [
        "[Unit]",
        "Description=Mirilla object detection",
        "Wants=dev-vision_spicomm.device",
        "After=dev-vision_spicomm.device network.target",
        "" if user_unit else f"Conflicts={JOY}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"WatchdogSec={WATCHDOG_S}",
        "TimeoutStartSec=180",
        "TimeoutStopSec=20",
        "" if user_unit else "User=@USER@",
        "WorkingDirectory=@HOME@/mirilla",
        "Environment=PYTHONUNBUFFERED=1 LANG=C.UTF-8",
        f"ExecStart=/usr/bin/python3 @HOME@/mirilla/current/{PROGRAM} {' '.join(words)}",
        "Restart=always",
        "RestartSec=5",
        f"SyslogIdentifier={UNIT.removesuffix('.service')}",
        "",
        "[Install]",
        f"WantedBy={'default' if user_unit else 'multi-user'}.target",
    ]
    kept = [line for i, line in enumerate(lines) if line or lines[i + 1].startswith("[")]
    return "\n".join(kept) + "\n"


def parse_options(text: str) -> tuple[str, ...]:
    """The program's options from one string, split as in a shell."""
    try:
        options = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--options: {error}.", "Close every quote.") from None
    for option in options:
        _quoted(option)
    names = [option.partition("=")[0] for option in options]
    if any(len(name) > 2 and "--dir".startswith(name) for name in names):  # abbreviations too
        raise UsageError("--options must not contain --dir: the program always uses the deployed version's folder.")
    return options


def joy_uses_camera(facts: Mapping[str, str]) -> bool:
    """Whether the kit's own demo is running or starts at power-on."""
    return facts.get("joy") == "active" or facts.get("joy_enabled") == "enabled"


def install(link: Link, options: Sequence[str] = (), *, replace_joy: bool) -> State:
    """Install the unit, enable it and start it.

    Args:
        replace_joy: stop and disable the kit's own demo; `remove` undoes it.

    Raises:
        BoardError: there is neither sudo nor a user's systemd, or systemd reports an error.
    """
    return _state(link, link.run(install_script(options, replace_joy=replace_joy), timeout_s=240))


def restart(link: Link) -> State | None:
    """Restart the service with the current version; None if there is no service."""
    result = link.run(restart_script(), timeout_s=240)
    return _state(link, result) if result.out or result.code else None


def remove(link: Link) -> bool:
    """Stop the service, remove its unit, and enable the demo if it was enabled before. False if there was none."""
    result = link.run(remove_script(), timeout_s=120)
    _explain(link, result)
    return "removed" in result.out.split()


def run(link: Link, options: Sequence[str] = ()) -> int:
    """Run the program and show its output until it ends or Ctrl-C; it also ends when the connection is lost."""
    return link.follow(run_script(options))


def follow_log(link: Link) -> int:
    """Show the service's log as it grows, until Ctrl-C."""
    return link.follow(f"{_HEAD}\n{_WATCHED.replace('@COMMAND@', 'log -n 20 -f')}")


def stop_joy(link: Link) -> None:
    """Stop the kit's own demo until the kit is restarted."""
    _explain(link, link.run(f"{_HEAD}\nsudo -n systemctl stop {JOY} || fail sudo", timeout_s=60))


def install_script(options: Sequence[str], *, replace_joy: bool) -> str:
    """The script of `install`; also part of a bundle."""
    return "\n".join(
        [
            _HEAD,
            f"joy={'replace' if replace_joy else 'leave'}",
            f"system_unit={shlex.quote(unit_text(options).rstrip())}",
            f"user_unit={shlex.quote(unit_text(options, user_unit=True).rstrip())}",
            _INSTALL,
            _STATE,
        ]
    )


def restart_script() -> str:
    """The script of `restart`: does and prints nothing if there is no service."""
    return f"{_HEAD}\nif [ $kind = none ]; then exit 0; fi\nctl restart --no-block {UNIT} || fail start\n{_STATE}"


def remove_script() -> str:
    """The script of `remove`."""
    return _REMOVE


def run_script(options: Sequence[str]) -> str:
    """The script of `run`."""
    words = " ".join(map(shlex.quote, options))
    command = f'python3 -u "$HOME/mirilla/current/{PROGRAM}" --dir "$HOME/mirilla/current" {words}'.rstrip()
    return "PYTHONUNBUFFERED=1; export PYTHONUNBUFFERED\n" + _WATCHED.replace("@COMMAND@", command)


# There is no terminal, so the program would not notice that the connection is lost. The script's standard input ends
# then, and the script ends the program.
_WATCHED = r"""
exec 3<&0
@COMMAND@ </dev/null 3<&- &
program=$!
( cat <&3 >/dev/null 2>&1; kill "$program" 2>/dev/null ) >/dev/null 2>&1 &
watcher=$!
code=0
wait "$program" || code=$?
kill "$watcher" 2>/dev/null
exit "$code"
""".strip()

_HEAD = rf"""
set -u
root=${{MIRILLA_KIT_ROOT:-}}
home=$HOME/mirilla
began=$(date +%s)
fail() {{ echo "mirilla: $*" >&2; exit 3; }}
XDG_RUNTIME_DIR=${{XDG_RUNTIME_DIR:-/run/user/$(id -u)}}; export XDG_RUNTIME_DIR
system_file=$root/etc/systemd/system/{UNIT}
user_file=$HOME/.config/systemd/user/{UNIT}
if [ -f "$system_file" ]; then kind=system; elif [ -f "$user_file" ]; then kind=user; else kind=none; fi
ctl() {{ if [ $kind = user ]; then systemctl --user "$@"; else sudo -n systemctl "$@"; fi; }}
log() {{
  if [ $kind = user ]; then exec journalctl --user -u {UNIT} --no-pager -o cat "$@"
  else exec sudo -n journalctl -u {UNIT} --no-pager -o cat "$@"; fi
}}
""".strip()

_INSTALL = rf"""
command -v systemctl >/dev/null 2>&1 || fail systemd
case $HOME$(id -un) in *[!A-Za-z0-9/._-]*) fail name ;; esac
filled() {{ sed "s|@HOME@|$HOME|g; s|@USER@|$(id -un)|g"; }}
if sudo -n true 2>/dev/null; then
  if [ $kind = user ]; then systemctl --user disable --now {UNIT} 2>/dev/null; rm -f "$user_file"; fi
  kind=system
  printf '%s\n' "$system_unit" | filled | sudo -n tee "$system_file.new" >/dev/null || fail write
  sudo -n mv "$system_file.new" "$system_file" || fail write
else
  [ $kind != system ] || fail sudo
  systemctl --user daemon-reload 2>/dev/null || fail sudo
  kind=user
  mkdir -p "${{user_file%/*}}" || fail write
  printf '%s\n' "$user_unit" | filled >"$user_file.new" && mv "$user_file.new" "$user_file" || fail write
  loginctl enable-linger 2>/dev/null || echo "note=starts when you log in, not at power-on"
fi
if [ $joy = replace ]; then
  if [ "$(systemctl is-enabled {JOY} 2>/dev/null)" = enabled ]; then : >"$home/.joy-was-enabled"; fi
  sudo -n systemctl disable --now {JOY} 2>/dev/null || fail joy
fi
ctl daemon-reload || fail start
ctl enable {UNIT} 2>/dev/null || fail start
ctl restart --no-block {UNIT} || fail start
""".strip()

_STATE = rf"""
sleep "${{MIRILLA_SETTLE_S:-2}}"  # until then systemd may still report the old run
tries=${{MIRILLA_START_S:-{START_S}}}
while [ "$tries" -gt 0 ]; do
  case $(ctl is-active {UNIT} 2>/dev/null) in active|failed) break ;; esac
  sleep 1; tries=$((tries - 1))
done
echo "state=$(ctl is-active {UNIT} 2>/dev/null)"
echo "log:"
( log -n 15 --since "@$began" 2>/dev/null ) || true
""".strip()

_REMOVE = rf"""
{_HEAD}
if [ $kind != none ]; then
  if [ $kind = system ]; then sudo -n true 2>/dev/null || fail sudo; fi
  ctl disable --now {UNIT} 2>/dev/null
  if [ $kind = user ]; then rm -f "$user_file"; else sudo -n rm -f "$system_file" || fail sudo; fi
  ctl daemon-reload
  echo removed
fi
if [ -f "$home/.joy-was-enabled" ]; then
  sudo -n systemctl enable --now {JOY} 2>/dev/null || fail joy
  rm -f "$home/.joy-was-enabled"
fi
exit 0
""".strip()

# Message and remedy for each argument of `fail` in a script.
_REASONS = {
    "systemd": ("systemd is missing.", "Start the program with your system's own service manager."),
    "name": (
        "the name of the home folder or user has characters that a unit cannot contain.",
        "Use an account like the image's own (pi).",
    ),
    "sudo": (
        "sudo asks for a password, but services need it without one.",
        "Log in as the image's own user (pi), or allow it: sudo visudo, USER ALL=(ALL) NOPASSWD: ALL",
    ),
    "joy": ("the joy demo cannot be enabled or disabled.", "On the kit: sudo systemctl disable --now " + JOY),
    "write": ("the unit's file cannot be written.", "Check for free space and a read-only card: df -h; mount"),
    "start": ("systemd does not start the service.", "Read its log on the kit: journalctl -u mirilla -n 50"),
}


def _quoted(word: str) -> str:
    """A word of ExecStart=, where systemd expands % and $ and reads backslashes in quotes."""
    if not word.isprintable():
        raise UsageError(f"The option {word!r} has a control character, which a systemd unit cannot contain.")
    if re.fullmatch(r"[\w@:/.,=+-]+", word) and "@HOME@" not in word and "@USER@" not in word:
        return word
    for old, new in (
        ("\\", "\\\\"),
        ('"', '\\"'),
        ("%", "%%"),
        ("$", "$$"),
        ("@HOME@", "\\x40HOME@"),
        ("@USER@", "\\x40USER@"),
    ):
        word = word.replace(old, new)
    return f'"{word}"'


def _state(link: Link, result: Result) -> State:
    _explain(link, result)
    head, _, log = result.out.partition("log:\n")
    state = re.search(r"^state=(\S*)$", head, re.M)
    notes = re.findall(r"^note=(.*)$", head, re.M)
    return State(state[1] if state else "unknown", (*notes, *log.splitlines()))


def _explain(link: Link, result: Result) -> None:
    """Raise BoardError if a script failed."""
    if result.code == 0:
        return
    reason = re.search(r"^mirilla: (\w+)$", result.err, re.M)
    lines = result.err.strip().splitlines()
    if reason and reason[1] in _REASONS:
        what, remedy = _REASONS[reason[1]]
        detail = f" ({lines[-2][:200]})" if len(lines) > 1 else ""  # the line before the reason has more detail
        raise BoardError(f"{link.target}: {what}{detail}", remedy)
    last = lines[-1][:200] if lines else f"exit status {result.code}"
    raise BoardError(f"{link.target}: a command failed ({last}).", f"mirilla deploy --check {link.target}")
