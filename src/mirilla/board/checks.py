"""What is looked at on a kit before anything is changed there; each finding comes with its remedy.

One script reads everything and prints `key=value` lines; what they mean is decided here, so that it can be
told without a kit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

from mirilla.board.link import Link
from mirilla.errors import BoardError
from mirilla.findings import ERROR, NOTE, WARNING, Finding, Severity

NODE = "/dev/vision_spicomm"
JOY = "joy_detection_demo.service"
SPACE_BYTES = 20 << 20  # kept free beyond what is copied: logs, the system
FIRMWARE_MAJOR = 1  # of the firmware whose protocol is known
FLASH = "Flash the AIY Vision Kit's image onto the card (docs/vision-kit.md)."


def probe(link: Link) -> dict[str, str]:
    """Facts of a kit, by key; a fact that could not be found out is missing or empty.

    Raises:
        BoardError: it cannot be reached, or what answers has no POSIX shell.
    """
    result = link.run(probe_script(), timeout_s=120)
    facts = dict(line.split("=", 1) for line in result.out.splitlines() if re.match(r"[a-z_]+=", line))
    if "probe" not in facts:
        said = (result.err or result.out).strip().splitlines()
        raise BoardError(
            f"{link.target}: logged in, but the shell there does not run a script"
            + (f" ({said[-1][:200]})." if said else "."),
            "Give the account a POSIX shell, and see that its start-up files neither print nor exit.",
        )
    return facts


def probe_script() -> str:
    """The script that `probe` runs. MIRILLA_KIT_ROOT in its environment stands before absolute paths."""
    return (resources.files("mirilla.board") / "probe.sh").read_text(encoding="utf-8")


def findings(facts: Mapping[str, str], *, need_bytes: int = 0) -> list[Finding]:
    """What the facts mean for running a model there.

    Args:
        need_bytes: size of what will be copied.
    """
    found = [_board(facts), *_bonnet(facts), *_python(facts), _camera(facts), _space(facts, need_bytes)]
    found += _system(facts)
    return found


def require(found: list[Finding], target: str) -> None:
    """Raise BoardError for the errors among the findings."""
    errors = [one for one in found if one.severity == ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more, above)" if len(errors) > 1 else ""
        raise BoardError(f"{target}: {errors[0].what}{more}", errors[0].remedy or None)


def _about(severity: Severity, part: str, what: str, remedy: str = "") -> Finding:
    """A finding about a part of the kit. An error keeps models from running there; a note means that all is well."""
    return Finding(severity, part, part, what, remedy)


def _board(facts: Mapping[str, str]) -> Finding:
    name = facts.get("board") or facts.get("machine") or "unknown machine"
    what = f"{name}, {facts.get('os') or 'unknown system'}, kernel {facts.get('kernel') or 'unknown'}"
    if not facts.get("machine", "").startswith(("arm", "aarch64")):
        return _about(WARNING, "board", f"{what}: not a Raspberry Pi.", "Is this the host that you meant?")
    return _about(NOTE, "board", what)


def _bonnet(facts: Mapping[str, str]) -> list[Finding]:
    """The device node, then the firmware behind it."""
    kernel = facts.get("kernel", "?")
    if facts.get("node") == "no":
        if facts.get("driver") == "loaded":
            return [
                _about(
                    ERROR,
                    "bonnet",
                    f"the driver aiy-vision is loaded, but there is no {NODE}: no bonnet answers.",
                    "Switch off, press the bonnet onto the header and reseat the flat cables; then 'dmesg | grep -i "
                    "myriad' should say that it is ready.",
                )
            ]
        if facts.get("driver") == "there":
            return [
                _about(
                    ERROR,
                    "bonnet",
                    f"there is no {NODE}: the kernel has the driver aiy-vision but did not load it.",
                    "sudo modprobe aiy-vision; if that fails, 'dmesg | tail' says why. The bonnet must sit on the "
                    "header when the kit starts.",
                )
            ]
        if facts.get("aiy") == "yes" or facts.get("aiy_dkms") == "yes":
            return [
                _about(
                    ERROR,
                    "bonnet",
                    f"there is no {NODE}: the running kernel {kernel} has no driver aiy-vision. "
                    "That is what a kernel upgrade leaves.",
                    "sudo apt-get install --reinstall raspberrypi-kernel-headers aiy-dkms && sudo reboot; if its "
                    "build fails, " + FLASH[0].lower() + FLASH[1:],
                )
            ]
        return [
            _about(
                ERROR,
                "bonnet",
                f"not a Vision Kit: there is no {NODE}, no driver and no package 'aiy'.",
                FLASH + " Other boards: --files-only copies without looking.",
            )
        ]
    if facts.get("node") == "denied":
        return [
            _about(
                ERROR,
                "bonnet",
                f"{NODE} is there, but user {facts.get('user') or '?'} may not use it.",
                "Log in as the image's own user (pi), or let a udev rule open the device to a group of yours.",
            )
        ]
    return [_about(NOTE, "bonnet", NODE), *_firmware(facts)]


def _firmware(facts: Mapping[str, str]) -> list[Finding]:
    if facts.get("aiy") != "yes":
        return []
    version = facts.get("firmware", "")
    if version == "busy":
        return [_about(NOTE, "firmware", "not asked, since a program is at work with the bonnet")]
    if not re.fullmatch(r"\d+\.\d+", version):
        return [
            _about(
                WARNING,
                "firmware",
                "the bonnet did not tell its firmware's version" + (f" ({version})." if version else "."),
                "If it goes on, switch the kit off and on; 'dmesg | grep -i myriad' should say that it is ready.",
            )
        ]
    if int(version.split(".")[0]) != FIRMWARE_MAJOR:
        return [
            _about(
                WARNING,
                "firmware",
                f"version {version}; known is {FIRMWARE_MAJOR}.x.",
                "Models may be refused. sudo apt-get install aiy-vision-firmware brings the last one of Google's.",
            )
        ]
    return [_about(NOTE, "firmware", f"version {version}")]


def _python(facts: Mapping[str, str]) -> list[Finding]:
    version = facts.get("python", "")
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if len(numbers) < 2 or numbers < (3, 5):
        return [
            _about(
                ERROR,
                "Python",
                f"the program needs Python 3.5 or later, found {version or 'none'}.",
                "sudo apt-get install python3, or flash a newer image.",
            )
        ]
    found = [_about(NOTE, "Python", version)]
    if facts.get("aiy") == "yes":
        found.append(_about(NOTE, "aiy", "the package imports"))
    else:
        reason = facts.get("aiy", "").removeprefix("no").strip(" :")
        found.append(
            _about(
                ERROR,
                "aiy",
                "python3 cannot import aiy.vision.inference" + (f" ({reason})." if reason else "."),
                FLASH + " Or install the package: sudo pip3 install -e ~/AIY-projects-python/src",
            )
        )
    return found


def _camera(facts: Mapping[str, str]) -> Finding:
    state = facts.get("camera", "")
    supported, detected = re.search(r"supported=(\d)", state), re.search(r"detected=(\d)", state)
    if supported and supported[1] == "0":
        return _about(
            ERROR,
            "camera",
            "the camera is switched off.",
            "sudo raspi-config, Interfacing Options, Camera; then reboot.",
        )
    if detected and detected[1] == "0":
        return _about(
            ERROR,
            "camera",
            "no camera answers.",
            "Switch off and reseat the flat cables, camera to bonnet and bonnet to Raspberry Pi.",
        )
    if not detected:
        return _about(
            WARNING,
            "camera",
            "it could not be asked (no vcgencmd, or another answer).",
            "If the program finds no camera: sudo raspi-config, Interfacing Options, Camera.",
        )
    if facts.get("picamera") == "no":
        return _about(ERROR, "camera", "Python's package picamera is missing.", "sudo apt-get install python3-picamera")
    return _about(NOTE, "camera", "detected")


def _space(facts: Mapping[str, str], need_bytes: int) -> Finding:
    free = facts.get("free_kb", "")
    if facts.get("home_writable") == "no":
        return _about(
            ERROR,
            "space",
            f"the home folder {facts.get('home', '')} cannot be written.",
            "A card that became read-only is often worn out or was switched off badly: reboot, and "
            "flash another card if it stays.",
        )
    if not free.isdigit():
        return _about(WARNING, "space", "free space could not be read.")
    free_bytes = int(free) << 10
    if free_bytes < need_bytes + SPACE_BYTES:
        return _about(
            ERROR,
            "space",
            f"{free_bytes / 1e6:.1f} MB free; needed are {(need_bytes + SPACE_BYTES) / 1e6:.1f} MB.",
            "Free some: du -xh ~ | sort -h | tail shows what is large; sudo apt-get clean helps.",
        )
    return _about(NOTE, "space", f"{free_bytes / 1e6:.0f} MB free")


def _system(facts: Mapping[str, str]) -> list[Finding]:
    """Services, power, tools."""
    found = []
    missing = facts.get("missing", "").split()
    if missing:
        found.append(
            _about(ERROR, "tools", f"programs are missing: {', '.join(missing)}.", "sudo apt-get install coreutils tar")
        )
    if facts.get("joy") == "active":
        found.append(
            _about(
                WARNING,
                "joy demo",
                "it is running, and only one program can use the camera.",
                "--service replaces it; by hand: sudo systemctl disable --now " + JOY,
            )
        )
    throttled = re.search(r"0x([0-9a-fA-F]+)", facts.get("throttled", ""))
    if throttled and int(throttled[1], 16) & 0x10001:  # bit 0: now; bit 16: since it was switched on
        found.append(
            _about(
                WARNING,
                "power",
                "the supply's voltage was too low at times.",
                "Use a supply of 5 V and 2 A or more and a short cable.",
            )
        )
    service = facts.get("service", "")
    if service == "active":
        found.append(_about(NOTE, "service", "mirilla.service is running"))
    elif service == "failed":
        found.append(
            _about(WARNING, "service", "mirilla.service has failed.", "Look at its log: journalctl -u mirilla -n 50")
        )
    if facts.get("current"):
        found.append(_about(NOTE, "installed", facts["current"]))
    return found
