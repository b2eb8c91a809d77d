"""`mirilla deploy`: a model onto a Vision Kit over SSH, checked, run, rolled back, removed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirilla.board.link import Link
    from mirilla.board.payload import Payload
    from mirilla.board.service import State
    from mirilla.findings import Finding

NAME = "deploy"
HELP = "put a compiled model on a Vision Kit over SSH, run it there, go back, remove it"

EXAMPLE = """examples:
  mirilla deploy --check pi@raspberrypi.local
  mirilla deploy face.binaryproto pi@raspberrypi.local --run
  mirilla deploy face.binaryproto pi@raspberrypi.local --service --options="--web 8080 --led"
  mirilla deploy --rollback pi@raspberrypi.local
  mirilla deploy --remove pi@raspberrypi.local
  mirilla deploy face.binaryproto --bundle kit.zip

HOST is what ssh takes; keys, agent, known hosts and ~/.ssh/config are the system's. No password is asked for
or handled: the kit must know your key (ssh-copy-id). docs/vision-kit.md goes from the card to the first box."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "items",
        nargs="*",
        metavar="MODEL.binaryproto HOST",
        help="the compiled model, with model.json beside it, and [user@]host",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only look whether a model can run there")
    what.add_argument("--rollback", action="store_true", help="go back to the version that ran before")
    what.add_argument("--remove", action="store_true", help="take back all that was put there")
    what.add_argument(
        "--files-only",
        action="store_true",
        help="only copy, by scp alone; for boards that are no Vision Kit; any model",
    )
    what.add_argument("--bundle", metavar="OUT.zip", help="write a .zip for a kit without network")
    parser.add_argument(
        "--service", action="store_true", help="install a systemd service that runs it from power-on, and start it"
    )
    parser.add_argument("--run", action="store_true", help="show what it finds until Ctrl-C (with a service: its log)")
    parser.add_argument(
        "--options",
        default="",
        metavar="TEXT",
        help='of the program on the kit, for --service, --run and --bundle: --options="--web 8080"',
    )
    parser.add_argument("--yes", action="store_true", help="replace the kit's joy demo without asking")
    ssh = parser.add_argument_group("ssh")
    ssh.add_argument("-p", "--port", type=int, help="port of the kit's SSH server")
    ssh.add_argument("-i", "--identity", metavar="FILE", help="private key")
    ssh.add_argument("-F", "--ssh-config", metavar="FILE", help="config instead of ~/.ssh/config")
    ssh.add_argument(
        "--ssh-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="as ssh's -o; may be given more than once",
    )


def run(args: argparse.Namespace) -> int:
    from mirilla.board import bundle, checks, install, service
    from mirilla.board.payload import read_payload
    from mirilla.console import echo

    options = service.parse_options(args.options)
    model, host = _items(args)
    if args.bundle:
        pack = read_payload(model)
        bundle.write(pack, args.bundle, options)
        echo(f"{args.bundle}: {pack.model}, version {pack.name}. Unpack it on the kit: sh mirilla-bundle/install.sh")
        return 0
    link = _link(args, host)
    if args.files_only:
        return _files_only(link, read_payload(model, bonnet=False))
    if args.check:
        found = checks.findings(checks.probe(link), need_bytes=read_payload(model).size_bytes if model else 0)
        _show(found)
        checks.require(found, host)
        echo(f"{host}: a model can run there.")
        return 0
    if args.rollback:
        echo(f"{host}: {install.rollback(link)} runs again.")
        _show_state(link, service.restart(link))
        return 0
    if args.remove:
        return _remove(link)
    return _deploy(link, read_payload(model), options, args)


def _items(args: argparse.Namespace) -> tuple[str, str]:
    """The model and the host; an empty text for what is not needed."""
    from mirilla.errors import UsageError

    modes = {
        "--check": args.check,
        "--rollback": args.rollback,
        "--remove": args.remove,
        "--bundle": args.bundle,
        "--files-only": args.files_only,
    }
    mode = next((name for name, given in modes.items() if given), "")
    if mode and (args.service or args.run):
        raise UsageError(f"{mode} goes with neither --service nor --run.", "Give one of them at a time.")
    if args.options and not (args.service or args.run or args.bundle):
        raise UsageError("--options are for the program on the kit, which --service, --run or --bundle starts.")
    if args.bundle:
        if len(args.items) != 1:
            raise UsageError(
                "A bundle needs one model and no host.", "mirilla deploy MODEL.binaryproto --bundle OUT.zip"
            )
        return args.items[0], ""
    if mode in ("--check", "--rollback", "--remove"):
        if len(args.items) not in (1, 2):
            raise UsageError(f"{mode} needs a host.", f"mirilla deploy {mode} pi@HOST")
        return (args.items[0] if len(args.items) == 2 else ""), args.items[-1]
    if len(args.items) != 2:
        raise UsageError("A model and a host are needed.", "mirilla deploy MODEL.binaryproto pi@HOST")
    return args.items[0], args.items[1]


