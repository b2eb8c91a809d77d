"""Batches made on the device, and steps that wait for nothing, on the device that every machine has: the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from helpers_batches import Fixed, Pictures, Shown, batches_of, objects  # noqa: E402
from helpers_distributed import small_pipeline  # noqa: E402
from mirilla import shipped  # noqa: E402
from mirilla.batches import api_colours as colours  # noqa: E402
from mirilla.batches import api_geometry as geometry  # noqa: E402
from mirilla.batches.api_crops import RandomCrop  # noqa: E402
from mirilla.batches.dataset import open_training_set  # noqa: E402
from mirilla.batches.framing import AspectMix, ObjectZoom, ZoomOut  # noqa: E402
from mirilla.batches.gpu_batches import GpuBatches, unsupported  # noqa: E402
from mirilla.batches.gpu_effects import jpeg_coded  # noqa: E402
from mirilla.batches.gpu_pictures import upload  # noqa: E402
from mirilla.batches.host_batches import Batches  # noqa: E402
from mirilla.batches.mosaic import InputRecipe, Mosaic  # noqa: E402
from mirilla.batches.paint import HostPainter, to_uint8  # noqa: E402
from mirilla.batches.photo_effects import Blur, Grey, JpegTraces, Noise, PhotoEffects, Photometric  # noqa: E402
from mirilla.config.to_spec import model_spec  # noqa: E402
from mirilla.errors import MirillaError  # noqa: E402
from mirilla.model.spec import ModelSpec  # noqa: E402
from mirilla.training.learner import Learner  # noqa: E402
from mirilla.training.plan import training_plan  # noqa: E402
from mirilla.training.step import AHEAD, DeviceSteps, static_objective  # noqa: E402
from mirilla.weights import load as weights  # noqa: E402

CPU = torch.device("cpu")
EVERYTHING = InputRecipe(
    Mosaic(0.5),
    ZoomOut(),
    ObjectZoom(),
    AspectMix(),
    PhotoEffects(Photometric(), Grey(0.3), Blur(0.3), Noise(0.3), JpegTraces(0.3)),
)


def drawn(count=6, sizes=(60, 160), seed=0):
    """Smooth grey pictures with bright rectangles, and these as objects."""
    rng = np.random.default_rng(seed)
    pictures, labelled = [], []
    for _ in range(count):
        height, width = rng.integers(*sizes, 2)
        picture = np.full((height, width, 3), 40, np.uint8)
        y, x, h, w = *rng.integers(4, 20, 2), *rng.integers(16, 36, 2)
        picture[y : y + h, x : x + w] = (250, 250, 20)
        pictures.append(picture)
        labelled.append(objects([[y / height, x / width, (y + h) / height, (x + w) / width]]))
    return pictures, labelled


def device_batches(pictures, labelled, spec, augmentations=(), recipe=None, batch=8, **more):
    host = batches_of(pictures, labelled, spec, batch, augmentations, 3, recipe=recipe, **more)
    return GpuBatches(upload(Pictures(pictures), CPU, 4), host)


def batch_of(batches, step):
    batches.prepare(step)
    return batches.batch(torch.tensor(step))


@pytest.mark.parametrize("letterbox", [False, True])
def test_pixels_are_those_of_the_host(letterbox):
    spec = ModelSpec(height_px=96, width_px=96, keep_aspect_ratio=letterbox)
    made = device_batches(*drawn(), spec, batch=6, shuffle=False)
    images, expected = made.host.batch(0)
    pixels, batch = batch_of(made, 0)
    away = np.abs(pixels.permute(0, 2, 3, 1).numpy() - images.numpy())
    assert away.mean() < 0.2  # OpenCV counts in 1/32 of a pixel
    assert away.max() <= 255 / 32 + 1
    np.testing.assert_allclose(batch.boxes_yxyx, expected.boxes_yxyx, atol=1e-6)
    np.testing.assert_array_equal(batch.valid, expected.valid)


def smooth(count=9, seed=0):
    """Pictures without edges, of which sampling a little elsewhere shows nearly the same."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(60, 500, 2))
        few = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        pictures.append(cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC))
    return pictures, [objects([[0.2, 0.3, 0.7, 0.8]]) for _ in range(count)]


def test_inputs_of_a_recipe_are_those_of_the_host():
    """Tiles, fills, noise, light, colours and blur; JPEG is compared below."""
    recipe = replace(EVERYTHING, effects=replace(EVERYTHING.effects, jpeg_traces=None))
    spec = ModelSpec(height_px=128, width_px=160)
    made = device_batches(*smooth(), spec, (geometry.horizontal_flip,), recipe, batch=24)
    for step in range(4):
        images, expected = made.host.batch(step)
        pixels, batch = batch_of(made, step)
        away = np.abs(pixels.permute(0, 2, 3, 1).numpy() - images.numpy())
        assert away.mean() < 0.6
        assert (away > 8).mean() < 0.01  # at the edges of tiles that are blurred
        width = expected.valid.shape[1]
        np.testing.assert_allclose(batch.boxes_yxyx[:, :width], expected.boxes_yxyx, atol=1e-6)
        np.testing.assert_array_equal(batch.valid[:, :width], expected.valid)
        np.testing.assert_array_equal(batch.ignored[:, :width], expected.ignored)
        assert not batch.valid[:, width:].any()


