"""The modules of the kit's program: Python 3.5 syntax, imports, and the archive that is copied to the kit."""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

import mirilla.board.kit
from mirilla.board.payload import program

FOLDER = Path(mirilla.board.kit.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))
ON_THE_KIT = {"aiy", "picamera", "PIL", "gpiozero"}  # imported only inside functions
NEWER_THAN_3_5 = {"dataclasses", "secrets", "contextvars", "graphlib", "zoneinfo", "tomllib"}
SLOW_TO_IMPORT = {"asyncio", "pathlib", "typing"}  # on a Pi Zero

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)


@every_module
def test_syntax_is_python_3_5(path: Path):
    text = path.read_text()
    tree = ast.parse(text, feature_version=(3, 5))
    assert text.isascii()  # Python 3.5 under a bare locale
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert [node for node in ast.walk(tree) if isinstance(node, newer)] == []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            assert not node.args.posonlyargs
        if isinstance(node, ast.comprehension):
            assert not node.is_async
        if isinstance(node, ast.With):
            assert not parenthesized(node, text)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    assert [token.string for token in tokens if token.type == tokenize.NUMBER and "_" in token.string] == []
    assert trailing_commas(tokens) == []


def parenthesized(node: ast.With, text: str) -> bool:
    """Whether `with (a, b):` has its items in parentheses, which needs Python 3.9."""
    line = text.splitlines()[node.lineno - 1][node.col_offset :]
    return line.startswith("with (") and len(node.items) > 1


def trailing_commas(tokens: list[tokenize.TokenInfo]) -> list[int]:
    """Lines of `def` whose parameters have a star and end with a comma, which needs Python 3.6."""
    tokens = [token for token in tokens if token.type not in (tokenize.NL, tokenize.COMMENT)]
    found = []
    for start, token in enumerate(tokens):
        if token.string != "def":
            continue
        depth, star = 0, False
        for i in range(start + 2, len(tokens)):
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(tokens[i].string, 0)
            star = star or (depth == 1 and tokens[i].string in ("*", "**") and tokens[i - 1].string in ("(", ","))
            if depth == 0:
                if star and tokens[i - 1].string == ",":
                    found.append(token.start[0])
                break
    return found


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("def f(a, *b,): pass", [1]),
        ("\ndef f(\n    a,\n    **b,  # note\n): pass", [2]),
        ("def f(*, a,): pass", [1]),
        ("def f(a, *b): pass", []),
        ("def f(a, b=(1,),): return g(*a,)", []),
    ],
)
def test_trailing_commas(text: str, lines: list[int]):
    assert trailing_commas(list(tokenize.generate_tokens(io.StringIO(text).readline))) == lines


@every_module
def test_imports_only_what_the_kit_has(path: Path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module is not None
            assert (FOLDER / f"{node.module}.py").is_file()  # a sibling
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            first = name.split(".")[0]
            assert first in sys.stdlib_module_names or (first in ON_THE_KIT and node.col_offset > 0), name
            assert first not in NEWER_THAN_3_5 | SLOW_TO_IMPORT, name


def test_the_archive_has_every_module_and_is_reproducible(tmp_path: Path):
    content = program()
    assert content == program()
    assert content.startswith(b"#!/usr/bin/env python3\n# ")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        packed = {name: archive.read(name) for name in archive.namelist()}
    main = packed.pop("__main__.py")
    assert b"from mirilla_kit.__main__ import main" in main
    assert packed == {f"mirilla_kit/{path.name}": path.read_bytes() for path in [*MODULES, FOLDER / "page.html"]}


def old_pythons() -> list[str]:
    """Python 3.5, 3.6 and 3.7, where they are installed."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for name in ("3.5", "3.6", "3.7"):
        for python in [*sorted(versions.glob(f"{name}.*/bin/python")), shutil.which(f"python{name}")]:
            # pyenv leaves shims of versions that are not installed
            if python and subprocess.run([str(python), "-V"], capture_output=True).returncode == 0:
                found.append(str(python))
    return found


def test_old_interpreters_run_it(tmp_path: Path):
    pythons = old_pythons()
    if not pythons:
        pytest.skip("Python 3.5, 3.6 and 3.7 are not installed")
    script = tmp_path / "mirilla_kit.py"
    script.write_bytes(program())
    read_page = "import pkgutil, sys; sys.path.insert(0, sys.argv[1]); "
    read_page += "print(pkgutil.get_data('mirilla_kit', 'page.html'))"

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(list(map(str, words)), capture_output=True, text=True)

    for python in pythons:
        done = run(python, script, "--help")
        assert done.returncode == 0, done.stderr
        assert "--alert-min-frames" in done.stdout
        done = run(python, script)
        assert (done.returncode, "no compiled model" in done.stderr) == (1, True)  # in the program's own folder
        assert "<!doctype html>" in run(python, "-c", read_page, script).stdout
