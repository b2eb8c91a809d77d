"""Checks of a kit before anything is changed there; each finding has its remedy.

One script collects facts and prints `key=value` lines. The facts are interpreted here, so that this can be tested
without a kit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources

from mirilla.board.link import Link
from mirilla.errors import BoardError
from mirilla.findings import ERROR, NOTE, WARNING, Finding

NODE = "/dev/vision_spicomm"
JOY = "joy_detection_demo.service"
SPACE_BYTES = 20 << 20  # to keep free for logs and the system
FIRMWARE_MAJOR = 1  # of the firmware whose protocol is known
MIN_PYTHON = (3, 5)
UNDERVOLTAGE = 0x10001  # bits of `vcgencmd get_throttled`: 0: now, 16: since the kit was switched on
FLASH = "Flash the AIY Vision Kit's image onto the card (docs/vision-kit.md)."


def probe(link: Link) -> dict[str, str]:
    """The facts of a kit, by key. Unknown ones are missing or empty.

    Raises:
        BoardError: the kit cannot be reached, or its shell is not a POSIX shell.
    """
    result = link.run(probe_script(), timeout_s=120)
    facts = dict(line.split("=", 1) for line in result.out.splitlines() if re.match(r"[a-z_]+=", line))
    if "probe" not in facts:
        lines = (result.err or result.out).strip().splitlines()
        raise BoardError(
            f"{link.target}: logged in, but its shell does not run a script"
            + (f" ({lines[-1][:200]})." if lines else "."),
            "Give the account a POSIX shell whose start-up files neither print nor exit.",
        )
    return facts


def probe_script() -> str:
    """The script that `probe` runs. It prefixes absolute paths with the variable MIRILLA_KIT_ROOT."""
    return (resources.files("mirilla.board") / "probe.sh").read_text(encoding="utf-8")


def findings(facts: Mapping[str, str], *, need_bytes: int = 0) -> list[Finding]:
    """Findings from the facts. An error prevents running a model on the kit; a note is a check that passed.

    Args:
        need_bytes: size of the files to copy.
    """
    return [
        _board(facts),
        *_bonnet(facts),
        *_python(facts),
        _camera(facts),
        _space(facts, need_bytes),
        *_system(facts),
    ]


def require(found: Sequence[Finding], target: str) -> None:
    """Raise BoardError if there are errors among the findings."""
    errors = [finding for finding in found if finding.severity == ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more, above)" if len(errors) > 1 else ""
        raise BoardError(f"{target}: {errors[0].what}{more}", errors[0].remedy or None)


def _error(part: str, what: str, remedy: str) -> Finding:
    return Finding(ERROR, part, part, what, remedy)


def _warning(part: str, what: str, remedy: str = "") -> Finding:
    return Finding(WARNING, part, part, what, remedy)


def _passed(part: str, what: str) -> Finding:
    return Finding(NOTE, part, part, what)


def _board(facts: Mapping[str, str]) -> Finding:
    name = facts.get("board") or facts.get("machine") or "unknown machine"
    what = f"{name}, {facts.get('os') or 'unknown system'}, kernel {facts.get('kernel') or 'unknown'}"
    if not facts.get("machine", "").startswith(("arm", "aarch64")):
        return _warning("board", f"{what}: not a Raspberry Pi.", "Check that this is the right host.")
    return _passed("board", what)


def _bonnet(facts: Mapping[str, str]) -> list[Finding]:
    """The device node, then the firmware."""
    if facts.get("node") == "no":
        return [_missing_node(facts)]
    if facts.get("node") == "denied":
        return [
            _error(
                "bonnet",
                f"user {facts.get('user') or '?'} has no permission to use {NODE}.",
                "Log in as the image's own user (pi), or give a group of yours access with a udev rule.",
            )
        ]
    return [_passed("bonnet", NODE), *_firmware(facts)]


def _missing_node(facts: Mapping[str, str]) -> Finding:
    """Why the bonnet has no device node."""
    if facts.get("driver") == "loaded":
        return _error(
            "bonnet",
            f"{NODE} is missing: the driver aiy-vision is loaded, but no bonnet answers.",
            "Switch off, press the bonnet onto the header and reseat the flat cables. Then 'dmesg | grep -i myriad' "
            "should report that it is ready.",
        )
    if facts.get("driver") == "there":
        return _error(
            "bonnet",
            f"{NODE} is missing: the kernel has the driver aiy-vision but did not load it.",
            "sudo modprobe aiy-vision; if that fails, 'dmesg | tail' shows why. The bonnet must be on the header when "
            "the kit starts.",
        )
    if facts.get("aiy") == "yes" or facts.get("aiy_dkms") == "yes":
        return _error(
            "bonnet",
            f"{NODE} is missing: the running kernel {facts.get('kernel', '?')} has no driver aiy-vision, probably "
            "after an upgrade of the kernel.",
            "sudo apt-get install --reinstall raspberrypi-kernel-headers aiy-dkms && sudo reboot. If that fails: "
            + FLASH,
        )
    return _error(
        "bonnet",
        f"not a Vision Kit: {NODE}, the driver and the package 'aiy' are missing.",
        f"{FLASH} For other boards, --files-only copies without checks.",
    )


def _firmware(facts: Mapping[str, str]) -> list[Finding]:
    if facts.get("aiy") != "yes":
        return []
    version = facts.get("firmware", "")
    if version == "busy":
        return [_passed("firmware", "not queried, since another program is using the bonnet")]
    if not re.fullmatch(r"\d+\.\d+", version):
        return [
            _warning(
                "firmware",
                "the bonnet did not report its firmware's version" + (f" ({version})." if version else "."),
                "If it happens again, switch the kit off and on. Then 'dmesg | grep -i myriad' should report that it "
                "is ready.",
            )
        ]
    if int(version.split(".")[0]) != FIRMWARE_MAJOR:
        return [
            _warning(
                "firmware",
                f"version {version}; only {FIRMWARE_MAJOR}.x is known.",
                "It may refuse models. sudo apt-get install aiy-vision-firmware installs Google's last version.",
            )
        ]
    return [_passed("firmware", f"version {version}")]


def _python(facts: Mapping[str, str]) -> list[Finding]:
    """Python's version, then its package aiy."""
    version = facts.get("python", "")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if len(numbers) < 2 or numbers < MIN_PYTHON:
        return [
            _error(
                "Python",
                f"the program needs Python 3.5 or later, found {version or 'none'}.",
                "sudo apt-get install python3, or flash a newer image.",
            )
        ]
    if facts.get("aiy") == "yes":
        return [_passed("Python", version), _passed("aiy", "the package can be imported")]
    reason = facts.get("aiy", "").removeprefix("no").strip(" :")
    return [
        _passed("Python", version),
        _error(
            "aiy",
            "python3 cannot import aiy.vision.inference" + (f" ({reason})." if reason else "."),
            f"{FLASH} Or install the package: sudo pip3 install -e ~/AIY-projects-python/src",
        ),
    ]


