"""`mirilla deploy`: deploy a model to a Vision Kit over SSH, run it there, roll back, remove."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirilla.board.link import Link
    from mirilla.board.payload import Payload
    from mirilla.board.service import State
    from mirilla.findings import Finding


EXAMPLE = """examples:
  mirilla deploy --check pi@raspberrypi.local
  mirilla deploy face.binaryproto pi@raspberrypi.local --run
  mirilla deploy face.binaryproto pi@raspberrypi.local --service --options="--web 8080 --led"
  mirilla deploy --rollback pi@raspberrypi.local
  mirilla deploy --remove pi@raspberrypi.local
  mirilla deploy face.binaryproto --bundle kit.zip

HOST is a destination of ssh, with your keys, agent, known hosts and ~/.ssh/config. Passwords are not supported: install
your key on the kit (ssh-copy-id). docs/vision-kit.md is a guide from the empty card to the first detection."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "items",
        nargs="*",
        metavar="MODEL HOST",
        help="the model, which is compiled if it is not yet, and [user@]host",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only check whether the kit can run a model")
    what.add_argument("--rollback", action="store_true", help="return to the previous version")
    what.add_argument("--remove", action="store_true", help="remove the service and all versions")
    what.add_argument(
        "--files-only",
        action="store_true",
        help="only copy the files, with scp; for any model and other boards",
    )
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        help="with --files-only: copy the model and model.json into this folder of the board, such as /home/pi/",
    )
    what.add_argument("--bundle", metavar="OUT.zip", help="write a .zip for a kit without network")
    parser.add_argument(
        "--service", action="store_true", help="install a systemd service that starts at power-on, and start it"
    )
    parser.add_argument("--run", action="store_true", help="show the detections until Ctrl-C (with a service: its log)")
    parser.add_argument(
        "--options",
        default="",
        metavar="TEXT",
        help='options of the program on the kit, for --service, --run and --bundle: --options="--web 8080"',
    )
    parser.add_argument("--yes", action="store_true", help="replace the kit's joy demo without asking")
    ssh = parser.add_argument_group("ssh")
    ssh.add_argument("-p", "--port", type=int, help="port of the kit's SSH server")
    ssh.add_argument("-i", "--identity", metavar="FILE", help="private key")
    ssh.add_argument("-F", "--ssh-config", metavar="FILE", help="configuration file instead of ~/.ssh/config")
    ssh.add_argument(
        "--ssh-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of ssh, as with its -o; repeatable",
    )


def run(args: argparse.Namespace) -> int:
    from mirilla.board import bundle, checks, install, service
    from mirilla.board.payload import read_payload
    from mirilla.console import echo
    from mirilla.detect.resolve import compiled_model

    options = service.parse_options(args.options)
    model, host = _items(args)

    def compiled_payload() -> Payload:
        with compiled_model(model) as path:
            return read_payload(path)

    if args.bundle:
        payload = compiled_payload()
        bundle.write(payload, args.bundle, options)
        echo(f"{args.bundle}: {payload.model}, version {payload.name}.")
        echo("Unpack it on the kit and run: sh mirilla-bundle/install.sh")
        return 0
    link = _link(args, host)
    if args.files_only:
        return _files_only(link, read_payload(model, bonnet=False), args.to)
    if args.check:
        found = checks.findings(checks.probe(link), need_bytes=compiled_payload().size_bytes if model else 0)
        _show(found)
        checks.require(found, host)
        echo(f"{host}: the kit can run a model.")
        return 0
    if args.rollback:
        echo(f"{host}: the current version is {install.rollback(link)} again.")
        _show_state(link, service.restart(link))
        return 0
    if args.remove:
        return _remove(link)
    return _deploy(link, compiled_payload(), options, args)


def _items(args: argparse.Namespace) -> tuple[str, str]:
    """The model and the host; an empty string for the one that is not needed."""
    from mirilla.errors import UsageError

    mode = _mode(args)
    _check_combination(args, mode)
    items = args.items
    if mode == "--bundle":
        if len(items) != 1:
            raise UsageError("--bundle needs a model and no host.", "mirilla deploy MODEL.binaryproto --bundle OUT.zip")
        return items[0], ""
    if mode in ("--check", "--rollback", "--remove"):
        if len(items) not in (1, 2):
            raise UsageError(f"{mode} needs a host.", f"mirilla deploy {mode} pi@HOST")
        return items[0] if len(items) == 2 else "", items[-1]
    if len(items) != 2:
        raise UsageError("Give a model and a host.", "mirilla deploy MODEL.binaryproto pi@HOST")
    return items[0], items[1]


def _check_combination(args: argparse.Namespace, mode: str) -> None:
    """Raise UsageError if options are given that do not fit together."""
    import re

    from mirilla.errors import UsageError

    if mode and (args.service or args.run):
        raise UsageError(f"{mode} cannot be combined with --service or --run.", "Give one of them at a time.")
    if args.port is not None and not 0 < args.port < 65536:
        raise UsageError(f"--port {args.port}: it must be between 1 and 65535.")
    if args.to is not None and mode != "--files-only":
        raise UsageError(
            "--to needs --files-only.", "mirilla deploy MODEL.binaryproto pi@HOST --files-only --to FOLDER"
        )
    if args.to is not None and not re.fullmatch(r"[\w./+][\w./+-]*", args.to):
        raise UsageError(
            f"--to {args.to}: not a folder's name that scp can copy to.", "Use letters, digits, / . _ and -."
        )
    if args.options and not (args.service or args.run or args.bundle):
        raise UsageError("--options needs --service, --run or --bundle, which start the program on the kit.")