def _link(args: argparse.Namespace, host: str) -> Link:
    from mirilla.board.link import SshLink

    options = []
    for flag, value in (("-F", args.ssh_config), ("-i", args.identity), ("-o", args.port and f"Port={args.port}")):
        options += [flag, str(value)] if value else []
    for one in args.ssh_option:
        options += ["-o", one]
    return SshLink(host, tuple(options))


def _deploy(link: Link, pack: Payload, options: tuple[str, ...], args: argparse.Namespace) -> int:
    from mirilla.board import checks, install, service
    from mirilla.console import echo
    from mirilla.findings import NOTE

    facts = checks.probe(link)
    found = checks.findings(facts, need_bytes=pack.size_bytes)
    _show([one for one in found if one.severity != NOTE and one.where != "joy demo"])
    checks.require(found, link.target)
    board = next(one.what for one in found if one.where == "board")
    echo(f"{link.target}: {board}; bonnet, aiy, camera and space looked at.")

    in_the_way = service.joy_in_the_way(facts) if args.service else args.run and facts.get("joy") == "active"
    if in_the_way:
        _agree(link.target, args)
    echo(f"Copying {pack.model}, {pack.size_bytes / 1e6:.1f} MB.")
    if install.install(link, pack):
        echo(f"Installed ~/mirilla/versions/{pack.name}; hashes agree there; ~/mirilla/current leads to it.")
    else:
        echo(f"These files are there already ({facts.get('current')}); nothing copied.")
    if args.service:
        _show_state(link, service.install(link, options, replace_joy=in_the_way))
    elif facts.get("service_kind"):
        _show_state(link, service.restart(link))
    if not args.run:
        if not args.service and not facts.get("service_kind"):
            echo("Run it there: python3 ~/mirilla/current/mirilla_kit.py (or deploy with --run or --service).")
        return 0
    if args.service or facts.get("service_kind"):
        echo("The service's log; Ctrl-C leaves it running.")
        return _until_interrupt(lambda: service.follow_log(link))
    if in_the_way:
        service.stop_joy(link)
    echo("Running there; Ctrl-C ends it.")
    return _until_interrupt(lambda: service.run(link, options))


def _until_interrupt(work: Callable[[], int]) -> int:
    """Ctrl-C is how these end: no error."""
    from mirilla.console import echo

    try:
        return work()
    except KeyboardInterrupt:
        echo("Ended here.")
        return 0


def _agree(target: str, args: argparse.Namespace) -> None:
    """Ask whether the joy demo may be stopped; raises when it may not."""
    import sys

    from mirilla.errors import BoardError, UsageError

    if args.yes:
        return
    for_good = "switched off (--remove switches it on again)" if args.service else "stopped until the next start"
    if not sys.stdin.isatty():
        raise UsageError(f"{target}: the joy demo holds the camera and must be {for_good}.", "Give --yes to agree.")
    answer = input(f"{target}: the joy demo holds the camera. May it be {for_good}? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise BoardError(
            f"{target}: the joy demo stays, so nothing was changed.", "Deploy without --service and --run to copy only."
        )


def _files_only(link: Link, pack: Payload) -> int:
    import tempfile
    from pathlib import Path

    from mirilla.board.payload import SUMS
    from mirilla.console import echo

    # scp makes no folders above the one that it copies, so the whole tree is built here.
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "mirilla", "versions", pack.name)
        folder.mkdir(parents=True)
        for name, content in {**pack.files, SUMS: pack.sums.encode()}.items():
            (folder / name).write_bytes(content)
        for one in (folder, *folder.parents[:2]):
            one.chmod(0o755)
        link.copy(str(folder.parents[1]), "")
    echo(f"{link.target}: {len(pack.files)} files are in ~/mirilla/versions/{pack.name}.")
    echo(f"Nothing was checked or switched there. To compare hashes there: sha256sum -c {SUMS}")
    return 0


def _remove(link: Link) -> int:
    from mirilla.board import install, service
    from mirilla.console import echo

    if service.remove(link):
        echo("The service is stopped and removed.")
    stays = install.remove(link)
    echo(f"{link.target}: all versions are removed.")
    if stays:
        echo(f"What others put into ~/mirilla stays: {', '.join(stays.split())}")
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
            f"{link.target}: the service does not run (systemd says '{state.state}'); its log is above.",
            f"mirilla deploy --rollback {link.target} goes back to the version before.",
        )
    echo(f"{link.target}: mirilla.service is {state.state}.")
