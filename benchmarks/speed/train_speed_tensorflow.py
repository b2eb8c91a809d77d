"""A reference for train_speed.py: a training step of the same layers in Keras, compiled by tf.function.

Runs in any Python with TensorFlow 2 and Mirilla (no PyTorch). The layers come from Mirilla's table; the batch is
synthetic and made beforehand; the loss is summed over all anchors, without matching and mining; the update is momentum.
So it does less than one of Mirilla's steps, and reads no pictures.

Reads lines `step alone N` from standard input, and answers each with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = keras_model(tf, args.size)
    optimizer = tf.keras.optimizers.SGD(0.001, momentum=0.9)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (args.batch, args.size, args.size, 3)).astype(np.uint8))
    codes, logits = model(tf.zeros((1, args.size, args.size, 3)))
    wanted = tf.constant(rng.normal(size=(args.batch, *codes.shape[1:])).astype(np.float32))
    classes = tf.constant(rng.integers(0, 2, (args.batch, *logits.shape[1:])).astype(np.float32))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            codes, logits = model(tf.cast(images, tf.float32) * (2 / 255) - 1, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(classes, logits))
            loss += tf.reduce_mean(tf.square(codes - wanted))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    for _ in range(2):
        step().numpy()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        count = int(line.rpartition(" ")[2])
        before = usage()
        for _ in range(count):
            step().numpy()
        wall, user, system = (b - a for a, b in zip(before, usage(), strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            json.dumps({"images": count * args.batch, "wall": wall, "user": user, "system": system, "peak_gib": peak}),
            flush=True,
        )


def keras_model(tf, size: int):
    """Mirilla's sample network: pixels (B, H, W, 3) -> codes (B, A, 4) and logits (B, A, 2)."""
    from mirilla.model.layers import architecture
    from mirilla.model.spec import ModelSpec

    table = architecture(ModelSpec(height_px=size, width_px=size))
    heads = {p.input: p for p in table.predictors}
    x = image = tf.keras.Input((size, size, 3))
    codes, logits = [], []
    for layer in table.layers:
        if layer.kind == "depthwise":
            x = tf.keras.layers.DepthwiseConv2D(layer.kernel, layer.stride, "same", use_bias=False)(x)
        else:
            x = tf.keras.layers.Conv2D(layer.out_channels, layer.kernel, layer.stride, "same", use_bias=False)(x)
        x = tf.keras.layers.BatchNormalization(momentum=0.9997, epsilon=0.001)(x)
        x = tf.keras.layers.ReLU(6.0)(x)
        if (head := heads.get(layer.name)) is not None:
            for channels, width, found in ((head.box_channels, 4, codes), (head.class_channels, 2, logits)):
                found.append(tf.keras.layers.Reshape((-1, width))(tf.keras.layers.Conv2D(channels, 1)(x)))
    return tf.keras.Model(image, [tf.keras.layers.Concatenate(1)(found) for found in (codes, logits)])


def usage() -> tuple[float, float, float]:
    """Seconds: wall time, and CPU time of this process in user and in system mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime, used.ru_stime


if __name__ == "__main__":
    main()
