"""Can today's TensorFlow repeat ten training steps of TensorFlow 1.15? The same batch, checkpoint, losses, optimiser.

Runs the steps of `../shared/data/odapi` with TensorFlow's own kernels (convolutions, fused batch norm, NMS, RMSProp) in
several ways, and prints how far each is from the original's arrays and from TensorFlow's own first way. Needs
TensorFlow 2 and no PyTorch:

    python benchmarks/equality_tensorflow.py

docs/equality.md has the result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from equality_steps import COLUMNS, STEPS, Run, distances, golden_run, nudged

from mirilla import console
from mirilla.model import box_coder
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.layers import architecture
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE, ModelSpec

GOLDENS = Path(__file__).resolve().parents[2] / "shared/data/odapi"
SPEC = ModelSpec()
TABLE = architecture(SPEC)
RATE, L2, DECAY, AVERAGE = 0.004, 0.00004, 0.9997, 0.9999
# name -> (threads, oneDNN's kernels, float64, kernels nudged by one unit in the last place)
WAYS = {
    "1 thread": (1, False, False, False),
    "2 threads": (2, False, False, False),
    "1 thread, oneDNN": (1, True, False, False),
    "1 thread, kernels moved by one last bit": (1, False, False, True),
    "1 thread, float64": (1, False, True, False),
}


def targets(anchors: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One image's matched object per anchor (A,), -1 for none, and box codes (A, 4): IoU 0.5, every object forced."""
    top = np.maximum(anchors[None, :, :2], boxes[:, None, :2])
    bottom = np.minimum(anchors[None, :, 2:], boxes[:, None, 2:])
    shared = np.prod(np.clip(bottom - top, 0, None), -1)  # (G, A)
    area = [np.prod(b[:, 2:] - b[:, :2], -1) for b in (boxes, anchors)]
    iou = shared / (area[0][:, None] + area[1][None] - shared)
    match = np.where(iou.max(0) >= 0.5, iou.argmax(0), -1)
    for row in reversed(range(len(boxes))):
        match[iou[row].argmax()] = row
    codes = box_coder.encode(boxes[match.clip(0)], anchors, SPEC.box_coder)
    return match, np.where(match[:, None] >= 0, codes, 0)


