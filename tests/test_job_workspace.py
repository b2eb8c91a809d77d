"""The workspace of a job: its lock, its record of the stages, and --restart."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mirilla.errors import UsageError
from mirilla.job.workspace import Done, NoFacts, Workspace, fingerprint


def test_two_at_once_are_refused(tmp_path):
    with (
        Workspace.open(tmp_path / "job", lambda _: None),
        pytest.raises(UsageError, match="another mirilla"),
        Workspace.open(tmp_path / "job", lambda _: None),
    ):
        pass


def test_a_broken_state_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(Exception, match="damaged"), Workspace.open(tmp_path, lambda _: None):
        pass


def test_restart_removes_only_its_own(tmp_path):
    out = tmp_path / "job"
    with Workspace.open(out, lambda _: None):
        (out / "train").mkdir()
        (out / "mine.txt").write_text("x")
    with Workspace.open(out, lambda _: None, restart=True):
        assert not (out / "train").exists()
        assert (out / "mine.txt").exists()


@dataclass(frozen=True)
class Count:
    n: int


def test_a_stage_is_done_again_when_its_input_changes(tmp_path):
    with Workspace.open(tmp_path, lambda _: None) as workspace:
        done = []

        def work() -> Done[Count]:
            done.append(1)
            (tmp_path / "metrics.json").write_text("x" * len(done))
            return Done((tmp_path / "metrics.json",), Count(len(done)))

        assert workspace.stage("a", fingerprint(1), Count, work) == Count(1)
        assert workspace.stage("a", fingerprint(1), Count, work) == Count(1)
        assert workspace.stage("a", fingerprint(2), Count, work) == Count(2)
        assert workspace.stage("a", fingerprint(2), NoFacts, lambda: Done((), NoFacts())) == NoFacts()  # other facts
