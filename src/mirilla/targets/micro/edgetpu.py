"""The target `edgetpu`: the file of `tflite-int8`, for the compiler of Google's Edge TPU (Coral).

The compiler is closed and is not run here. `edgetpu.md` has its command, and which operators would run on the Edge TPU
by our own rules (`edgetpu_rules`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mirilla.findings import ERROR, INFERRED, WARNING, Finding
from mirilla.targets.micro.edgetpu_rules import Placement, placements
from mirilla.targets.target import Pixels, Source, Target
from mirilla.targets.tflite import integers
from mirilla.targets.tflite.run import run

PAGE = "edgetpu.md"
_EVIDENCE = "Coral's documentation, 'TensorFlow models on the Edge TPU'"

SNIPPET = """\
import os, numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate
from PIL import Image

compiled = os.path.exists("model_int8_edgetpu.tflite")  # what edgetpu_compiler writes
model = Interpreter("model_int8_edgetpu.tflite", experimental_delegates=[load_delegate("libedgetpu.so.1")]) \\
    if compiled else Interpreter("model_int8.tflite")
detect = model.get_signature_runner()
pixels = Image.open("photo.jpg").convert("RGB").resize(detect.get_input_details()["image"]["shape"][2:0:-1])
found = detect(image=(np.asarray(pixels, np.int16)[None] - 128).astype(np.int8))
print("best score:", (int(found["scores"].max()) + 128) / 256)
"""


def check(source: Source) -> list[Finding]:
    """Which operators run on the CPU, as one finding; an error if all do."""
    grey = np.full((1, *source.graph.input_shape), 128, np.uint8)  # the structure does not depend on the pictures
    found = placements(integers.network_model(source, grey))
    left = [one for one in found if not one.mapped]
    if not left:
        return []
    what = f"{len(left)} of {len(found)} operators run on the CPU, from {left[0].op} '{left[0].tensor}' on: "
    return [
        Finding(
            ERROR if len(left) == len(found) else WARNING,
            "edgetpu",
            left[0].tensor,
            f"{what}{left[0].reason}.",
            "Train with the score converter SIGMOID." if left[0].op == "SOFTMAX" else "Export to tflite-int8.",
            certainty=INFERRED,
            evidence=_EVIDENCE,
            op=left[0].op,
        )
    ]


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file, and a page with the compiler's command and what maps; `pictures` as for `tflite-int8`.

    Raises:
        ModelError: a layer cannot be written as TensorFlow Lite.
    """
    model = integers.network_model(source, pictures)
    weights = sum(tensor.value.nbytes for tensor in model.tensors if tensor.value is not None)
    return {integers.FILE: model.to_bytes(), PAGE: page(placements(model), weights).encode()}


def page(found: Sequence[Placement], weights_bytes: int) -> str:
    """The page `edgetpu.md`."""
    counts: dict[tuple[str, bool], int] = {}
    for one in found:
        counts[one.op, one.mapped] = counts.get((one.op, one.mapped), 0) + 1
    rows = "".join(
        f"| {op} | {count} | {'Edge TPU' if mapped else 'CPU'} |\n" for (op, mapped), count in sorted(counts.items())
    )
    text = _PAGE.format(mapped=sum(one.mapped for one in found), all=len(found), rows=rows, weights=weights_bytes)
    if left := [one for one in found if not one.mapped]:
        text += "\nOn the CPU:\n\n" + "".join(f"- {one.op} '{one.tensor}': {one.reason}.\n" for one in left)
    return text


_PAGE = """\
# model_int8.tflite, for the Edge TPU

Compile it with Google's compiler (Linux on x86-64), which writes model_int8_edgetpu.tflite:

```sh
edgetpu_compiler -s model_int8.tflite
```

For Frigate (detector `edgetpu`) and pycoral, compile the file of the target `tflite-detect` instead: its last
operators, DEQUANTIZE and TFLite_Detection_PostProcess, run on the CPU, as in Google's own detectors.

```sh
edgetpu_compiler -s model_detect.tflite
```

The compiler is closed, and we have not run it. By our reading of its documentation, {mapped} of {all} operators map to
the Edge TPU; compare with what `-s` prints. Weights and other constants are {weights:,} bytes; the Edge TPU keeps some
8 MB on its chip.

| operator | number | runs on |
|---|---:|---|
{rows}"""


EDGETPU = Target(
    "edgetpu",
    integers.FILE,
    "TensorFlow Lite for the compiler of Google's Edge TPU (Coral)",
    check,
    build,
    run,
    SNIPPET,
    calibrated=True,
)
