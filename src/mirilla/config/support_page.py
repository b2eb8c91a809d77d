"""The table of docs/config.md, made from `support_table.TABLE`.

After a change of the table, update the page with
`python -c "from mirilla.config import support_page; support_page.write_page('docs/config.md')"`.
"""

from __future__ import annotations

import os
from pathlib import Path

from mirilla.config.fields import value_text
from mirilla.config.support import fields, support
from mirilla.config.support_entry import ACTS, Support

BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def markdown() -> str:
    """The table: a row for every field, and for every message that is refused or has no effect."""
    lines = ["| field | here | note |", "| --- | --- | --- |"]
    for path, field in fields():
        entry = support(path)
        if entry is None:
            continue
        has_fields = field.message_type is not None and len(field.message_type.fields) > 0
        has_rows_inside = has_fields and entry.status == ACTS
        if not has_rows_inside or entry.reason:
            lines.append(f"| `{path}` | {entry.status} | {_note(entry)} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page with the current table between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{markdown()}{END}{tail}"


def write_page(path: str | os.PathLike[str]) -> None:
    """Replace the table between the two marks of a page."""
    file = Path(path)
    file.write_text(with_table(file.read_text("utf-8")), "utf-8")


def _note(entry: Support) -> str:
    if not entry.only:
        return entry.reason
    values = ", ".join(f"`{value_text(value)}`" for value in entry.only)
    return f"only {values}" + (f": {entry.reason}" if entry.reason else "")
