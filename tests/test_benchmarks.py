"""The parts of benchmarks/ that compute figures: bootstrap, sizes, seeds, tables, variants."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from mirilla.detections import Detections
from mirilla.evaluation.faces import Faces
from mirilla.evaluation.interface import GroundTruth

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
BOUNDS = (0, 16, 24)


@pytest.fixture
def part(monkeypatch):
    """A module of benchmarks/ by its name."""
    if not BENCHMARKS.is_dir():
        pytest.skip("the folder benchmarks is not beside the tests")
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def random_photos(count: int, seed: int = 0) -> tuple[list[GroundTruth], list[Detections]]:
    """Photos of 256 x 256 with some faces, detections near some of them, and others; scores with ties."""
    random = np.random.default_rng(seed)
    truths, found = [], []
    for i in range(count):
        faces = boxes(random, random.integers(0, 5))
        near = faces[random.random(len(faces)) < 0.7] + random.normal(0, 0.01, (1, 4))
        all_boxes = np.concatenate([near, boxes(random, random.integers(0, 6))])
        truths.append(GroundTruth(f"{i}", 256, 256, faces, np.ones(len(faces)), random.random(len(faces)) < 0.2))
        scores = np.round(random.random(len(all_boxes)), 2).astype(np.float32)
        found.append(Detections(all_boxes.astype(np.float32), scores, np.ones(len(all_boxes), np.int64)))
    return truths, found


def boxes(random, count: int) -> np.ndarray:
    corner, side = random.random((count, 2)) * 0.8, random.uniform(0.02, 0.2, (count, 1))
    return np.concatenate([corner, corner + side], 1)


def unique_scores(found: list[Detections]) -> list[Detections]:
    """The same without ties: how ties fall between photos depends on their order."""
    rank = iter(np.random.default_rng(1).permutation(sum(map(len, found))))
    return [
        Detections(f.boxes_yxyx, np.array([next(rank) / 1e4 for _ in f.scores], np.float32), f.classes) for f in found
    ]


def test_weights_of_one_give_the_evaluators_own_figure(part):
    truths, found = random_photos(40)
    faces = Faces()
    figures = faces.evaluate(truths, found).figures
    for figure, bound in zip(figures, BOUNDS, strict=False):
        matches = [faces.match(t, f, bound) for t, f in zip(truths, found, strict=True)]
        again = part("accuracy.bootstrap").average_precisions(matches, np.ones((1, 40)))
        assert again[0] == pytest.approx(figure.value, abs=1e-12)


def test_a_resample_is_what_evaluating_the_drawn_photos_gives(part):
    bootstrap = part("accuracy.bootstrap")
    truths, found = random_photos(25, seed=3)
    found, faces = unique_scores(found), Faces()
    drawn = bootstrap.weights(25, 8, seed=5)
    matches = [faces.match(t, f, 16) for t, f in zip(truths, found, strict=True)]
    fast = bootstrap.average_precisions(matches, drawn)
    for row, value in zip(drawn, fast, strict=True):
        order = np.repeat(np.arange(25), row)
        slow = faces.evaluate([truths[i] for i in order], [found[i] for i in order])["AP@0.5 >= 16 px"]
        assert value == pytest.approx(slow, abs=1e-12)
    assert drawn.sum(1).tolist() == [25] * 8


def test_by_size_by_hand(part):
    """Ten photos: a 10 px and a 40 px face each; the large one is found with .9, the small one in three with .8."""
    sizes = part("accuracy.error_sizes")
    large, small, away = [0, 0, 40 / 256, 40 / 256], [0.5, 0.5, 0.5 + 10 / 256, 0.5 + 10 / 256], [0.8, 0, 0.9, 0.1]
    truths, found = [], []
    for i in range(10):
        given = [(large, 0.9)] + [(small, 0.8)] * (i < 3) + [(away, 0.7)] * (i == 0) + [(away, 0.6)] * (i == 1)
        truths.append(GroundTruth(f"{i}", 256, 256, np.array([large, small]), np.ones(2)))
        found.append(
            Detections(
                np.array([b for b, _ in given], np.float32),
                np.array([s for _, s in given], np.float32),
                np.ones(len(given), np.int64),
            )
        )
    matches = [Faces().match(t, f) for t, f in zip(truths, found, strict=True)]
    assert sizes.threshold(matches) == pytest.approx(0.7)  # one false alarm in ten photos, not two
    result = sizes.by_size(matches, np.ones((4, 10)))
    rows = {row["size_px"]: row for row in result["bins"]}
    assert (rows["32-48"]["faces"], rows["32-48"]["recall"]) == (10, 1.0)
    assert (rows["8-12"]["faces"], rows["8-12"]["recall"]) == (10, pytest.approx(0.3))
    assert rows["24-32"]["false_alarms"] == 1  # 0.1 of 256 px: 25.6
    assert rows["48-96"]["recall"] is None


def line(variant: str, seed: int, letterbox: float, squash: float, cpu_s: float = 10) -> dict:
    figures = {r: {">= 16 px": v} for r, v in (("letterbox", letterbox), ("squash", squash))}
    return {"variant": variant, "seed": seed, "figures": figures, "cpu_s": cpu_s}


def test_seeds_are_compared_with_the_base_of_the_same_seed(part):
    lines = [
        line("base", 0, 0.5, 0.4),
        line("base", 1, 0.6, 0.5),
        line("x", 0, 0.4, 0.3),
        line("x", 1, 0.5, 0.42),
        line("tf1", 0, 0.1, 0.2),
        line("tf1 with x", 0, 0.2, 0.3),
        line("x", 2, 0.9, 0.9, cpu_s=40),
    ]
    found = {row["variant"]: row for row in part("accuracy.seeds").summary(lines)}
    assert found["base"]["difference"] is None
    assert found["x"]["difference"] == pytest.approx((-0.1 - 0.09) / 2)  # seed 2 has no partner
    # all that is left: +-.0025 of each run, one degree of freedom, so .005 * 12.706
    assert found["x"]["high"] - found["x"]["difference"] == pytest.approx(0.005 * 12.706, rel=1e-3)
    assert found["x"]["letterbox"] == {"mean": pytest.approx(0.6), "least": 0.4, "most": 0.9}
    assert found["x"]["cpu_s"] == 20
    assert found["tf1"]["difference"] == pytest.approx(-0.3)
    assert found["tf1 with x"]["difference"] == pytest.approx(0.1)
    alone = part("accuracy.seeds").summary([line("base", 0, 0.5, 0.4), line("x", 0, 0.4, 0.3)])[1]
    assert alone["difference"] == pytest.approx(-0.1)
    assert alone["low"] is None  # one seed tells nothing of chance


def test_intervals_have_the_size_that_was_drawn(part):
    rng = np.random.default_rng(0)
    runs = [
        line("base" if v == 0 else f"v{v}", s, value, value)
        for v in range(20)
        for s in range(3)
        for value in [0.3 + 0.01 * v + 0.05 * s + 0.004 * rng.standard_normal()]
    ]
    found = part("accuracy.seeds").summary(runs)[1:]
    half = found[0]["high"] - found[0]["difference"]
    assert half == pytest.approx(2.02 * 0.004 * (2 / 3) ** 0.5, rel=0.25)
    hits = sum(row["low"] <= 0.01 * v <= row["high"] for v, row in enumerate(found, 1))
    assert hits >= 16


def test_tables_are_put_between_their_marks(part):
    page = part("accuracy.page")
    text = "a\n<!-- table: x -->\nold\n<!-- end -->\nb\n<!-- table: y -->\n<!-- end -->\n"
    once = page.fill(text, {"x": "| new |\n", "y": "| other |\n"})
    assert once == "a\n<!-- table: x -->\n| new |\n<!-- end -->\nb\n<!-- table: y -->\n| other |\n<!-- end -->\n"
    assert page.fill(once, {"x": "| new |\n"}) == once
    with pytest.raises(ValueError, match="no table 'z'"):
        page.fill(text, {"z": ""})


def test_the_zoos_table_has_what_was_trained_alike_as_the_bonnet_computes_it(part):
    def figures(value):
        return {size: {"value": value, "low": value - 0.1, "high": value + 0.1} for size in part("common").SIZES}

    def way(resize, arithmetic, value):
        return {"set": "ilc2021", "resize": resize, "arithmetic": arithmetic, "figures": figures(value)}

    facts = {"parameters": 1000, "macs": 2_000_000, "arena_peak_bytes": 3000, "training": {"cpu_s": 40}}
    kit = {
        "name": "kit",
        "facts": facts,
        "measured": [way("letterbox", "float32", 0.9), way("letterbox", "fp16", 0.5), way("squash", "fp16", 0.4)],
    }
    other = {**kit, "name": "other", "facts": {**facts, "training": {}}}
    peer = {"name": "peer", "facts": {}, "measured": [way("own", "float32", 0.8)]}
    rows = part("accuracy.page").zoo_table({"models": [kit, other, peer]}).splitlines()
    assert len(rows) == 3
    assert [cell.strip() for cell in rows[2].split("|")[1:-1]] == [
        "kit",
        "1,000",
        "2.0 M",
        "3,000",
        *[".500 (.400-.600)"] * 3,
        ".400 (.300-.500)",
        "40",
    ]


def test_the_page_has_a_place_for_every_table(part):
    page = part("accuracy.page")
    names = ("accuracy", "cost", "differences", "other sets", "sizes", "ablation", "protocols", "zoo")
    page.fill(page.PAGE.read_text(), dict.fromkeys(names, ""))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8166, ".817"), (1.0, "1.000"), (-0.0312, "-.031"), (None, "-"), (float("nan"), "-"), (0.0, ".000")],
)
def test_decimals(part, value, text):
    assert part("common").decimal(value) == text


def test_pareto_front(part):
    pareto = part("accuracy.pareto")
    costs = (("a", 1, 0.5), ("b", 2, 0.4), ("c", 3, 0.7), ("d", 3, 0.6))
    made = [pareto.Point(name, cost, ap, ap, ap, False) for name, cost, ap in costs]
    assert [p.name for p in pareto.front(made)] == ["a", "c"]


def test_variants_take_and_add_one_ingredient(part):
    variants = part("accuracy.variants")
    base = variants.Variant("base", fitted=False)
    path = Path("train.tfrecord")

    def made(variant):
        return variants.pipeline(variant, path, 1000, 24, 0)

    ours = made(base)
    known = variants.variants(base, ours)
    old = made(known["tf1"])
    without = made(known["without GIoU loss"])
    assert ours.mirilla.HasField("giou_loss")
    assert not without.mirilla.HasField("giou_loss")
    assert without.model.ssd.loss.localization_weight == old.model.ssd.loss.localization_weight
    without.mirilla.giou_loss.SetInParent()
    without.model.ssd.loss.localization_weight = ours.model.ssd.loss.localization_weight
    without.mirilla.recipe = ours.mirilla.recipe
    assert without == ours  # nothing else changed
    rms = made(known["without Adam"]).train_config.optimizer
    assert rms.rms_prop_optimizer == old.train_config.optimizer.rms_prop_optimizer
    assert not rms.HasField("adam_optimizer")
    no_teacher = made(known["without SimOTA assignment"]).mirilla
    assert not no_teacher.HasField("dynamic_assigner")
    assert not no_teacher.HasField("quality_focal_loss")  # it cannot be without
    assert made(known["tf1 with quality focal loss"]).mirilla.HasField("dynamic_assigner")
    kinds = [a.WhichOneof("step") for a in ours.mirilla.augmentation]
    assert [a.WhichOneof("step") for a in made(known["without mosaic"]).mirilla.augmentation] == [
        k for k in kinds if k != "mosaic"
    ]
    assert [a.WhichOneof("step") for a in made(known["tf1 with mosaic"]).mirilla.augmentation] == ["mosaic"]
    assert made(known["with stride-8 head"]).mirilla.feature_map[0] == "Conv2d_5_pointwise"


def test_an_ablation_line_is_found_again_wherever_its_files_lie(part):
    ablation, variants = part("accuracy.ablation"), part("accuracy.variants")
    row = variants.Variant("base", fitted=False)
    keys = {ablation.key_of(variants.pipeline(row, Path(p), 100, 24, 0)) for p in ("a/t.tfrecord", "b/t.tfrecord")}
    assert len(keys) == 1
    assert keys != {ablation.key_of(variants.pipeline(row, Path("a/t.tfrecord"), 100, 24, 1))}


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.stem)
def test_every_script_can_be_imported(path, part):
    if path.stem == "train_speed_tensorflow":
        pytest.skip("runs in an environment of its own, without PyTorch")
    pytest.importorskip("torch")
    part(".".join(path.relative_to(BENCHMARKS).with_suffix("").parts))
