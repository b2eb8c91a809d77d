"""tools/cases.py: its judgement of outcomes, and that no case is left out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from helpers_data import picture


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "tools" / "cases.py"
    spec = importlib.util.spec_from_file_location("tools_cases", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tools_cases"] = module
    spec.loader.exec_module(module)
    return module


def test_every_case_has_a_judgement(cases, shared):
    if not (shared / "cases").is_dir():
        pytest.skip("../shared/cases is missing")
    assert {path.parent.name for path in (shared / "cases").glob("*/data")} == set(cases.RIGHT)


def test_outcome_and_judgement(cases, tmp_path, monkeypatch):
    data = tmp_path / "case" / "data"
    data.mkdir(parents=True)
    (data / "a.jpg").write_bytes(picture(150, 200))
    (data / "labels.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,face,50,30,110,110\n")
    (tmp_path / "work").mkdir()
    case = cases.Case(tmp_path / "case", Path(__file__).resolve().parents[1] / "src", tmp_path / "work")
    runs = cases.outcome(case)
    box = "box: a.jpg face 50 30 110 110"
    assert str(runs[0]) == f"exit 0\n1 usable pictures, 1 boxes, 1 labels: 0 errors, 0 warnings, 0 notes.\n{box}"
    for wanted, right in (
        (("a.jpg face 50 30 110 110", "exit 0"), True),
        (("!error:", "exit 0"), True),
        (("exit 1",), False),
        (("!a.jpg",), False),
    ):
        monkeypatch.setitem(cases.RIGHT, "case", wanted)
        assert cases.is_right("case", runs) is right
    table = cases.table([tmp_path / "case"], {"case": [cases.Run(1, "Traceback: ValueError: a|b")]}, {"case": runs})
    assert table.splitlines()[2] == f"| `case` | exit 1; Traceback: ValueError: a\\|b | exit 0; {box} | no |"
    assert not cases.is_right("case", [cases.Run(0, "Traceback: ValueError: x")])
    monkeypatch.setitem(cases.RIGHT, "case", (cases.REMEDY,))
    wrong, refused = cases.Run(1, "wrong", "a.config"), cases.Run(1, "wrong\n  Remedy: fix it", "b.config")
    assert cases.is_right("case", [refused, cases.Run(0, "fine", "c.config")])
    assert not cases.is_right("case", [wrong, refused])