def _mode(args: argparse.Namespace) -> str:
    """The option that chooses what to do; "" to install and perhaps run."""
    modes = {
        "--check": args.check,
        "--rollback": args.rollback,
        "--remove": args.remove,
        "--bundle": args.bundle,
        "--files-only": args.files_only,
    }
    return next((name for name, given in modes.items() if given), "")


def _link(args: argparse.Namespace, host: str) -> Link:
    from mirilla.board.link import SshLink

    options = []
    for flag, value in (("-F", args.ssh_config), ("-i", args.identity), ("-o", args.port and f"Port={args.port}")):
        options += [flag, str(value)] if value else []
    for option in args.ssh_option:
        options += ["-o", option]
    return SshLink(host, tuple(options))


def _deploy(link: Link, payload: Payload, options: tuple[str, ...], args: argparse.Namespace) -> int:
    from mirilla.board import checks, install, service
    from mirilla.console import echo

    facts = checks.probe(link)
    _require_usable(link, checks.findings(facts, need_bytes=payload.size_bytes))
    stops_joy = service.joy_uses_camera(facts) if args.service else args.run and facts.get("joy") == "active"
    if stops_joy:
        _agree(link.target, args)
    echo(f"Copying {payload.model}, {payload.size_bytes / 1e6:.1f} MB.")
    if install.install(link, payload):
        echo(f"Installed ~/mirilla/versions/{payload.name} and checked its hashes; ~/mirilla/current points to it.")
    else:
        echo(f"The current version ({facts.get('current')}) has the same files; nothing copied.")
    has_service = args.service or bool(facts.get("service_kind"))
    if args.service:
        _show_state(link, service.install(link, options, replace_joy=stops_joy))
    elif has_service:
        _show_state(link, service.restart(link))
    if args.run:
        return _run(link, options, has_service=has_service, stops_joy=stops_joy)
    if not has_service:
        echo("Run it on the kit: python3 ~/mirilla/current/mirilla_kit.py (or deploy with --run or --service).")
    return 0


def _require_usable(link: Link, found: list[Finding]) -> None:
    """Print what is wrong with the kit, and raise BoardError if a model cannot run there."""
    from mirilla.board import checks
    from mirilla.console import echo
    from mirilla.findings import NOTE

    _show([finding for finding in found if finding.severity != NOTE and finding.where != "joy demo"])
    checks.require(found, link.target)
    board = next(finding.what for finding in found if finding.where == "board")
    echo(f"{link.target}: {board}; bonnet, aiy, camera and space checked.")


def _run(link: Link, options: tuple[str, ...], *, has_service: bool, stops_joy: bool) -> int:
    """Show the detections until Ctrl-C: the log of the service, or the program itself."""
    from mirilla.board import service
    from mirilla.console import echo

    if has_service:
        echo("The log of the service, which keeps running after Ctrl-C:")
        return _until_interrupt(lambda: service.follow_log(link))
    if stops_joy:
        service.stop_joy(link)
    echo("Running on the kit; Ctrl-C ends it.")
    return _until_interrupt(lambda: service.run(link, options))


def _until_interrupt(work: Callable[[], int]) -> int:
    """Run until Ctrl-C, which is not an error here."""
    from mirilla.console import echo

    try:
        return work()
    except KeyboardInterrupt:
        echo("Stopped.")
        return 0


def _agree(target: str, args: argparse.Namespace) -> None:
    """Ask whether the joy demo may be stopped. Raises if the answer is no."""
    import sys

    from mirilla.errors import BoardError, UsageError

    if args.yes:
        return
    change = "disabled (--remove enables it again)" if args.service else "stopped until the kit is restarted"
    if not sys.stdin.isatty():
        raise UsageError(f"{target}: the joy demo uses the camera and must be {change}.", "Give --yes to agree.")
    answer = input(f"{target}: the joy demo uses the camera. May it be {change}? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise BoardError(
            f"{target}: the joy demo keeps the camera; nothing was changed.",
            "Deploy without --service and --run to copy only.",
        )


def _files_only(link: Link, payload: Payload, folder: str | None) -> int:
    from mirilla.board.install import copy_files, copy_model
    from mirilla.board.payload import SUMS
    from mirilla.console import echo

    if folder is not None:
        names = copy_model(link, payload, folder)
        echo(f"{link.target}: {' and '.join(names)} copied to {folder}; nothing was checked.")
        return 0
    copy_files(link, payload)
    echo(f"{link.target}: {len(payload.files)} files copied to ~/mirilla/versions/{payload.name}.")
    echo(f"Nothing was checked. To compare the hashes there: sha256sum -c {SUMS}")
    return 0


def _remove(link: Link) -> int:
    from mirilla.board import install, service
    from mirilla.console import echo

    if service.remove(link):
        echo("The service is stopped and removed.")
    kept = install.remove(link)
    echo(f"{link.target}: all versions are removed.")
    if kept:
        echo(f"Other files in ~/mirilla are kept: {', '.join(kept.split())}")
    return 0


def _show(found: list[Finding]) -> None:
    from mirilla.console import echo
    from mirilla.findings import NOTE

    for finding in found:
        level = "ok" if finding.severity == NOTE else finding.severity
        echo(f"{level:7}  {finding.where:9}  {finding.what}")
        if finding.remedy:
            echo(f"{'':20}Remedy: {finding.remedy}")


def _show_state(link: Link, state: State | None) -> None:
    from mirilla.console import echo
    from mirilla.errors import BoardError

    if state is None:
        return
    for line in state.log:
        echo(f"  {line}")
    if state.state != "active":
        raise BoardError(
            f"{link.target}: the service does not run (systemd reports '{state.state}'); its log is above.",
            f"mirilla deploy --rollback {link.target} returns to the previous version.",
        )
    echo(f"{link.target}: mirilla.service is {state.state}.")
