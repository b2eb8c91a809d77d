"""What reaches the terminal."""

from __future__ import annotations

import pytest

from mirilla import console
from mirilla.cli.main import main

HOSTILE = "a\x1b[2Jb\x07\r\x9bc\udcff.jpg"
SHOWN = r"a\x1b[2Jb\x07\x0d\x9bc\udcff.jpg"


def test_control_characters_are_shown_as_escapes(capsys):
    console.echo(HOSTILE)
    console.warn(HOSTILE)
    console.print_table(HOSTILE, ["name"], [[HOSTILE]])
    with console.progress("photos") as progress:
        progress.note(HOSTILE)
    out, err = capsys.readouterr()
    assert out.splitlines() == [SHOWN, SHOWN, "name", "-" * len(SHOWN), SHOWN]
    assert err.splitlines() == [f"warning: {SHOWN}", f"photos: 0, {SHOWN}"]


def test_tabs_lines_and_letters_stay():
    assert console.printable("niño\t测试\n") == "niño\t测试\n"


@pytest.mark.parametrize("arguments", [["detect", HOSTILE], ["data", "check", HOSTILE], ["inspect", HOSTILE]])
def test_errors_have_none(arguments, capsys):
    assert main(arguments) != 0
    out, err = capsys.readouterr()
    assert SHOWN in out + err
    assert not {"\x1b", "\x07", "\r", "\x9b"} & set(out + err)
