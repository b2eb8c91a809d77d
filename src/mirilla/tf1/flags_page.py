"""The table of flags in docs/guide-2018.md and docs/guia-2018.md, made from `flags.FLAGS`.

Write it again after a change of the flags:
`python -c "from mirilla.tf1 import flags_page; flags_page.write_pages('docs')"`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mirilla.tf1.flags import ABSL, FLAGS, Flag
from mirilla.tf1.flags_spanish import NOTES

BEGIN, END = "<!-- flags: begin -->\n", "<!-- flags: end -->\n"
PAGES = {"guide-2018.md": False, "guia-2018.md": True}  # name -> whether it is Spanish
_HEADS = {False: "| flag | default | here | note |", True: "| opción | por defecto | aquí | nota |"}
_EVERY = {False: "every script", True: "todos los programas"}
_SPANISH = {"acts": "actúa", "ignored": "se ignora", "refused": "se rechaza", "new": "nueva"}


def markdown(*, spanish: bool = False) -> str:
    """A table for each script, and one for the flags that all have."""
    lines: list[str] = []
    for title, flags in [*((f"`{script}`", flags) for script, flags in FLAGS.items()), (_EVERY[spanish], ABSL)]:
        if flags:
            lines += [f"**{title}**", "", *_table(flags, spanish), ""]
    return "\n".join(lines)


def _table(flags: Sequence[Flag], spanish: bool) -> list[str]:
    rows = [_HEADS[spanish], "| --- | --- | --- | --- |"]
    for flag in flags:
        default = "" if flag.default in (None, "") else f"`{flag.default}`"
        status = _SPANISH[flag.status] if spanish else flag.status
        note = NOTES[flag.note] if spanish else flag.note
        rows.append(f"| `--{flag.name}` | {default} | {status} | {note} |")
    return rows


def with_table(page: str, *, spanish: bool = False) -> str:
    """The page with the current tables between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{markdown(spanish=spanish)}{END}{tail}"


def write_pages(folder: str | os.PathLike[str]) -> None:
    """Replace the tables in the pages of a folder."""
    for name, spanish in PAGES.items():
        file = Path(folder) / name
        file.write_text(with_table(file.read_text("utf-8"), spanish=spanish), "utf-8")
