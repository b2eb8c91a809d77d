"""Dynamic assignment by hand-worked cases and by what must always hold."""

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mirilla.batches.batch import Batch  # noqa: E402
from mirilla.model.anchors import anchors_yxyx  # noqa: E402
from mirilla.model.layers import architecture  # noqa: E402
from mirilla.model.spec import BoxCoderSpec, ModelSpec  # noqa: E402
from mirilla.training.losses import ClassificationLoss, LocalizationLoss  # noqa: E402
from mirilla.training.matching import BACKGROUND, IGNORED, decode, matched_giou, matched_iou  # noqa: E402
from mirilla.training.simota import SimOtaSpec, anchor_cells, assign_dynamically  # noqa: E402

CODER = BoxCoderSpec()
SPECIFIED = SimOtaSpec()


def batch_of(*pictures, ignored=()):
    """Pictures as lists of boxes; `ignored` holds (picture, object)."""
    most = max((len(p) for p in pictures), default=0)
    boxes = torch.zeros(len(pictures), most, 4)
    valid = torch.zeros(len(pictures), most, dtype=torch.bool)
    out = torch.zeros_like(valid)
    for i, objects in enumerate(pictures):
        for j, box in enumerate(objects):
            boxes[i, j] = torch.tensor(box)
            valid[i, j] = (i, j) not in ignored
            out[i, j] = (i, j) in ignored
    classes = torch.zeros(len(pictures), most, dtype=torch.int64)
    return Batch(boxes, classes, torch.ones(len(pictures), most), valid, out)


def four_cells():
    """A 2x2 map with one anchor of a quarter of the input's side in each cell: (anchors, cells)."""
    centres = torch.tensor([[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]])
    return torch.cat([centres - 0.125, centres + 0.125], 1), torch.full((4, 2), 0.5)


def assigned(batch, anchors, cells, codes=None, logits=None, spec=SPECIFIED, static=False):
    count = len(batch.valid)
    codes = torch.zeros(count, len(anchors), 4) if codes is None else codes
    logits = torch.zeros(count, len(anchors), 2) if logits is None else logits
    return assign_dynamically(codes, logits, batch, anchors, cells, 1, spec, CODER, static)


def test_an_object_that_one_anchor_predicts_exactly_is_learnt_by_it_alone():
    anchors, cells = four_cells()
    targets = assigned(batch_of([anchors[1].tolist()]), anchors, cells)
    assert targets.match.tolist() == [[BACKGROUND, 0, BACKGROUND, BACKGROUND]]
    assert targets.classes[0, 1].tolist() == pytest.approx([0, 1], abs=1e-6)
    assert targets.classes[0, 0].tolist() == [1, 0]
    assert targets.box_weights.tolist() == [[0, 1, 0, 0]]
    assert targets.codes[0, 1].abs().max() < 1e-5


def test_the_class_target_is_the_predicted_boxs_iou():
    anchors, cells = four_cells()
    y0, x0, y1, x1 = anchors[0].tolist()
    half = [y0, x0, y1, (x0 + x1) / 2]  # IoU 0.5 with the anchor, which is what zero codes predict
    targets = assigned(batch_of([half]), anchors, cells)
    assert targets.match[0, 0] == 0
    assert targets.classes[0, 0].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)


def test_the_prediction_decides_not_the_anchor():
    anchors, cells = four_cells()
    codes = torch.zeros(1, 4, 4)
    codes[0, 3, 1] = -0.5 / 0.25 * CODER.x_scale  # the fourth anchor predicts the third one's box
    codes[0, 2, 1] = 10.0  # and the third something else
    targets = assigned(batch_of([anchors[2].tolist()]), anchors, cells, codes)
    assert targets.match.tolist() == [[BACKGROUND, BACKGROUND, BACKGROUND, 0]]


def test_anchors_too_far_away_have_no_say():
    anchors, cells = four_cells()
    codes = torch.zeros(1, 4, 4)
    codes[0, 3, 1] = -0.5 / 0.25 * CODER.x_scale
    codes[0, 2, 1] = 10.0
    spec = SimOtaSpec(center_radius=0.4)
    targets = assigned(batch_of([anchors[2].tolist()]), anchors, cells, codes, spec=spec)
    assert targets.match.tolist() == [[BACKGROUND, BACKGROUND, 0, BACKGROUND]]