def run_steps(nudge: bool, double: bool) -> dict[str, np.ndarray]:
    """Ten steps from ckpt0 in this process's TensorFlow."""
    import tensorflow as tf

    kind = tf.float64 if double else tf.float32
    weights = np.load(GOLDENS / "ckpt0_values.npz")
    start = {name: weights[name] for name, _, _ in TABLE.variables()}
    start = nudged(start) if nudge else start
    variables = {name: tf.Variable(tf.cast(value, kind)) for name, value in start.items()}
    trained = [name for name, _, trainable in TABLE.variables() if trainable]
    square = {name: tf.Variable(tf.ones_like(variables[name])) for name in trained}
    momentum = {name: tf.Variable(tf.zeros_like(variables[name])) for name in trained}
    average = {name: tf.Variable(variables[name]) for name in trained}
    inputs = np.load(GOLDENS / "trainstep_inputs.npz")
    pixels = tf.cast(inputs["images"], kind) * INPUT_SCALE + INPUT_OFFSET
    anchors = anchors_yxyx(SPEC.anchors, TABLE.feature_map_shapes, 256, 256).astype(kind.as_numpy_dtype)
    found = [targets(anchors, inputs[f"gt{i}"].reshape(-1, 4).astype(anchors.dtype)) for i in range(len(pixels))]
    match = np.stack([m for m, _ in found])  # (B, A)
    codes_wanted = tf.constant(np.stack([c for _, c in found]), kind)
    classes_wanted = tf.one_hot((match >= 0).astype(np.int32), 2, dtype=kind)
    moving: dict[str, tf.Tensor] = {}

    def normalised(x: tf.Tensor, layer) -> tf.Tensor:
        gamma, beta = (variables[layer.batch_norm(n)] for n in ("gamma", "beta"))
        if double:  # the fused operation knows no float64
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, SPEC.batch_norm_epsilon)
            count = float(np.prod(x.shape[:3]))
            variance = variance * count / (count - 1)
        else:
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=gamma.value(),
                offset=beta.value(),
                mean=[],
                variance=[],
                is_training=True,
                epsilon=SPEC.batch_norm_epsilon,
            )
        moving[layer.batch_norm("moving_mean")], moving[layer.batch_norm("moving_variance")] = mean, variance
        return y

    def forward(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        maps, outputs = {p.input: p for p in TABLE.predictors}, []
        for layer in TABLE.layers:
            convolve = tf.nn.depthwise_conv2d if layer.kind == "depthwise" else tf.nn.conv2d
            x = convolve(x, variables[layer.weights], [1, layer.stride, layer.stride, 1], "SAME")
            x = tf.nn.relu6(normalised(x, layer))
            if layer.name in maps:
                for scope, size in ((maps[layer.name].box_scope, 4), (maps[layer.name].class_scope, 2)):
                    y = tf.nn.bias_add(
                        tf.nn.conv2d(x, variables[f"{scope}/weights"], 1, "SAME"), variables[f"{scope}/biases"]
                    )
                    outputs.append(tf.reshape(y, [len(match), -1, size]))
        return tf.concat(outputs[::2], 1), tf.concat(outputs[1::2], 1)

    def hard(codes: tf.Tensor, loss: tf.Tensor) -> np.ndarray:
        """(B, A): the positives and three times as many of the costliest negatives that NMS leaves."""
        boxes = box_coder.decode(codes.numpy(), anchors, SPEC.box_coder)
        kept = np.zeros(match.shape, bool)
        for i, row in enumerate(match):
            order = tf.image.non_max_suppression(
                boxes[i].astype(np.float32), tf.cast(loss[i], tf.float32), 3000, 0.99
            ).numpy()
            positive = order[row[order] >= 0]
            kept[i, positive] = True
            kept[i, order[row[order] < 0][: 3 * len(positive)]] = True
        return kept

    decayed = [e.weights for e in TABLE.layers if e.kind == "conv"]
    decayed += [f"{s}/weights" for p in TABLE.predictors for s in (p.box_scope, p.class_scope)]
    result: dict[str, np.ndarray] = {}
    losses = []
    for step in range(1, 11):
        with tf.GradientTape() as tape:
            codes, logits = forward(pixels)
            error = tf.abs(codes - codes_wanted)
            huber = tf.reduce_sum(tf.where(error < 1, 0.5 * error * error, error - 0.5), -1) * (match >= 0)
            entropy = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(classes_wanted, logits), -1)
            kept = tf.cast(hard(codes, entropy), kind)
            count = max((match >= 0).sum(), 1)
            localization = tf.reduce_sum(huber * kept) / count
            classification = tf.reduce_sum(entropy * kept) / count
            penalty = tf.add_n([L2 * tf.nn.l2_loss(variables[name]) for name in decayed])
            total = localization + classification + penalty
        gradients = tape.gradient(total, [variables[name] for name in trained])
        losses.append([float(total), float(localization), float(classification)])
        if step == 1:
            result |= {"codes": codes.numpy(), "logits": logits.numpy()}
            result |= {f"gradient|{n}": g.numpy() for n, g in zip(trained, gradients, strict=True)}
        for name, gradient in zip(trained, gradients, strict=True):
            tf.raw_ops.ResourceApplyRMSProp(
                var=variables[name].handle,
                ms=square[name].handle,
                mom=momentum[name].handle,
                **{k: tf.constant(v, kind) for k, v in dict(lr=RATE, rho=0.9, momentum=0.9, epsilon=1.0).items()},
                grad=gradient,
            )
            average[name].assign_sub((average[name] - variables[name]) * (1 - AVERAGE))
        for name, value in moving.items():
            variables[name].assign_sub((variables[name] - value) * (1 - DECAY))
        if step in STEPS:
            for suffix, values in (
                ("", variables),
                ("/RMSProp", square),
                ("/RMSProp_1", momentum),
                ("/ExponentialMovingAverage", average),
            ):
                result |= {f"after{step}|{n}{suffix}": v.numpy() for n, v in values.items()}
    return result | {"losses": np.array(losses)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, help="run one way only, into --out")
    parser.add_argument("--out", type=Path, help="where the arrays go (.npz)")
    args = parser.parse_args()
    if args.way:
        import tensorflow as tf

        threads, _, double, nudge = WAYS[args.way]
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        np.savez(args.out, **run_steps(nudge, double))
        return
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (way, (_, onednn, _, _)) in enumerate(WAYS.items()):  # threads and kernels are chosen once per process
            path = Path(folder) / f"{i}.npz"
            subprocess.run(
                [sys.executable, __file__, "--way", way, "--out", path],
                check=True,
                env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": str(int(onednn)), "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            runs[way] = dict(np.load(path))
    golden = golden_run(GOLDENS)
    console.print_table("from the original's arrays", COLUMNS, [[w, *distances(r, golden)] for w, r in runs.items()])
    base, *others = runs
    console.print_table(
        f"from TensorFlow's own run with {base}", COLUMNS, [[w, *distances(runs[w], runs[base])] for w in others]
    )


if __name__ == "__main__":
    main()