@pytest.mark.parametrize("recipe", [None, EVERYTHING])
def test_boxes_stay_on_their_objects(recipe):
    pictures, labelled = drawn(12)
    spec = ModelSpec(height_px=128, width_px=128)
    if recipe is not None:  # what changes geometry alone
        recipe = replace(recipe, effects=PhotoEffects())
    steps = (geometry.horizontal_flip, geometry.vertical_flip, RandomCrop())
    batches = device_batches(pictures, labelled, spec, steps, recipe, batch=16)
    seen = 0
    for step in range(2):
        pixels, batch = batch_of(batches, step)
        yellow = (pixels[:, 0] > 200) & (pixels[:, 2] < 60)
        for image, boxes, valid in zip(yellow, batch.boxes_yxyx, batch.valid, strict=True):
            for y0, x0, y1, x1 in (boxes[valid] * 128).tolist():
                if y1 - y0 < 6 or x1 - x0 < 6:
                    continue
                seen += 1
                inside = image[round(y0) + 2 : round(y1) - 2, round(x0) + 2 : round(x1) - 2]
                assert inside.float().mean() > 0.97
                for row, column in ((y0 - 4, (x0 + x1) / 2), ((y0 + y1) / 2, x0 - 4)):
                    if row >= 0 and column >= 0 and recipe is None:
                        assert not image[int(row), int(column)]
    assert seen > 10


def test_a_batch_depends_on_seed_step_and_place_alone():
    pictures, labelled = drawn()
    spec = ModelSpec(height_px=64, width_px=64)
    steps = (geometry.horizontal_flip, RandomCrop())
    whole_batch = batch_of(device_batches(pictures, labelled, spec, steps, EVERYTHING, batch=5), 9)
    late = device_batches(pictures, labelled, spec, steps, EVERYTHING, batch=5)
    batch_of(late, 3)
    part = batch_of(device_batches(pictures, labelled, spec, steps, EVERYTHING, batch=5, part=slice(2, 5)), 9)
    for name in ("boxes_yxyx", "valid", "ignored"):
        assert torch.equal(getattr(batch_of(late, 9)[1], name), getattr(whole_batch[1], name))
        assert torch.equal(getattr(part[1], name), getattr(whole_batch[1], name)[2:])
    assert torch.equal(batch_of(late, 9)[0], whole_batch[0])
    assert torch.equal(part[0], whole_batch[0][2:])
    assert not torch.equal(batch_of(late, 10)[0], whole_batch[0])


def test_no_mosaics_in_the_last_share():
    pictures, labelled = drawn()
    spec = ModelSpec(height_px=64, width_px=64)
    recipe = InputRecipe(Mosaic(1.0, off_share=0.5))
    batches = device_batches(pictures, labelled, spec, recipe=recipe, total_steps=10)
    assert int((batch_of(batches, 4)[1].valid.sum(1) + batch_of(batches, 4)[1].ignored.sum(1)).max()) > 1
    assert int((batch_of(batches, 5)[1].valid.sum(1) + batch_of(batches, 5)[1].ignored.sum(1)).max()) == 1


@pytest.mark.parametrize(
    "step",
    [
        colours.AdjustBrightness(0.2),
        colours.AdjustContrast(),
        colours.AdjustSaturation(),
        colours.AdjustHue(),
        colours.DistortColour(),
        colours.RgbToGrey(1.0),
    ],
)
def test_colours_change_as_on_the_host(step):
    """With 0.3 of every range."""
    rng = np.random.default_rng(0)
    picture = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), 8, 0), 8, 1)

    def fixed(draws, examples):
        return step(Fixed(0.3, count=len(examples)), examples)

    shown = Shown(picture).after(step, Fixed(0.3))
    expected = to_uint8(HostPainter(shown.pictures).resample(shown.examples, 0, 64, 64))
    made = device_batches([picture], [objects()], ModelSpec(height_px=64, width_px=64), (fixed,), batch=1)
    pixels, _ = batch_of(made, 0)
    assert np.abs(pixels[0].permute(1, 2, 0).numpy() - expected).max() <= 1.0


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_leaves_what_a_coder_leaves(quality):
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (72, 56), interpolation=cv2.INTER_CUBIC)
    coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    found = jpeg_coded(torch.from_numpy(picture).permute(2, 0, 1)[None].float(), torch.tensor([float(quality)]))
    found = found[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).mean() < 0.25 * np.abs(expected - picture).mean() + 0.5
    assert np.abs(found - picture).mean() == pytest.approx(np.abs(expected - picture).mean(), rel=0.15)


