"""Batches made on the device, and steps that wait for nothing, on the device that every machine has: the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
scipy_stats = pytest.importorskip("scipy.stats")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from helpers_distributed import small_pipeline  # noqa: E402
from mirilla import shipped  # noqa: E402
from mirilla.batches import augment_colour as colour  # noqa: E402
from mirilla.batches import augment_geometry as geometry  # noqa: E402
from mirilla.batches.crop import SSD_CROPS, draw_crop  # noqa: E402
from mirilla.batches.dataset import open_training_set  # noqa: E402
from mirilla.batches.framing import AspectMix, Framing, ObjectZoom, ZoomOut  # noqa: E402
from mirilla.batches.gpu_batches import AHEAD, DeviceBatches, not_batched  # noqa: E402
from mirilla.batches.gpu_framing import _fill, _windows, plain  # noqa: E402
from mirilla.batches.gpu_photo_effects import jpeg_coded  # noqa: E402
from mirilla.batches.gpu_pictures import upload, upload_objects  # noqa: E402
from mirilla.batches.gpu_random import Draws, mixed  # noqa: E402
from mirilla.batches.gpu_sampling import resample  # noqa: E402
from mirilla.batches.gpu_views import RandomCrop, batched, whole  # noqa: E402
from mirilla.batches.input import Arrays, Batches, Objects, render  # noqa: E402
from mirilla.batches.input import whole as whole_view  # noqa: E402
from mirilla.batches.mosaic import InputRecipe, Mosaic  # noqa: E402
from mirilla.batches.paint import Fill  # noqa: E402
from mirilla.batches.photo_effects import Blur, Finish, Grey, JpegTraces, Noise, Photometric  # noqa: E402
from mirilla.config.to_spec import model_spec  # noqa: E402
from mirilla.errors import MirillaError  # noqa: E402
from mirilla.model.spec import ModelSpec  # noqa: E402
from mirilla.training.learner import Learner  # noqa: E402
from mirilla.training.plan import training_plan  # noqa: E402
from mirilla.training.step import DeviceSteps, static_objective  # noqa: E402
from mirilla.weights import read as weights  # noqa: E402

CPU = torch.device("cpu")
EVERYTHING = InputRecipe(
    Mosaic(0.5),
    ZoomOut(),
    ObjectZoom(),
    AspectMix(),
    Finish(Photometric(), Grey(0.3), Blur(0.3), Noise(0.3), JpegTraces(0.3)),
)


class Pictures:
    """Decoded pictures, as the cache gives them."""

    def __init__(self, pictures):
        self.pictures = pictures
        self.shapes = np.array([p.shape[:2] for p in pictures])

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i]


def drawn(count=6, sizes=(60, 160), seed=0):
    """Smooth grey pictures with bright rectangles, and these as objects."""
    rng = np.random.default_rng(seed)
    pictures, objects = [], []
    for _ in range(count):
        height, width = rng.integers(*sizes, 2)
        picture = np.full((height, width, 3), 40, np.uint8)
        y, x, h, w = *rng.integers(4, 20, 2), *rng.integers(16, 36, 2)
        picture[y : y + h, x : x + w] = (250, 250, 20)
        pictures.append(picture)
        box = np.array([[y / height, x / width, (y + h) / height, (x + w) / width]])
        objects.append(Objects(box, np.zeros(1, np.int64), np.ones(1), np.zeros(1, bool)))
    return Pictures(pictures), objects


def device_batches(pictures, objects, spec, augmentations=(), recipe=None, batch=8, part=slice(None), **more):
    host = Batches(pictures, objects, spec, batch, augmentations, 3, recipe=recipe, part=part, **more)
    return DeviceBatches(upload(pictures, CPU, 4), upload_objects(objects, CPU), host)


def batch_of(batches, step):
    batches.prepare(step)
    return batches.batch(torch.tensor(step))


def test_numbers_are_even_and_their_own():
    draws = Draws(5, torch.tensor(7), torch.arange(400))
    first, second = draws.uniform(50), draws.uniform(50)
    for numbers in (first, second):
        assert scipy_stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1].flatten(), first[1:].flatten())[0, 1]) < 0.03
    again = Draws(5, torch.tensor(7), torch.arange(10, 20)).uniform(50)
    assert torch.equal(again, first[10:20])  # of seed, step and place alone
    assert not torch.equal(Draws(5, torch.tensor(8), torch.arange(400)).uniform(50), first)
    # splitmix64's published first output for the seed 0
    assert int(mixed(torch.tensor(1))) & (2**64 - 1) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("letterbox", [False, True])
def test_pixels_are_those_of_the_host(letterbox):
    pictures, objects = drawn()
    spec = ModelSpec(height_px=96, width_px=96, keep_aspect_ratio=letterbox)
    host = Batches(pictures, objects, spec, 6, (), 0, shuffle=False).batch(0)
    made = DeviceBatches(
        upload(pictures, CPU), upload_objects(objects, CPU), Batches(pictures, objects, spec, 6, (), 0, shuffle=False)
    )
    pixels, batch = batch_of(made, 0)
    away = np.abs(pixels.permute(0, 2, 3, 1).numpy() - host.images)
    assert away.mean() < 0.2  # OpenCV counts in 1/32 of a pixel
    assert away.max() <= 255 / 32 + 1
    np.testing.assert_allclose(batch.boxes_yxyx, host.boxes_yxyx, atol=1e-6)
    np.testing.assert_array_equal(batch.valid, host.valid)


def test_crops_are_distributed_as_the_hosts():
    boxes = np.array([[0.1, 0.2, 0.4, 0.5], [0.5, 0.55, 0.62, 0.7], [0.2, 0.7, 0.9, 0.95]])
    rng = np.random.default_rng(1)
    theirs = [draw_crop(rng, 300, 400, boxes) for _ in range(3000)]
    pictures = Pictures([np.zeros((300, 400, 3), np.uint8)])
    objects = [Objects(boxes, np.zeros(3, np.int64), np.ones(3), np.zeros(3, bool))]
    views = whole(upload(pictures, CPU), upload_objects(objects, CPU), torch.zeros(3000, dtype=torch.int64))
    mine = RandomCrop(SSD_CROPS)(Draws(0, torch.tensor(0), torch.arange(3000)), views)
    host = np.array([w for w, _, _ in theirs], float)
    found = mine.window.numpy()
    for name, values in {
        "top": (found[:, 0], host[:, 0]),
        "left": (found[:, 1], host[:, 1]),
        "area": (found[:, 2] * found[:, 3], host[:, 2] * host[:, 3]),
        "aspect": (found[:, 3] / found[:, 2], host[:, 3] / host[:, 2]),
        "kept": (mine.present.sum(1).numpy(), np.array([k.sum() for _, _, k in theirs])),
    }.items():
        assert scipy_stats.ks_2samp(*values).pvalue > 1e-3, name
    kept = mine.present.numpy()
    sides = np.maximum(mine.boxes_yxyx.numpy()[kept][:, 2:] - mine.boxes_yxyx.numpy()[kept][:, :2], 0).prod(1)
    others = np.concatenate([np.maximum(b[k][:, 2:] - b[k][:, :2], 0).prod(1) for _, b, k in theirs])
    assert scipy_stats.ks_2samp(np.round(sides, 5), np.round(others, 5)).pvalue > 1e-3


def test_windows_of_the_recipe_are_distributed_as_the_hosts():
    box = np.array([[0.3, 0.35, 0.5, 0.5]])
    picture = np.zeros((180, 260, 3), np.uint8)
    one = Objects(box, np.zeros(1, np.int64), np.ones(1), np.zeros(1, bool))
    pictures = Pictures([picture])
    rng = np.random.default_rng(1)
    framing = Framing((128, 128), False, ObjectZoom(0.5), ZoomOut(0.5), AspectMix(0.5))
    view = whole_view(picture, one.boxes_yxyx, one.classes, one.weights, one.ignore)
    recipe = InputRecipe(None, ZoomOut(0.5), ObjectZoom(0.5), AspectMix(0.5))
    count = 3000
    views = whole(upload(pictures, CPU), upload_objects([one], CPU), torch.zeros(count, dtype=torch.int64))
    for field, tile in (((128, 128), False), ((50, 70), True)):
        theirs = np.array([framing(rng, view, field, tile)[0] for _ in range(count)], float)
        px = torch.tensor([field], dtype=torch.float64).expand(count, 2)
        mine = _windows(
            Draws(0, torch.tensor(0), torch.arange(count)),
            views,
            px,
            torch.tensor([128.0, 128.0], dtype=torch.float64),
            torch.full((count,), tile),
            recipe,
            False,
        )
        for i, name in enumerate(("top", "left", "height", "width")):
            assert scipy_stats.ks_2samp(mine[0][:, i].numpy(), theirs[:, i]).pvalue > 1e-3, (tile, name)


def test_fills_are_distributed_as_documented():
    """Mean colour 40 %, any colour 20 %, black 30 %, noise 10 %, on the host and on the device."""
    count = 4000
    picture = np.full((20, 20, 3), (200, 201, 202), np.uint8)
    view = whole_view(picture, np.zeros((0, 4)), *np.zeros((3, 0)))
    rng = np.random.default_rng(0)
    fills = [Fill.random(rng, view) for _ in range(count)]
    colours, noisy = np.array([f.colour for f in fills]), np.array([f.noise is not None for f in fills])
    pictures = upload(Pictures([picture]), CPU)
    empty = Objects(np.zeros((0, 4)), *(np.zeros(0, kind) for kind in (np.int64, float, bool)))
    views = whole(pictures, upload_objects([empty], CPU), torch.zeros(count, dtype=torch.int64))
    plain_fill = torch.zeros(count, dtype=torch.bool)
    made = _fill(Draws(0, torch.tensor(0), torch.arange(count)), views, pictures, plain_fill)
    for shown, noise in ((colours, noisy), (made[0].numpy(), made[1].numpy())):
        mean = (shown == picture[0, 0]).all(1) & ~noise
        black = (shown == 0).all(1) & ~noise
        shares = [mean.mean(), 1 - (mean | black | noise).mean(), black.mean(), noise.mean()]
        np.testing.assert_allclose(shares, [0.4, 0.2, 0.3, 0.1], atol=0.025)


@pytest.mark.parametrize("recipe", [None, EVERYTHING])
def test_boxes_stay_on_what_they_are_boxes_of(recipe):
    pictures, objects = drawn(12)
    spec = ModelSpec(height_px=128, width_px=128)
    if recipe is not None:  # what changes geometry alone
        recipe = replace(recipe, finish=Finish())
    steps = (geometry.horizontal_flip, geometry.vertical_flip, geometry.RandomCrop())
    batches = device_batches(pictures, objects, spec, steps, recipe, batch=16)
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
    pictures, objects = drawn()
    spec = ModelSpec(height_px=64, width_px=64)
    steps = (geometry.horizontal_flip, geometry.RandomCrop())
    whole_batch = batch_of(device_batches(pictures, objects, spec, steps, EVERYTHING, batch=5), 9)
    late = device_batches(pictures, objects, spec, steps, EVERYTHING, batch=5)
    batch_of(late, 3)
    part = batch_of(device_batches(pictures, objects, spec, steps, EVERYTHING, batch=5, part=slice(2, 5)), 9)
    for name in ("boxes_yxyx", "valid", "ignored"):
        assert torch.equal(getattr(batch_of(late, 9)[1], name), getattr(whole_batch[1], name))
        assert torch.equal(getattr(part[1], name), getattr(whole_batch[1], name)[2:])
    assert torch.equal(batch_of(late, 9)[0], whole_batch[0])
    assert torch.equal(part[0], whole_batch[0][2:])
    assert not torch.equal(batch_of(late, 10)[0], whole_batch[0])


def test_no_mosaics_in_the_last_share():
    pictures, objects = drawn()
    spec = ModelSpec(height_px=64, width_px=64)
    recipe = InputRecipe(Mosaic(1.0, off_share=0.5))
    batches = device_batches(pictures, objects, spec, recipe=recipe, total_steps=10)
    assert int((batch_of(batches, 4)[1].valid.sum(1) + batch_of(batches, 4)[1].ignored.sum(1)).max()) > 1
    assert int((batch_of(batches, 5)[1].valid.sum(1) + batch_of(batches, 5)[1].ignored.sum(1)).max()) == 1


@pytest.mark.parametrize(
    "step",
    [
        colour.AdjustBrightness(0.2),
        colour.AdjustContrast(),
        colour.AdjustSaturation(),
        colour.AdjustHue(),
        colour.DistortColour(),
        colour.RgbToGrey(1.0),
    ],
)
def test_colours_are_changed_as_the_host_does(step, monkeypatch):
    """With the same random numbers: both are given 0.3 of every range."""
    rng = np.random.default_rng(0)
    picture = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), 8, 0), 8, 1)
    view = whole_view(picture, np.zeros((0, 4)), *np.zeros((3, 0)))

    class Fixed:
        def random(self):
            return 0.3

        def uniform(self, low, high):
            return low + 0.3 * (high - low)

    spec = ModelSpec(height_px=64, width_px=64)
    expected, _ = render(step(Fixed(), view), spec)
    monkeypatch.setattr(Draws, "_fractions", lambda self, count: torch.full((1, count), 0.3, dtype=torch.float64))
    pictures = upload(Pictures([picture]), CPU)
    objects = upload_objects([Objects(np.zeros((0, 4)), *(np.zeros(0, k) for k in (np.int64, float, bool)))], CPU)
    views = batched(step)(Draws(0, torch.tensor(0), torch.arange(1)), whole(pictures, objects, torch.tensor([0])))
    made = plain(views, spec)
    pixels = resample(pictures, made.views, made.fields, 64, 64, None)
    for effect in made.views.effects:
        pixels = effect(pixels)
    assert np.abs(pixels[0].permute(1, 2, 0).numpy() - expected).max() <= 1.0


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_leaves_what_a_coder_leaves(quality):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (72, 56), interpolation=cv2.INTER_CUBIC)
    coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    found = jpeg_coded(torch.from_numpy(picture).permute(2, 0, 1)[None].float(), torch.tensor([quality]))
    found = found[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).mean() < 0.25 * np.abs(expected - picture).mean() + 0.5
    assert np.abs(found - picture).mean() == pytest.approx(np.abs(expected - picture).mean(), rel=0.15)


def test_what_cannot_be_made_is_named():
    assert not_batched((geometry.horizontal_flip, geometry.RandomCrop()), None, False) is None
    assert not_batched((geometry.rotation90,), None, False) == "rotation90"
    assert "mirilla.augmentation" in not_batched((colour.AdjustHue(),), EVERYTHING, False)


def test_too_many_pictures():
    pictures, _ = drawn()
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
    made = DeviceBatches(upload(data.pictures, CPU, 4), upload_objects(data.objects, CPU), host)
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
        arrays = Arrays(
            pixels.permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy(),
            batch.boxes_yxyx.numpy(),
            batch.classes.numpy(),
            batch.weights.numpy(),
            batch.valid.numpy(),
            batch.ignored.numpy(),
        )
        for mine, theirs in zip(state_of(ordinary), state_of(static), strict=True):
            mine.copy_(theirs)  # so that no step's roundings are seen through the next
        expected, found = ordinary.step(arrays), runner.step()
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


def test_tables_are_renewed(tmp_path, monkeypatch):
    (static, _), made = prepared(tmp_path)
    runner = DeviceSteps(static, made, captured=False)
    runner._prepare(AHEAD + 5)
    rows = made._table[0].tolist()
    assert rows == made.host.indices(AHEAD + 5)
    rate, _ = static.state.factors(static.plan.schedule(AHEAD + 6), AHEAD + 6)
    assert float(runner._factors[1, 0]) == pytest.approx(rate)


def test_bfloat16_is_near(tmp_path):
    """For a trained network: a fresh one's gradient turns round with the last bits, in float32, too."""
    (static, ordinary), made = prepared(tmp_path)
    trained = weights.load(shipped.default_weights()).variables
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
