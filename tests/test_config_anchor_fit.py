"""The report of the anchor fit, by hand and against plain IoU over all anchors; the fit; the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla import boxes, config
from mirilla.cli.main import main
from mirilla.config import anchor_fit, zoo
from mirilla.config.to_spec import model_spec, write_anchors
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.layers import architecture
from mirilla.model.spec import AnchorSpec, ModelSpec

STRIDE_8 = ModelSpec(
    anchors=AnchorSpec(num_layers=6, boxes=tuple(((0.05 * 2**i, 0.04 * 2**i),) for i in range(6))),
    feature_maps=zoo.STRIDE_8_MAPS,
)
MULTISCALE = ModelSpec(anchors=AnchorSpec(min_level=4, aspect_ratios=(1.0, 0.5)))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([ModelSpec(), STRIDE_8, MULTISCALE, ModelSpec(height_px=128, width_px=192)]),
    st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1),
)  # fmt: skip
def test_the_nearest_location_is_the_best_of_all(spec, y, x, height, width):
    """`ious_at` looks at one location per map; its IoU is the best of all anchors."""
    table = architecture(spec)
    all_anchors = anchors_yxyx(spec.anchors, table.feature_map_shapes, spec.height_px, spec.width_px)
    box = np.array([[y - height / 2, x - width / 2, y + height / 2, x + width / 2]])
    wanted = boxes.iou(box, all_anchors.astype(np.float64)).max()
    assert anchor_fit.ious_at(np.array([y, x, height, width]), spec).max() == pytest.approx(wanted, abs=1e-5)


def test_report_by_hand():
    """One map of one place, one anchor of 1/2 x 1/2 in the middle: an object that fills the input has IoU 1/4, one of
    the anchor's size between 1 and (1/4 * 1/4) / (2 * 1/4 - 1/16) = 1/7, by where it lies."""
    spec = replace(STRIDE_8, anchors=replace(STRIDE_8.anchors, boxes=(*[((1e-6, 1e-6),)] * 5, ((0.5, 0.5),))))
    whole = anchor_fit.report(np.array([[1.0, 1.0]]), spec)
    assert (whole.overall.objects, whole.overall.reached) == (1, 0.0)
    assert whole.overall.mean_iou == pytest.approx(0.25)
    assert whole.by_map[-1].share_of_objects == 1
    assert [row.objects for row in whole.by_size] == [0] * 9 + [1]
    placed = anchor_fit.best_ious(np.full((50, 2), 0.5), spec)[..., -1]
    assert 1 / 7 <= placed.min() < 0.2
    assert 0.9 < placed.max() <= 1
    lines = whole.lines()
    assert len(lines) == 6
    assert "100.0%" in lines[-1]


def test_no_objects_is_an_error():
    with pytest.raises(DataError):
        anchor_fit.report(np.zeros((0, 2)), ModelSpec())


def sample(height_px: int, width_px: int, boxes_yxyx, ignore=()) -> Sample:
    return Sample(
        b"",
        "a.jpg",
        height_px,
        width_px,
        np.array(boxes_yxyx),
        ("face",) * len(boxes_yxyx),
        ignore=np.array(ignore, bool),
    )


def test_sizes_as_the_network_sees_them():
    """A photo of 100x200: squashed, shares stay; letterboxed, it takes half of the input's height."""
    photo = sample(100, 200, [[0.2, 0.1, 0.6, 0.3], [0, 0, 0, 0.5], [0, 0, 1, 1]], np.array([False, False, True]))
    np.testing.assert_allclose(anchor_fit.object_sizes([photo], ModelSpec()), [[0.4, 0.2]])
    letterboxed = ModelSpec(keep_aspect_ratio=True)
    np.testing.assert_allclose(anchor_fit.object_sizes([photo], letterboxed), [[0.2, 0.2]])
    pipeline = config.sample(1, "a", "b", "c")
    np.testing.assert_allclose(anchor_fit.training_sizes([photo], pipeline), [[0.4, 0.2]])
    mix = pipeline.mirilla.augmentation.add().aspect_mix
    mix.SetInParent()
    np.testing.assert_allclose(anchor_fit.training_sizes([photo], pipeline), [[0.4, 0.2], [0.2, 0.2]])
    mix.letterbox_probability = 1
    np.testing.assert_allclose(anchor_fit.training_sizes([photo], pipeline), [[0.2, 0.2]])


def faces(count: int = 3000) -> np.ndarray:
    """Many small ones and few large ones, a quarter higher than wide."""
    random = np.random.default_rng(0)
    side = np.clip(0.04 * np.exp(random.exponential(0.8, count)), 0.02, 0.9)
    ratio = np.exp(random.normal(np.log(1.25), 0.1, count))
    return np.stack([side * np.sqrt(ratio), side / np.sqrt(ratio)], 1)