def _camera(facts: Mapping[str, str]) -> Finding:
    state = facts.get("camera", "")
    supported, detected = re.search(r"supported=(\d)", state), re.search(r"detected=(\d)", state)
    if supported and supported[1] == "0":
        return _error(
            "camera", "the camera is disabled.", "sudo raspi-config, Interfacing Options, Camera; then reboot."
        )
    if detected and detected[1] == "0":
        return _error(
            "camera",
            "no camera is detected.",
            "Switch off and reseat the flat cables, camera to bonnet and bonnet to Raspberry Pi.",
        )
    if not detected:
        return _warning(
            "camera",
            "its state is unknown (vcgencmd is missing or printed something else).",
            "If the program finds no camera: sudo raspi-config, Interfacing Options, Camera.",
        )
    if facts.get("picamera") == "no":
        return _error("camera", "Python's package picamera is missing.", "sudo apt-get install python3-picamera")
    return _passed("camera", "detected")


def _space(facts: Mapping[str, str], need_bytes: int) -> Finding:
    if facts.get("home_writable") == "no":
        return _error(
            "space",
            f"the home folder {facts.get('home', '')} cannot be written to.",
            "Reboot; if it stays read-only, flash another card: this one is worn out or was damaged when the kit lost "
            "power.",
        )
    free_kb = facts.get("free_kb", "")
    if not free_kb.isdigit():
        return _warning("space", "the free space is unknown.")
    free_bytes, wanted_bytes = int(free_kb) << 10, need_bytes + SPACE_BYTES
    if free_bytes < wanted_bytes:
        return _error(
            "space",
            f"{free_bytes / 1e6:.1f} MB free; {wanted_bytes / 1e6:.1f} MB are needed.",
            "Free some space: du -xh ~ | sort -h | tail lists the largest folders; sudo apt-get clean helps.",
        )
    return _passed("space", f"{free_bytes / 1e6:.0f} MB free")


def _system(facts: Mapping[str, str]) -> list[Finding]:
    """Tools, the joy demo, power, and what Mirilla has installed before."""
    found = []
    missing = facts.get("missing", "").split()
    if missing:
        found.append(
            _error("tools", f"programs are missing: {', '.join(missing)}.", "sudo apt-get install coreutils tar")
        )
    if facts.get("joy") == "active":
        found.append(
            _warning(
                "joy demo",
                "it is running, and only one program can use the camera.",
                f"--service replaces it; by hand: sudo systemctl disable --now {JOY}",
            )
        )
    throttled = re.search(r"0x([0-9a-fA-F]+)", facts.get("throttled", ""))
    if throttled and int(throttled[1], 16) & UNDERVOLTAGE:
        found.append(
            _warning(
                "power",
                "the supply voltage has been too low.",
                "Use a supply of 5 V and at least 2 A, and a short cable.",
            )
        )
    if facts.get("service") == "active":
        found.append(_passed("service", "mirilla.service is running"))
    elif facts.get("service") == "failed":
        found.append(_warning("service", "mirilla.service has failed.", "Read its log: journalctl -u mirilla -n 50"))
    if facts.get("current"):
        found.append(_passed("installed", facts["current"]))
    return found
