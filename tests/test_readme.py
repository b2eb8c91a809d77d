"""The README's commands are those that are run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_ci_runs_the_test_command():
    command = blocks()[1].strip()
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_verb_of_the_readme_exists():
    verbs = set(re.findall(r"^mirilla (\w+)", "\n".join(blocks()), re.M))
    assert len(verbs) == 5
    for verb in verbs:
        command = [sys.executable, "-m", "mirilla.cli.main", verb, "--help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"usage: mirilla {verb}" in done.stdout


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(ROOT) for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")]), ids=str
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_help_imports_nothing_slow():
    code = (
        "import sys; from mirilla.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'cv2', 'PIL', 'rich', 'tensorboard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