@pytest.mark.parametrize("name", ["kit", "kit-s8"])
def test_fitted_anchors_fit_better(name):
    pipeline = config.sample(1, "a", "b", "c")
    zoo.apply(name, pipeline)
    spec, sizes = model_spec(pipeline), faces()
    counts = [p.anchors for p in architecture(spec).predictors]
    before = anchor_fit.report(sizes, spec)
    fitted = anchor_fit.fit_spec(spec, sizes)
    assert [len(boxes) for boxes in fitted] == counts
    write_anchors(pipeline, fitted)
    assert config.check(pipeline, ("model",))[0].severity == "note"
    after = anchor_fit.report(sizes, model_spec(pipeline))
    assert after.overall.mean_iou > before.overall.mean_iou + 0.01
    assert after.overall.reached > before.overall.reached + 0.02
    assert fitted == anchor_fit.fit_spec(spec, sizes[::-1])  # the order of the objects does not matter


def test_small_faces_have_anchors_on_the_finest_map():
    for shapes, counts in ((((16, 16), (8, 8), (4, 4)), (3, 6, 6)), (((32, 32), (16, 16), (8, 8)), (2, 3, 6))):
        for sizes in (faces(), ()):
            sides = [np.sqrt(np.prod(boxes, 1)) * 256 for boxes in anchor_fit.fit(sizes, shapes, counts)]
            assert ((sides[0] > 8) & (sides[0] < 26)).sum() == 2
            for map_sides in sides:  # spread: smallest first, each step a factor
                assert (map_sides[1:] / map_sides[:-1] > 1.04).all()


def test_without_objects_sizes_are_evenly_spread():
    """Range of the second map: 1/16 to 3/16; two anchors at the quarters of its logarithm."""
    made = anchor_fit.fit((), [(32, 32), (16, 16)], [1, 2])
    wanted = [1 / 16 * 3 ** (1 / 4), 1 / 16 * 3 ** (3 / 4)]
    np.testing.assert_allclose(made[1], [[w, w] for w in wanted], atol=1e-5)


def test_the_samples_anchors_fit_few_widerface_faces(shared):
    """An independent measurement of the sample's anchors on WIDER FACE's validation faces (letterboxed) said 30, 16 and
    7 % for easy, medium and hard. The pictures are 1024 px wide; their heights are not in the files, and matter for
    the few that are higher than wide."""
    scipy_io = pytest.importorskip("scipy.io")
    folder, spec = shared / "data/wider_eval", ModelSpec(keep_aspect_ratio=True)
    all_faces = scipy_io.loadmat(folder / "wider_face_val.mat")["face_bbx_list"][:, 0]
    for level, wanted in (("easy", 0.30), ("medium", 0.16), ("hard", 0.07)):
        chosen = scipy_io.loadmat(folder / f"wider_{level}_val.mat")["gt_list"][:, 0]
        sizes = []
        for pictures, indices in zip(all_faces, chosen, strict=True):
            for given_boxes, index in zip(pictures[:, 0], indices[:, 0], strict=True):
                rows = np.asarray(given_boxes, float).reshape(-1, 4)
                side = max(1024, (rows[:, 1] + rows[:, 3]).max(initial=0))
                sizes.append(rows[np.asarray(index, int).reshape(-1) - 1][:, [3, 2]] / side)
        joined = np.concatenate(sizes)
        found = anchor_fit.report(joined[(joined > 0).all(1)], spec).overall
        assert found.reached == pytest.approx(wanted, abs=0.012)


@pytest.fixture
def dataset(tmp_path):
    from PIL import Image

    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (200, 100)).save(folder / "a.png")
    rows = [f"a.png,200,100,face,{10 + i},{10 + i},{20 + 2 * i},{24 + 2 * i}" for i in range(30)]
    (folder / "labels.csv").write_text("\n".join(["filename,width,height,class,xmin,ymin,xmax,ymax", *rows]) + "\n")
    return folder


def test_command_reports_fits_and_writes(dataset, tmp_path, capsys):
    given_config = tmp_path / "pipeline.config"
    config.save(given_config, config.sample(1, "a.tfrecord", "b.tfrecord", "labels.pbtxt"))
    assert main(["data", "anchors", str(dataset)]) == 0
    assert "16x16" in capsys.readouterr().out
    out = tmp_path / "fitted.config"
    asked = ["data", "anchors", str(dataset), "--pipeline-config", str(given_config), "--write", str(out), "--json"]
    assert main(asked) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["before"]["overall"]["objects"] == 30 == said["after"]["overall"]["objects"]
    spec = model_spec(config.load(out))
    assert [len(boxes) for boxes in spec.anchors.boxes] == [3, 6, 6, 6, 6]
    np.testing.assert_allclose(spec.anchors.boxes[0], said["after"]["boxes"][0], atol=1e-6)
    assert main(["data", "anchors", str(dataset), "--write", str(out)]) != 0
    assert main(["data", "anchors", str(dataset), "--model", "kit-x"]) != 0
