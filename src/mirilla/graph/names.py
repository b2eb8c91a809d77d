"""Names of nodes and tensors: references between nodes, and checks of names that users give."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

from mirilla.findings import breach
from mirilla.protos.tensorflow_pb2 import NodeDef

_QUOTES = "\"'`“”„‟‘’‚‛«»‹›"


def node_name(reference: str) -> str:
    """'scope/node:0' -> 'scope/node'; a control input without its '^'."""
    return reference.split(":")[0].lstrip("^")


def data_inputs(node: NodeDef) -> list[str]:
    """The node's inputs without control inputs."""
    return [name for name in node.input if not name.startswith("^")]


def split_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """'concat,concat_1' (or a sequence) -> names; white space around commas is dropped."""
    parts: Iterable[str] = text.split(",") if isinstance(text, str) else text
    return tuple(part.strip() for part in parts if part.strip())


def clean(name: str) -> str:
    """A name without quotation marks (typographic ones too), white space and ':0'."""
    return name.strip().strip(_QUOTES + " ").removesuffix(":0")


def nearest(name: str, known: Collection[str], count: int = 3) -> list[str]:
    """The known names most like `name`, best first; those that differ only in '_', '/' or case come first."""

    def plain(text: str) -> str:
        return "".join(letter for letter in clean(text).lower() if letter.isalnum())

    if clean(name) in known:
        return [clean(name)]
    target = plain(name)
    alike = sorted((candidate for candidate in known if plain(candidate) == target), key=len)
    if not alike:
        short = clean(name).rsplit("/", 1)[-1]
        alike = sorted((candidate for candidate in known if candidate.rsplit("/", 1)[-1] == short), key=len)
    close = difflib.get_close_matches(clean(name), known, n=count, cutoff=0.6) if len(name) < 500 else []
    return list(dict.fromkeys([*alike, *close]))[:count]


def check(name: str, known: Collection[str], role: str, option: str, others: Sequence[str] | None = None) -> str:
    """The name of the node that is meant.

    Quotation marks around it and a ':0' at its end are dropped. If the graph has no such node, but exactly one whose
    name differs only in underscores and case ('concat1', 'concat_1'), that one is meant.

    Args:
        name: as given.
        known: the names of all nodes.
        role: 'input tensor' or 'output tensor'.
        option: the command line's option for it.
        others: all names given with that option, so that the remedy can repeat the whole corrected list.

    Raises:
        RuleError: the graph has no such node; the remedy suggests similar names.
    """
    stripped = name.strip().removesuffix(":0")
    if stripped in known:
        return stripped
    if clean(name) in known:
        return clean(name)
    spelt = [candidate for candidate in known if _plain(candidate) == _plain(clean(name))]
    if len(spelt) == 1:
        return spelt[0]
    found = nearest(name, known)
    quoted = " (quotation marks are part of that name)" if clean(name) != stripped else ""
    remedy = "'mirilla inspect GRAPH.pb --nodes' lists the names a graph has."
    if found:
        corrected = [found[0] if other == name else _corrected(other, known) for other in others or [name]]
        remedy = f"Did you mean '{found[0]}'? Give {option} {','.join(corrected)}"
        remedy += "." if len(found) == 1 else f" (similar names: {', '.join(found[1:])})."
    raise breach("unknown-name", name, f"The graph has no {role} '{name}'{quoted}.", remedy)


def reading(given: Sequence[str], found: Sequence[str]) -> str | None:
    """A line that says how names were read; None if they were spelt as in the graph."""
    cleaned = [clean(name) for name in given]
    return None if cleaned == list(found) else f"'{','.join(cleaned)}' is read as '{','.join(found)}'"


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _corrected(name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    found = nearest(name, known, 1)
    return found[0] if found else name