def test_unsupported_augmentations_are_named():
    assert unsupported((geometry.horizontal_flip, RandomCrop()), None, False) is None
    assert unsupported((geometry.rotation90,), None, False) == "rotation90"
    assert "mirilla.augmentation" in unsupported((colours.AdjustHue(),), EVERYTHING, False)


def test_too_many_pictures():
    pictures = Pictures(drawn()[0])
    with pytest.raises(MirillaError, match="6 decoded pictures take"):
        upload(pictures, CPU, room_bytes=1000)


# ---- the step --------------------------------------------------------------------------------------------------------


def prepared(tmp_path, dynamic=False, recipe=None, precision="float32"):
    pipeline = small_pipeline(tmp_path)
    pipeline.train_config.optimizer.use_moving_average = True
    if dynamic:
        pipeline.mirilla.dynamic_assigner.SetInParent()
        pipeline.mirilla.quality_focal_loss.SetInParent()
        pipeline.mirilla.giou_loss.SetInParent()
    spec = model_spec(pipeline)
    plan = training_plan(pipeline, spec)
    data = open_training_set(pipeline, spec, tmp_path / "cache")
    host = Batches(data.pictures, data.objects, spec, plan.batch_size, plan.augmentations, 0, recipe=recipe)
    made = GpuBatches(upload(data.pictures, CPU, 4), host)
    learners = [Learner(spec, plan, CPU, precision=precision) for _ in range(2)]
    for learner in learners:
        learner.network.use_kernels = False
    static = static_objective(plan.objective, len(learners[0].anchors))
    assert static is not None
    learners[0].plan = replace(plan, objective=static)
    return learners, made


def state_of(learner):
    """All that a step changes."""
    return [learner.parameters.weights, *learner.state.vectors().values(), *learner.network.buffers()]


@pytest.mark.parametrize("dynamic", [False, True])
def test_steps_on_the_device_are_the_trainers(tmp_path, dynamic):
    (static, ordinary), made = prepared(tmp_path, dynamic)
    runner = DeviceSteps(static, made, captured=False)
    for step in range(3):
        pixels, batch = batch_of(made, step)
        images = pixels.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
        for mine, theirs in zip(state_of(ordinary), state_of(static), strict=True):
            mine.copy_(theirs)  # so that no step's roundings are seen through the next
        expected, found = ordinary.step(images, batch), runner.step()
        for name in ("total", "localization", "classification", "positives"):
            assert getattr(found, name).item() == pytest.approx(getattr(expected, name).item(), rel=1e-5), name
        for mine, theirs in zip(state_of(static), state_of(ordinary), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert static.state.step == ordinary.state.step == 3


class NothingThatWaits(TorchDispatchMode):
    """Fails where an operation would need the device's answer, or a number that the host sends."""

    forbidden = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "item", "unique", "_to_cpu")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.forbidden, name
        if name in ("index", "index_put_"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "a mask as index"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", ["sample", "dynamic", "recipe"])
def test_a_step_waits_for_nothing(tmp_path, case):
    (static, _), made = prepared(tmp_path, case == "dynamic", EVERYTHING if case == "recipe" else None)
    runner = DeviceSteps(static, made, captured=False)
    runner.step()  # which sends constants
    before = static.parameters.weights.clone()
    with NothingThatWaits():
        runner.update()
    assert not torch.equal(before, static.parameters.weights)


def test_tables_are_filled_for_each_step(tmp_path, monkeypatch):
    (static, _), made = prepared(tmp_path)
    runner = DeviceSteps(static, made, captured=False)
    runner._prepare(AHEAD + 5)
    numbers = made.host.indices(AHEAD + 5)
    columns = made._table.of_step(torch.tensor(0))
    assert columns["tile start"][:, 0].tolist() == made.pictures.starts[0, numbers].tolist()
    rate, _ = static.state.factors(static.plan.schedule(AHEAD + 6), AHEAD + 6)
    assert float(runner._factors[1, 0]) == pytest.approx(rate)


def test_bfloat16_is_near(tmp_path):
    """For a trained network: a fresh one's gradient turns round with the last bits, in float32, too."""
    (static, ordinary), made = prepared(tmp_path)
    trained = weights.load_weights(shipped.default_weights()).variables
    for learner in (static, ordinary):
        fresh = learner.network.get_weights()
        fits = {n: a for n, a in trained.items() if n in fresh and fresh[n].shape == a.shape}
        assert len(fits) > 100
        learner.network.set_weights(fresh | fits)
    static.precision = "bfloat16"
    pixels, batch = batch_of(made, 0)
    x = pixels / 127.5 - 1
    near, exact = static.learn(x, batch), ordinary.learn(x, batch)
    assert near.total.item() == pytest.approx(exact.total.item(), rel=0.03)
    assert static.parameters.gradient.dtype == static.network.layers[0].moving_mean.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(static.parameters.gradient, ordinary.parameters.gradient, dim=0)
    assert float(cosine) > 0.8
