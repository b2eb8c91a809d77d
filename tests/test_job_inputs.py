"""The data sets of a job, divided into training and evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers_job import make
from mirilla.errors import DataError, UsageError
from mirilla.job import inputs
from mirilla.job.options import JobOptions


def options(*datasets: Path, **more) -> JobOptions:
    return JobOptions(tuple(map(str, datasets)), Path("out"), **more)


def names(dataset) -> set[str]:
    return {s.filename.rpartition("/")[2] for s in dataset.samples}


def test_a_share_is_held_out_without_a_split(tmp_path):
    found = inputs.read_inputs(options(make(tmp_path, "a", 30), eval_share=0.3))
    assert len(found.train) + len(found.evaluation) == 30
    assert 3 <= len(found.evaluation) <= 16
    assert not names(found.train) & names(found.evaluation)
    assert any("Held out" in note for note in found.notes)


def test_an_evaluation_set_leaves_all_for_training(tmp_path):
    found = inputs.read_inputs(options(make(tmp_path, "a", 6), eval_dataset=str(make(tmp_path, "b", 3))))
    assert (len(found.train), len(found.evaluation)) == (6, 3)
    assert names(found.evaluation) == {"b0.png", "b1.png", "b2.png"}


def test_a_sets_own_split_is_kept_and_eval_takes_its_eval_part(tmp_path):
    a, b = make(tmp_path, "a", 6), make(tmp_path, "b", 4)
    for folder, held in ((a, ("a1.png",)), (b, ("b0.png", "b3.png"))):
        rows = [f"{p.name},{'eval' if p.name in held else 'train'}" for p in sorted((folder / "images").iterdir())]
        (folder / "split.csv").write_text("\n".join(rows) + "\n")
    found = inputs.read_inputs(options(a, b, eval_dataset=str(b)))
    assert len(found.train) == 7
    assert names(found.evaluation) == {"b0.png", "b3.png"}
    found = inputs.read_inputs(options(a, b))
    assert names(found.evaluation) == {"a1.png", "b0.png", "b3.png"}


def test_the_test_part_is_for_evaluation_if_there_is_no_eval_part(tmp_path):
    a = make(tmp_path, "a", 6)
    parts = {"a1.png": "test", "a2.png": "test"}
    rows = [f"{path.name},{parts.get(path.name, 'train')}" for path in sorted((a / "images").iterdir())]
    (a / "split.csv").write_text("\n".join(rows))
    found = inputs.read_inputs(options(a))
    assert (names(found.evaluation), len(found.train)) == ({"a1.png", "a2.png"}, 4)
    assert any("using its part 'test' instead" in note for note in found.notes)
    parts["a3.png"] = "eval"
    rows = [f"{path.name},{parts.get(path.name, 'train')}" for path in sorted((a / "images").iterdir())]
    (a / "split.csv").write_text("\n".join(rows))
    found = inputs.read_inputs(options(a))
    assert (names(found.evaluation), len(found.train)) == ({"a3.png"}, 3)


def test_a_split_file_divides_the_data_sets(tmp_path):
    split = tmp_path / "split.csv"
    split.write_text("a2.png,eval\nother.png,train\n")
    found = inputs.read_inputs(options(make(tmp_path, "a", 5), split_file=split))
    assert names(found.evaluation) == {"a2.png"}
    assert any("other.png" in note for note in found.notes)
    split.write_text("nothing.png,eval\n")
    with pytest.raises(UsageError, match="none of its 1 names"):
        inputs.read_inputs(options(tmp_path / "a", split_file=split))


def test_the_same_pictures_on_both_sides_are_refused(tmp_path):
    a = make(tmp_path, "a", 5)
    with pytest.raises(DataError, match="5 pictures are in both training and evaluation"):
        inputs.read_inputs(options(a, eval_dataset=str(a)))


def test_unknown_labels_are_refused_with_their_place(tmp_path):
    a, b = make(tmp_path, "a", 4), make(tmp_path, "b", 2, "dog")
    with pytest.raises(DataError, match="label 'dog' is not among the classes of the training data"):
        inputs.read_inputs(options(a, eval_dataset=str(b)))
    label_map = tmp_path / "map.pbtxt"
    label_map.write_text("item { id: 1 name: 'cat' }\n")
    with pytest.raises(DataError, match=r"'face' is not among the label map .*map\.pbtxt"):
        inputs.read_inputs(options(a, label_map=label_map))


def test_findings_about_unlisted_pictures_are_those_of_the_whole_set(tmp_path):
    a = make(tmp_path, "a", 8)
    assert inputs.read_inputs(options(a)).findings == ()
    (a / "images" / "more.png").write_bytes((a / "images" / "a1.png").read_bytes())
    (finding,) = inputs.read_inputs(options(a)).findings
    assert finding.where.endswith("more.png")
