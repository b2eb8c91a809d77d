"""The floors that docs/architecture.md draws: every import goes down."""

from __future__ import annotations

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mirilla"
ENTRANCE = "mirilla"  # the package's own __init__.py


def drawn_floors() -> dict[str, int]:
    """Room -> height of its floor, from the block of docs/architecture.md that begins with ```floors."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"```floors\n(.*?)```", page, re.S)
    assert block, "docs/architecture.md has no block ```floors"
    lines = [line.split() for line in block.group(1).splitlines() if line.strip()]
    return {room: height for height, rooms in enumerate(reversed(lines)) for room in rooms}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, known: dict[str, Path]) -> set[str]:
    """Mirilla's modules that a module imports: at its top, inside functions, or for type checking only."""
    path = known[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            full = [f"{source}.{alias.name}" for alias in node.names]
            names.update(name if name in known else source for name in full)
    return {name for name in names if name.split(".")[0] == "mirilla"}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ENTRANCE


def arrows() -> dict[tuple[str, str], str]:
    """(room, imported room) -> an example, for rooms that differ."""
    known = modules()
    found: dict[tuple[str, str], str] = {}
    for module in known:
        for target in imported(module, known):
            pair = room_of(module), room_of(target)
            if pair[0] != pair[1]:
                found.setdefault(pair, f"{module} imports {target}")
    return found


def test_every_room_is_drawn():
    assert set(drawn_floors()) == {room_of(module) for module in modules()}


def test_every_import_goes_down():
    floors = drawn_floors()
    wrong = [example for (room, target), example in arrows().items() if floors[room] <= floors[target]]
    assert wrong == []


def test_the_program_for_the_kit_stands_alone():
    """It is copied to the kit, where Mirilla is not installed; Mirilla reads its files, but never imports it."""
    known = modules()
    kit = {module for module in known if module.startswith("mirilla.board.kit")}
    assert len(kit) > 10
    for module in known:
        targets = imported(module, known)
        assert targets <= kit if module in kit else not targets & kit, module


def test_no_module_imports_itself_in_a_circle():
    known = modules()
    graph = {name: imported(name, known) for name in known}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for target in graph.get(module, ()):
                visit(target, (*way, module))
            done.add(module)

    for module in known:
        visit(module, ())


def test_the_page_names_modules_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|proto))`", page)
    assert len(named) > 30
    assert [name for name in named if not ((PACKAGE / name).is_file() or (ROOT / name).is_file())] == []
    walks = re.findall(r"^## From .*?(?=^## )", page, re.S | re.M)
    assert len(walks) == 2
    for walk in walks:
        files = re.findall(r"`((?:\w+/)+\w+\.py)`", walk)
        assert sorted(files) == sorted(set(files)), "each file is named once"
