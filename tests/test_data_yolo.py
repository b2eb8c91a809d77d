"""YOLO: exported folders, with and without a data.yaml."""

from __future__ import annotations

import numpy as np

from helpers_data import picture
from mirilla.data import read_dataset


def test_yolo_folders_as_exported(tmp_path):
    for part in ("train", "valid"):
        for kind in ("images", "labels"):
            (tmp_path / part / kind).mkdir(parents=True)
        (tmp_path / part / "images" / "a.jpg").write_bytes(picture(seed=len(part)))
    (tmp_path / "train/labels/a.txt").write_text("1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.5 0.1 0.3 0.6\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['a', 'b']\n")
    found = read_dataset(tmp_path)
    assert found.parts == {"train/a.jpg": "train", "eval/a.jpg": "eval"}
    assert found.samples[0].labels == ("b", "a")
    np.testing.assert_allclose(found.samples[0].boxes_yxyx, [[0.3, 0.4, 0.7, 0.6], [0.1, 0.1, 0.6, 0.5]])
    assert len(found.samples[1]) == 0
    (tmp_path / "train/labels/a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    (problem,) = read_dataset(tmp_path).problems
    assert "class 2 is not in data.yaml's names" in problem.what


def test_yolo_without_a_yaml(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(format="PNG"))
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    found = read_dataset(tmp_path)
    assert found.samples[0].labels == ("0",)
    assert "no names" in found.notes[-1]
