"""Toy scenes: the same from the same seed, in WIDER FACE's own layout, with boxes where the faces are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mirilla.data import read_dataset
from mirilla.errors import MirillaError
from mirilla.toy import dataset as toy
from mirilla.toy.scene import Scene, Stage, draw_scene

SEED = 8  # its first 60 scenes have faces of all sizes


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(SEED, "train", i) for i in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return toy.write(tmp_path_factory.mktemp("toy") / "set", train=30, val=6, seed=SEED)


def test_the_same_seed_draws_the_same_picture(scenes):
    again = draw_scene(SEED, "train", 11)
    assert again.faces == scenes[11].faces
    assert again.picture.tobytes() == scenes[11].picture.tobytes()


def test_other_seeds_splits_and_indices_draw_other_pictures(scenes):
    others = [draw_scene(9, "train", 0), draw_scene(SEED, "val", 0), *scenes]
    assert len({hashlib.sha256(s.picture.tobytes()).digest() for s in others}) == len(others)


def test_boxes_lie_inside_the_picture(scenes):
    for scene in scenes:
        for face in scene.faces:
            assert face.left_px >= 0
            assert face.top_px >= 0
            assert face.left_px + face.width_px <= scene.picture.width
            assert face.top_px + face.height_px <= scene.picture.height


def test_scenes_are_varied(scenes):
    heights = [f.height_px * 256 / max(s.picture.size) for s in scenes for f in s.faces]
    assert min(heights) < 16
    assert max(heights) > 120
    assert len({s.kind for s in scenes}) >= 6
    assert any(not s.faces for s in scenes)
    assert len({s.picture.size for s in scenes}) >= 5
    flags = np.array(
        [(f.blur, f.expression, f.illumination, f.invalid, f.occlusion, f.pose) for s in scenes for f in s.faces]
    )
    assert (flags.max(axis=0) >= 1).all()  # every flag occurs
    assert (flags.min(axis=0) == 0).all()
    assert flags[:, 3].mean() < 0.2  # few do not count


def test_the_box_is_around_the_face():
    """The picture changes inside a face's box, and around it only a body's and hair's length away."""
    rng = np.random.default_rng(3)
    from PIL import Image

    stage = Stage(rng, Image.new("RGB", (800, 600), (0, 255, 0)))
    stage.add_face(100.0)
    (face,) = stage.faces
    x0, y0, x1, y1 = face.box
    seen = np.argwhere(np.asarray(stage.visible) == 1)
    assert face.area > 0
    top, left = seen.min(axis=0)
    bottom, right = seen.max(axis=0) + 1
    assert abs(left - x0) <= 12 or left == 0
    assert abs(right - x1) <= 12 or right == 400
    assert abs(bottom - y1) <= 12 or bottom == 300
    assert abs(top - y0) <= 22 or top == 0  # hair reaches over the forehead


def test_layout_is_wider_faces_own(folder):
    lines = (folder / "wider_face_split" / "wider_face_train_bbx_gt.txt").read_text().splitlines()
    at, pictures, empty = 0, 0, 0
    while at < len(lines):
        assert (folder / "WIDER_train" / "images" / lines[at]).is_file()
        count = int(lines[at + 1])
        rows = lines[at + 2 : at + 2 + max(count, 1)]
        assert all(len(row.split()) == 10 for row in rows)
        if count == 0:
            assert rows == ["0 0 0 0 0 0 0 0 0 0"]
            empty += 1
        pictures += 1
        at += 2 + max(count, 1)
    assert pictures == 30
    assert empty


def test_reads_back_as_written(folder):
    dataset = read_dataset(folder)
    assert len(dataset) == 36
    assert len(dataset.part("eval")) == 6
    by_name = {Path(s.filename).stem.rpartition("_")[2]: s for s in dataset.part("train").samples}
    for i in range(30):
        scene, sample = draw_scene(SEED, "train", i), by_name[str(i)]
        assert (sample.width_px, sample.height_px) == scene.picture.size
        expected = [(f.left_px, f.top_px, f.left_px + f.width_px, f.top_px + f.height_px) for f in scene.faces]
        np.testing.assert_allclose(sample.boxes_px_xyxy, np.array(expected, float).reshape(-1, 4), atol=1e-6)
        assert sample.ignore.tolist() == [bool(f.invalid) for f in scene.faces]


def test_an_error_when_the_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MirillaError, match="Not a directory"):
        toy.write(tmp_path / "file" / "set", train=1, val=1)