def test_an_anchor_that_two_objects_want_goes_to_the_one_it_fits_better():
    anchors, cells = four_cells()
    y0, x0, y1, x1 = anchors[0].tolist()
    worse = [y0, x0, y1, x1 - 0.08]
    targets = assigned(batch_of([worse, anchors[0].tolist()]), anchors, cells, spec=SimOtaSpec(center_radius=0.4))
    assert targets.match.tolist() == [[1, BACKGROUND, BACKGROUND, BACKGROUND]]


def test_an_ignored_object_takes_its_anchors_out_of_the_loss():
    anchors, cells = four_cells()
    batch = batch_of([[0.0, 0.0, 0.5, 0.5], anchors[3].tolist()], ignored={(0, 0)})
    targets = assigned(batch, anchors, cells)
    assert targets.match.tolist() == [[IGNORED, BACKGROUND, BACKGROUND, 1]]
    assert targets.class_weights.tolist() == [[0, 1, 1, 1]]


def test_pictures_without_objects():
    anchors, cells = four_cells()
    for batch in (batch_of([], []), batch_of([], [anchors[0].tolist()])):
        targets = assigned(batch, anchors, cells)
        assert targets.match[0].tolist() == [BACKGROUND] * 4
        assert targets.classes[0].tolist() == [[1, 0]] * 4


SPEC = ModelSpec(height_px=64, width_px=64)
TABLE = architecture(SPEC)
ANCHORS = torch.from_numpy(anchors_yxyx(SPEC.anchors, TABLE.feature_map_shapes, 64, 64))
CELLS = anchor_cells(TABLE)


def test_every_anchor_has_its_maps_cell():
    assert CELLS.shape == (len(ANCHORS), 2)
    assert CELLS[0].tolist() == [1 / 4, 1 / 4]
    assert CELLS[-1].tolist() == [1.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(0, 6))
def test_what_always_holds(seed, first, second):
    generator = torch.Generator().manual_seed(seed)

    def boxes(count):
        low = torch.rand(count, 2, generator=generator) * 0.9
        return torch.cat([low, low + 0.02 + torch.rand(count, 2, generator=generator) * 0.5], 1).tolist()

    batch = batch_of(boxes(first), boxes(second), ignored={(1, 0)} if second else set())
    codes = torch.randn(2, len(ANCHORS), 4, generator=generator)
    logits = torch.randn(2, len(ANCHORS), 2, generator=generator)
    found = assigned(batch, ANCHORS, CELLS, codes, logits)
    fixed = assigned(batch, ANCHORS, CELLS, codes, logits, static=True)
    for name in ("match", "classes", "class_weights", "codes", "box_weights"):
        assert torch.equal(getattr(found, name), getattr(fixed, name)), name
    for picture in range(2):
        matched = found.match[picture][found.match[picture] >= 0].unique().tolist()
        assert all(bool(batch.valid[picture, j]) for j in matched)
        wanted = int(batch.valid[picture].sum())
        assert (len(matched) >= 1) == (wanted >= 1)
    torch.testing.assert_close(found.classes.sum(-1), torch.ones(2, len(ANCHORS)))
    hit = found.match >= 0
    predicted = decode(codes, ANCHORS, CODER)
    index = found.match.clamp(min=0)
    if hit.any():
        objects = batch.boxes_yxyx.gather(1, index[..., None].expand(-1, -1, 4))
        torch.testing.assert_close(found.classes[..., 1][hit], matched_iou(predicted, objects)[hit])


def test_giou_by_hand():
    # two unit squares, one apart: no overlap, union 2, hull 3
    a, b = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 2.0, 1.0, 3.0])
    assert float(matched_giou(a, b)) == pytest.approx(-1 / 3)
    assert float(matched_giou(a, a)) == pytest.approx(1)
    # half over each other: 1/3 - 0
    assert float(matched_giou(a, torch.tensor([0.0, 0.5, 1.0, 1.5]))) == pytest.approx(1 / 3)
    loss = LocalizationLoss("giou")(a[None, None], b[None, None], torch.full((1, 1), 2.0))
    assert loss.tolist() == [[pytest.approx(2 * 4 / 3)]]


def test_quality_focal_loss_by_hand():
    # at logit 0: |t - 1/2|^2 * ln 2 for each column
    logits, targets = torch.zeros(1, 1, 2), torch.tensor([[[0.25, 1.0]]])
    loss = ClassificationLoss("quality_focal", gamma=2.0)(logits, targets, torch.ones(1, 1))
    assert loss.tolist() == [[pytest.approx((0.0625 + 0.25) * 0.6931472)]]
