"""Compare this package with the arrays that the original API made (`../shared/data/odapi`).

Every line has the largest difference, the tolerance and the result. "missed" means above the tolerance, for a reason
given in docs/equality.md, but below a second bound. Needs PyTorch and SciPy:

    python -m benchmarks.equality.table [--markdown]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.equality.steps import (
    COLUMNS,
    STEPS,
    SUFFIXES,
    Run,
    distances,
    entries,
    golden_run,
    largest,
    nudged,
    relative,
)
from scipy import stats

from mirilla import console, postprocess, resize
from mirilla.batches.api_crops import RandomCrop
from mirilla.batches.draws import Draws
from mirilla.batches.examples import Objects, whole_pictures
from mirilla.data.images import decode_rgb
from mirilla.detections import Detections
from mirilla.evaluation import Coco, GroundTruth, Pascal
from mirilla.labels import LabelMap
from mirilla.model import box_coder
from mirilla.model.anchors import anchors_per_location, anchors_yxyx
from mirilla.model.network import SsdNetwork, to_tensorflow
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE, ModelSpec
from mirilla.training import losses, matching, mining, schedules
from mirilla.training.optimizer import FlatParameters, RmsProp, TrainState
from mirilla.weights import load as weights

GOLDENS = Path(__file__).resolve().parents[3] / "shared/data/odapi"
SPEC = ModelSpec()
NETWORK = SsdNetwork(SPEC)
SHAPES = NETWORK.table.feature_map_shapes
ANCHORS = anchors_yxyx(SPEC.anchors, SHAPES, 256, 256)
OBJECTIVE = losses.ObjectiveSpec(
    miner=mining.MinerSpec(
        num_hard_examples=3000, iou_threshold=0.99, loss_type="CLASSIFICATION", max_negatives_per_positive=3.0
    )
)


@dataclass(frozen=True)
class Line:
    """One row. bound: the limit for a line above its tolerance. at_least: the value must be above, not below."""

    what: str
    figure: float
    tolerance: float
    note: str = ""
    bound: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.figure >= self.tolerance if self.at_least else self.figure <= self.tolerance:
            return "holds"
        return "missed" if self.bound is not None and self.figure <= self.bound else "FAILS"

    def cells(self) -> list[str]:
        sign = "from " if self.at_least else ""
        note = f"bound {self.bound:g}; {self.note}" if self.verdict == "missed" else self.note
        return [self.what, f"{self.figure:.2g}", f"{sign}{self.tolerance:g}", self.verdict, note]


def apart(a: object, b: object) -> float:
    """Largest difference of two arrays; 0 for empty arrays."""
    first = np.asarray(a, np.float64)
    return float(np.abs(first - np.asarray(b, np.float64).reshape(first.shape)).max(initial=0))


def load(name: str):
    return np.load(GOLDENS / f"{name}.npz")


def objects_of(golden) -> list[np.ndarray]:
    return [golden[f"gt{i}"].reshape(-1, 4) for i in range(sum(k.startswith("gt") for k in golden.files))]


def targets_of(boxes: list[np.ndarray], kind: type = np.float32) -> matching.Targets:
    """Targets of a one-class batch."""
    padded = np.zeros((len(boxes), max(len(b) for b in boxes), 4), kind)
    valid = torch.zeros(padded.shape[:2], dtype=torch.bool)
    for i, b in enumerate(boxes):
        padded[i, : len(b)], valid[i, : len(b)] = b, True
    batch = losses.Batch(
        torch.from_numpy(padded),
        torch.zeros(valid.shape, dtype=torch.int64),
        torch.ones(valid.shape),
        valid,
        torch.zeros_like(valid),
    )
    return losses.match_targets(batch, torch.from_numpy(ANCHORS.astype(kind)), OBJECTIVE)


# ---- anchors, codes, targets, losses


def anchors() -> Iterator[Line]:
    golden = load("anchors")
    yield Line("anchors, normalised", apart(ANCHORS, golden["anchors_normalized"]), 1e-6)
    yield Line("anchors, pixels of 256", apart(ANCHORS * 256, golden["anchors_px256"]), 1e-4)
    sizes = [[p.height, p.width, p.in_channels] for p in NETWORK.table.predictors]
    yield Line("feature maps' shapes", apart(sizes, golden["feature_map_shapes"]), 0)
    yield Line("anchors per location", apart(anchors_per_location(SPEC.anchors), golden["anchors_per_location"]), 0)


def codes() -> Iterator[Line]:
    golden = load("box_coder")
    boxes, anchors, code = golden["boxes"], golden["anchors"], golden["codes"]
    yield Line("box codes, encoded", apart(box_coder.encode(boxes, anchors, SPEC.box_coder), golden["encoded"]), 2e-5)
    yield Line(
        "box codes, decoded",
        apart(box_coder.decode(code, anchors, SPEC.box_coder), golden["decoded"]),
        2e-5,
        "largest box 4",
    )
    twin = matching.encode(*(torch.from_numpy(a) for a in (boxes, anchors)), SPEC.box_coder)
    yield Line("the same in PyTorch, encoded", apart(twin, golden["encoded"]), 2e-5)


def assigner() -> Iterator[Line]:
    golden = load("target_assigner")
    boxes = objects_of(golden)
    found = targets_of(boxes)
    yield Line("target assigner: match", apart(found.match, golden["match"]), 0, "8 cases x 1278 anchors")
    yield Line("target assigner: classes", apart(found.classes, golden["cls_targets"]), 0)
    yield Line("target assigner: class weights", apart(found.class_weights, golden["cls_weights"][..., 0]), 0)
    yield Line("target assigner: box codes", apart(found.codes, golden["reg_targets"]), 2e-5, "codes up to 20")
    yield Line("target assigner: box weights", apart(found.box_weights, golden["reg_weights"]), 0)
    iou = [matching.pairwise_iou(torch.from_numpy(b)[None], torch.from_numpy(ANCHORS)[None])[0] for b in boxes]
    yield Line("target assigner: IoU", max(apart(v, golden[f"iou{i}"]) for i, v in enumerate(iou)), 1e-6)


def objectives() -> Iterator[Line]:
    for case in ("random", "zeros", "allempty", "one_image"):
        golden = load(f"loss_{case}")
        code = torch.from_numpy(golden["box_encodings"]).reshape(-1, 1278, 4).requires_grad_()
        logits = torch.from_numpy(golden["class_predictions"]).reshape(-1, 1278, 2).requires_grad_()
        found, each = losses.objective(
            code, logits, targets_of(objects_of(golden)), torch.from_numpy(ANCHORS), OBJECTIVE
        )
        if found.total.requires_grad:
            found.total.backward()
        name = f"losses, {case}: "
        yield Line(f"{name}localization", apart(found.localization, golden["Loss.localization_loss"]), 1e-5)
        yield Line(f"{name}classification", apart(found.classification, golden["Loss.classification_loss"]), 1e-5)
        yield Line(
            f"{name}per anchor, localization", apart(each.localization.detach(), golden["anchorwise_loc_loss"]), 2e-5
        )
        yield Line(
            f"{name}per anchor, classification",
            apart(each.classification.detach(), golden["anchorwise_cls_loss"]),
            1e-5,
        )
        wrong = [
            len(set(np.flatnonzero(row)) ^ set(golden[f"selected{i}"].tolist()))
            for i, row in enumerate(each.selected.numpy())
        ]
        if case == "zeros":
            counts = each.selected.sum(1).numpy()
            yield Line(
                f"{name}hard examples, how many",
                apart(counts, golden["num_pos"] + golden["num_neg"]),
                0,
                "all losses are equal: which ones is up to TensorFlow's heap",
            )
            continue
        yield Line(f"{name}hard examples that differ", sum(wrong), 0, f"of {int(each.selected.sum())}")
        yield Line(f"{name}gradient of box codes", apart(code.grad, golden["grad_box_encodings"]), 1e-6)
        yield Line(f"{name}gradient of logits", apart(logits.grad, golden["grad_class_predictions"]), 1e-6)


# ---- inference and post-processing


def inference() -> Iterator[Line]:
    golden, images, layers = load("infer_b24"), load("images"), load("infer_b24_activations_img1")
    values = dict(load("ckpt60_values"))
    read = weights.load_variables(GOLDENS / "ckpt_b24_step60/model.ckpt-60")[0]
    worst = max(apart(value, values[name]) for name, value in read.items())
    yield Line("TensorFlow checkpoint, 543 entries", worst if set(read) == set(values) else np.inf, 0)
    network = SsdNetwork(SPEC).eval()
    network.set_weights(load("export_ckpt_values"))
    pictures = {"batch8": list(images["images256"])} | {n: [images[n]] for n in ("other_480x640", "other_411x233")}
    for tag, photos in pictures.items():
        pixels = np.stack([resize.to_input(photo, 256, 256)[0] for photo in photos])
        with torch.no_grad():
            code, logits = (t.numpy() for t in network(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
        theirs = {
            key: golden[f"{tag}|{key}"]
            for key in (
                "Preprocessor.sub",
                "concat",
                "concat_1",
                "detection_boxes",
                "detection_scores",
                "num_detections",
            )
        }
        yield Line(f"inference, {tag}: resized, normalised pixels", apart(pixels, theirs["Preprocessor.sub"]), 0)
        yield Line(f"inference, {tag}: box codes", apart(code, theirs["concat"][:, :, 0]), 1e-5)
        yield Line(f"inference, {tag}: logits", apart(logits, theirs["concat_1"]), 1e-5)
        found = [postprocess.detections(code[i], logits[i], ANCHORS, SPEC) for i in range(len(photos))]
        yield Line(
            f"inference, {tag}: detections, how many", apart([len(f) for f in found], theirs["num_detections"]), 0
        )
        yield Line(
            f"inference, {tag}: detections' scores",
            max(apart(f.scores, theirs["detection_scores"][i, : len(f)]) for i, f in enumerate(found)),
            1e-5,
        )
    seen: dict[str, np.ndarray] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out, entry=entry: seen.__setitem__(entry.op_scope, out.permute(0, 2, 3, 1).numpy())
        )
        for entry, layer in zip(network.table.layers, network.layers, strict=True)
    ]
    with torch.no_grad():
        network(torch.from_numpy(resize.to_input(images["images256"][1], 256, 256)[0])[None].permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    difference = {name: apart(value, layers[name.replace("/", ".") + ".Relu6"]) for name, value in seen.items()}
    name = max(difference, key=lambda n: difference[n])
    yield Line(f"inference: activations of {len(seen)} layers", difference[name], 1e-5, name.rpartition("/")[2])


def post_processing() -> Iterator[Line]:
    golden = load("postprocess_random")
    found = [
        postprocess.detections(golden["box_encodings"][i], golden["class_predictions"][i], ANCHORS, SPEC)
        for i in range(6)
    ]
    yield Line("post-processing: how many", apart([len(f) for f in found], golden["num_detections"]), 0, "6 cases")
    yield Line(
        "post-processing: scores",
        max(apart(f.scores, golden["detection_scores"][i, : len(f)]) for i, f in enumerate(found)),
        1e-6,
    )
    yield Line(
        "post-processing: boxes",
        max(apart(f.boxes_yxyx, golden["detection_boxes"][i, : len(f)]) for i, f in enumerate(found[:5])),
        1e-6,
        "not the sixth case, which is all ties",
    )


def metrics() -> Iterator[Line]:
    content = json.loads((GOLDENS / "metrics.json").read_text())
    truths = [np.array(b, np.float64).reshape(-1, 4) / 256 for b in content["groundtruth_ymin_xmin_ymax_xmax_px"]]
    truths = [GroundTruth(f"{i}.jpg", 256, 256, b, np.ones(len(b))) for i, b in enumerate(truths)]
    found = [
        Detections(
            np.array(d["boxes"], np.float64).reshape(-1, 4) / 256,
            np.array(d["scores"], np.float32),
            np.ones(len(d["scores"]), np.int64),
        )
        for d in content["detections"]
    ]
    face = LabelMap.from_names(["face"])
    golden = content["metrics"]
    coco = [f.value for f in Coco(face).evaluate(truths, found).figures][:12]
    yield Line("metrics: the 12 COCO figures", apart(coco, list(golden["coco"].values())), 1e-6)
    pascal = Pascal(face).evaluate(truths, found)
    for ours, kind in (("mAP@0.5", "pascal"), ("weighted mAP@0.5", "weighted_pascal")):
        theirs = next(v for k, v in golden[kind].items() if "mAP" in k)
        yield Line(f"metrics: {kind}", apart(pascal[ours], theirs), 1e-6)


def rates() -> Iterator[Line]:
    golden = json.loads((GOLDENS / "lr_schedule.json").read_text())
    golden["sample"] = list(zip(golden["steps"], golden["lr"], strict=True))
    made = {
        "sample": schedules.exponential_decay(0.004, 800720, 0.95),
        "exp_decay_1000_0.9_staircase": schedules.exponential_decay(0.004, 1000, 0.9),
        "exp_decay_1000_0.9_nostair": schedules.exponential_decay(0.004, 1000, 0.9, staircase=False),
        "cosine_base0.08_total2000_warm0.01_wsteps500": schedules.cosine_decay(0.08, 2000, 0.01, 500),
        "manual_step_0.004_1000:0.001_2000:0.0001": schedules.manual_steps(0.004, [(1000, 0.001), (2000, 0.0001)]),
    }
    for name, schedule in made.items():
        difference = max(abs(schedule(step) - rate) for step, rate in golden[name])
        yield Line(f"learning rates: {name.partition('_base')[0].partition('_0.004')[0]}", difference, 1e-8)


def crops() -> Iterator[Line]:
    for case in ("one", "three"):
        golden = load(f"ssd_random_crop_dist_{case}")
        boxes = golden["boxes"].astype(np.float64)
        zeros = np.zeros(len(boxes), np.int64)
        objects = Objects(boxes, zeros, np.ones(len(boxes)), zeros > 0, zeros)
        count = 20_000  # many, so that the result hardly depends on the seed
        examples = whole_pictures(np.array([[300, 400]]), objects, np.zeros(count, np.int64))
        made = RandomCrop()(Draws(7, 0, np.arange(count)), examples)
        ours, theirs = made.window.astype(float), golden["windows_y_x_h_w"].astype(float)
        cut = [w[w[:, 2] * w[:, 3] < 120_000] for w in (ours, theirs)]
        for what, pair in {
            "area": [w[:, 2] * w[:, 3] for w in (ours, theirs)],
            "aspect": [np.round(w[:, 3] / w[:, 2], 5) for w in cut],
            "boxes kept": [made.objects.counts(count), golden["num_kept"]],
        }.items():
            test = stats.ks_2samp(*pair, method="asymp")
            yield Line(
                f"ssd_random_crop, {case} box{'es' * (case != 'one')}: {what}, p",
                float(test.pvalue),
                1e-3,
                f"Kolmogorov-Smirnov D = {test.statistic:.3f}, 20,000 draws against 4,000",
                at_least=True,
            )


def jpeg() -> Iterator[Line]:
    golden = load("jpeg_decode")
    pairs = [(decode_rgb(golden[f"jpeg{i}"].tobytes()), golden[f"tf_decode_image{i}"]) for i in range(2)]
    means = " and ".join(f"{np.abs(a.astype(int) - b).mean():.2f}" for a, b in pairs)
    yield Line("JPEG decoding, levels of 255", max(apart(a, b) for a, b in pairs), 6, f"mean {means}")


# ---- training steps


class Training:
    """The original's fixed batch, and a network with its optimizer at some step of the original's run."""

    def __init__(self, start: dict[str, np.ndarray], double: bool = False):
        kind = torch.float64 if double else torch.float32
        torch.set_default_dtype(kind)
        self.network = SsdNetwork(SPEC).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.network.set_weights(start)
        self.network.set_batch_norm_decay(0.9997, 0.9997)
        decayed = [e.weights for e in NETWORK.table.layers if e.kind == "conv"]
        decayed += [f"{s}/weights" for p in NETWORK.table.predictors for s in (p.box_scope, p.class_scope)]
        self.flat = FlatParameters(self.network.trainable(), dict.fromkeys(decayed, 0.00004))
        self.state = TrainState(self.flat, RmsProp(), 0.9999)
        for suffix, vector in self.state.vectors().items():
            for name, part in self.flat.split(vector).items():
                if f"{name}/{suffix}" in start:
                    value = np.asarray(start[f"{name}/{suffix}"])
                    if value.ndim == 4:
                        depthwise = name.endswith("depthwise_weights")
                        value = value.transpose(2, 3, 0, 1) if depthwise else value.transpose(3, 2, 0, 1)
                    part.copy_(torch.from_numpy(value.copy()))
        inputs = load("trainstep_inputs")
        pixels = torch.from_numpy(inputs["images"]).permute(0, 3, 1, 2).to(kind) * INPUT_SCALE + INPUT_OFFSET
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)
        self.anchors = torch.from_numpy(ANCHORS).to(kind)
        found = targets_of(objects_of(inputs), np.float64 if double else np.float32)
        self.targets = matching.Targets(
            found.match, *(t.to(kind) for t in (found.classes, found.class_weights, found.codes, found.box_weights))
        )

    def run(self, steps: int, first: int = 1) -> dict[str, np.ndarray]:
        """Steps `first` to `first + steps - 1`, as a `Run`; losses of other steps are NaN."""
        values = np.full((10, 3), np.nan)
        result: dict[str, np.ndarray] = {}
        for step in range(first, first + steps):
            self.flat.gradient.zero_()
            code, logits = self.network(self.pixels)
            found, _ = losses.objective(code, logits, self.targets, self.anchors, OBJECTIVE)
            found.total.backward()
            self.flat.add_regularization_gradient()
            total = found.total.detach() + self.flat.regularization()
            values[step - 1] = [float(v) for v in (total, found.localization, found.classification)]
            if step == 1:
                result |= {"codes": code.detach().numpy(), "logits": logits.detach().numpy()}
                gradient = self.flat.split(self.flat.gradient)
                result |= {f"gradient|{n}": to_tensorflow(n, g).copy() for n, g in gradient.items()}
            self.state.apply(0.004)
            if step in STEPS:
                result |= {f"after{step}|{n}": v.copy() for n, v in self.network.get_weights().items()}
                for suffix, vector in self.state.vectors().items():
                    for name, part in self.flat.split(vector).items():
                        result[f"after{step}|{name}/{suffix}"] = to_tensorflow(name, part).copy()
        torch.set_default_dtype(torch.float32)
        return result | {"losses": values}


def training(runs: dict[str, Run]) -> Iterator[Line]:
    """One step from each of the original's states, and ten consecutive steps."""
    golden = golden_run(GOLDENS)
    ours = Training(dict(load("ckpt0_values"))).run(10)
    runs["Mirilla"] = ours
    yield Line("training step 1: box codes, logits", largest(ours, golden, ["codes", "logits"])[0], 1e-4)
    gradients = [n for n in golden if n.startswith("gradient|")]
    yield Line("training step 1: gradient, relative", relative(ours, golden, gradients), 1e-4, "as one vector", 2e-3)
    after1, after2 = (dict(load(f"trainstep_vars_after{i}")) for i in (1, 2))
    parts = {
        1: (ours, "from ckpt0"),
        2: (Training(after1).run(1, 2), "from the original's state after step 1"),
        3: (Training(after2).run(1, 3), "from the original's state after step 2"),
    }
    for step, (run, start) in parts.items():
        yield Line(
            f"training step {step}: losses", apart(run["losses"][step - 1], golden["losses"][step - 1]), 1e-4, start
        )
        if step == 3:
            break
        figure, name = largest(run, golden, entries(golden, step, None))
        yield Line(f"training step {step}: variables", figure, 1e-4, worst(name), 1e-3)
        for suffix in SUFFIXES:
            figure, name = largest(run, golden, entries(golden, step, suffix))
            squares = suffix == "RMSProp"
            note = f"; its values go up to {np.abs(golden[name]).max():.0f}" if squares else ""
            yield Line(f"training step {step}: {suffix}", figure, 1e-4, worst(name) + note, 5.0 if squares else 1e-3)
    yield Line("ten consecutive steps: losses", apart(ours["losses"], golden["losses"]), 1e-4, "all ten", 0.3)
    for step in (2, 10):
        for what, suffix, bound in (("variables", None, 0.6), ("averages", "ExponentialMovingAverage", 1e-3)):
            figure, name = largest(ours, golden, entries(golden, step, suffix))
            yield Line(f"ten consecutive steps: {what} after {step}", figure, 1e-4, worst(name), bound)


