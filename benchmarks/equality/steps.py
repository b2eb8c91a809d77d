"""Ten training steps of an implementation, compared with the original's; used by `table.py`.

A run is a dict of arrays: `losses` (10, 3: total with regularization, localization, classification), `codes` and
`logits` of the first forward pass, `gradient|VARIABLE` of the first step with L2 in it, and `after1|ENTRY`,
`after2|ENTRY`, `after10|ENTRY` for every variable, slot and average, all in TensorFlow's layouts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

Run = Mapping[str, np.ndarray]
STEPS = (1, 2, 10)
LOSSES = ("total_loss", "Loss/localization_loss", "Loss/classification_loss")
COLUMNS = (
    "",
    "loss 1",
    "loss 2",
    "losses 1-10",
    "codes, logits 1",
    "gradient 1, relative",
    "variables 1",
    "variables 2",
    "variables 10",
    "averages 10",
)
SUFFIXES = ("RMSProp", "RMSProp_1", "ExponentialMovingAverage")


def golden_run(folder: Path) -> dict[str, np.ndarray]:
    """The original's ten steps from `../shared/data/odapi`."""
    steps = json.loads((folder / "trainstep_losses.json").read_text())
    first = np.load(folder / "trainstep_step1_forward_grads.npz")
    run = {
        "losses": np.array([[step[name] for name in LOSSES] for step in steps]),
        "codes": first["fwd|box_encodings"],
        "logits": first["fwd|class_predictions"],
    }
    run |= {f"gradient|{n[5:]}": first[n] for n in first.files if n.startswith("grad|")}
    for step in STEPS:
        after = np.load(folder / f"trainstep_vars_after{step}.npz")
        run |= {f"after{step}|{n}": after[n] for n in after.files if n != "global_step"}
    return run


def largest(a: Run, b: Run, names: list[str]) -> tuple[float, str]:
    """Largest difference over the named arrays, and the name of the worst."""
    found = {n: float(np.abs(a[n].astype(np.float64) - b[n].astype(np.float64)).max()) for n in names}
    worst = max(found, key=lambda n: found[n])
    return found[worst], worst


def relative(a: Run, b: Run, names: list[str]) -> float:
    """|a - b| / |b| of all the named arrays as one vector."""
    difference = sum(float(((a[n].astype(np.float64) - b[n]) ** 2).sum()) for n in names)
    return (difference / sum(float((b[n].astype(np.float64) ** 2).sum()) for n in names)) ** 0.5


def entries(run: Run, step: int, suffix: str | None) -> list[str]:
    """Entries after a step: the variables (suffix None), or one kind of slot or the averages."""
    names = [n for n in run if n.startswith(f"after{step}|")]
    return [n for n in names if (n.rpartition("/")[2] == suffix if suffix else n.rpartition("/")[2] not in SUFFIXES)]


def distances(a: Run, b: Run) -> list[str]:
    """The distances of two runs, one per column of COLUMNS except the first."""
    apart = np.abs(a["losses"] - b["losses"])
    figures = [apart[0].max(), apart[1].max(), apart.max()]
    figures.append(largest(a, b, ["codes", "logits"])[0])
    figures.append(relative(a, b, [n for n in b if n.startswith("gradient|")]))
    figures += [largest(a, b, entries(b, step, None))[0] for step in STEPS]
    figures.append(largest(a, b, entries(b, 10, "ExponentialMovingAverage"))[0])
    return [f"{value:.1e}" for value in figures]


def nudged(weights: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """The kernels changed by one unit in the last place of float32, up or down at random."""
    rng = np.random.default_rng(seed)
    result = dict(weights)
    for name in weights:
        if name.endswith("weights"):
            side = np.where(rng.random(weights[name].shape) < 0.5, -np.inf, np.inf).astype(np.float32)
            result[name] = np.nextafter(weights[name], side)
    return result