def worst(name: str) -> str:
    """An entry's name without the common parts."""
    name = name.partition("|")[2].removeprefix("FeatureExtractor/MobilenetV1/")
    for suffix in SUFFIXES:
        name = name.removesuffix(f"/{suffix}")
    return f"worst: {name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables, as in docs/equality.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, Run] = {}
    parts: list[Callable[[], Iterator[Line]]] = [
        anchors,
        codes,
        assigner,
        objectives,
        inference,
        post_processing,
        metrics,
        rates,
        crops,
        jpeg,
        lambda: training(runs),
    ]
    rows = [line.cells() for part in parts for line in part()]
    show("", ["what", "largest difference", "tolerance", "", "note"], rows, args.markdown)
    start = dict(load("ckpt0_values"))
    moved = nudged({name: start[name] for name in NETWORK.tensors()})
    runs["Mirilla, kernels changed by one unit in the last place"] = Training(moved).run(10)
    runs["Mirilla in float64"] = Training(start, double=True).run(10)
    golden = golden_run(GOLDENS)
    show("from the original's arrays", COLUMNS, [[n, *distances(r, golden)] for n, r in runs.items()], args.markdown)
    base, *others = runs
    show(f"from {base}'s own run", COLUMNS, [[n, *distances(runs[n], runs[base])] for n in others], args.markdown)
    failed = [row[0] for row in rows if row[3] == "FAILS"]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(rows)} lines fail: {'; '.join(failed)}")


def show(title: str, columns, rows: list[list[str]], markdown: bool) -> None:
    if not markdown:
        console.print_table(title, columns, rows)
        return
    for row in [list(columns), ["---"] * len(columns), *rows]:
        console.echo(f"| {' | '.join(row)} |")
    console.echo()


if __name__ == "__main__":
    main()
