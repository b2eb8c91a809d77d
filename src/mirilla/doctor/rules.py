"""What the doctor says: findings, and the rules they come from, each with what shows it.

Proven means: files made by Google's compiler show it, its makers or its users' logs say it (the numbers are
those of issues of google/aiyprojects-raspbian), or the file in hand contradicts itself. Inferred means that
no known file does so, or that a rule was carried over from cases that are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mirilla.graph import rules
from mirilla.graph.rules import INFERRED, PROVEN

WILL_NOT, MAY_NOT, NOTE = "will not run", "may not run", "note"
SEVERITIES = (WILL_NOT, MAY_NOT, NOTE)


@dataclass(frozen=True)
class Rule:
    """One rule of the kit.

    Attributes:
        text: the rule in a sentence.
        severity: of a breach.
        certainty: PROVEN or INFERRED.
        evidence: what shows it, or what it is inferred from.
    """

    text: str
    severity: str
    certainty: str
    evidence: str


@dataclass(frozen=True)
class Finding:
    """One thing that stands against a model, or that its owner should know.

    Attributes:
        severity: WILL_NOT, MAY_NOT or NOTE.
        code: a short stable name; the key of RULES where the rule has an entry there.
        layer: the node, layer, tensor, constant or field concerned.
        what: what is wrong there.
        rule: the rule it breaks.
        remedy: what to do about it.
        certainty: PROVEN or INFERRED.
        evidence: what shows the rule, or what it is inferred from.
        fixable: whether `--fix` mends it.
        alive: for memory: (tensor, bytes) of everything that must be held at once.
    """

    severity: str
    code: str
    layer: str
    what: str
    rule: str
    remedy: str
    certainty: str
    evidence: str
    fixable: bool = False
    alive: tuple[tuple[str, int], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.code, self.layer

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        content = asdict(self)
        content["alive"] = [{"tensor": name, "bytes": size} for name, size in self.alive]
        return content


_FILES = "every file of Google's compiler that is known"
_ISSUE = "google/aiyprojects-raspbian, issue"

RULES: dict[str, Rule] = {
    "preprocessing-inside": Rule(
        "The network begins with normalised pixels; decoding, resizing, loops and scaling stay on the host.",
        WILL_NOT,
        PROVEN,
        f"{_ISSUE} 368 and 314: Google's compiler stops at TensorArrayV3, Enter, LoopCond.",
    ),
    "preprocessing-before": Rule(
        "What stands before the input tensor is not compiled.",
        NOTE,
        PROVEN,
        "the graph and the compiled file of the golden pair: its scale is not folded in either.",
    ),
    "postprocessing-inside": Rule(
        "The network ends with raw outputs; decoding and non-maximum suppression stay on the host.",
        WILL_NOT,
        PROVEN,
        f"{_FILES} ends with concat, concat_1 or a softmax.",
    ),
    "unknown-name": Rule(
        "Input and outputs are nodes of the graph.", WILL_NOT, PROVEN, "the graph's own list of nodes."
    ),
    "kernel-too-large": Rule(
        "No kernel is larger than the map it runs over.",
        WILL_NOT,
        PROVEN,
        f"{_ISSUE} 314: the compiler's makers name this as what the bonnet does not support.",
    ),
    "batch-norm-not-constant": Rule(
        "Mean, variance, scale and offset of a batch norm are constants.",
        WILL_NOT,
        PROVEN,
        f"{_ISSUE} 411: Google's compiler stops with that check.",
    ),
    "not-frozen": Rule(
        "Variables are constants in a frozen graph.", WILL_NOT, PROVEN, "the graph holds no values for them."
    ),
    "training-switch": Rule(
        "Nothing is decided while the network runs: no switches between training and inference.",
        WILL_NOT,
        PROVEN,
        f"{_ISSUE} 411; the format has no op for it.",
    ),
    "dropout": Rule(
        "Dropout belongs to training; at inference it passes its input on.",
        WILL_NOT,
        PROVEN,
        "the format has no random numbers.",
    ),
    "quantised": Rule(
        "The bonnet computes in fp16; graphs with simulated or real 8-bit quantisation are not taken.",
        WILL_NOT,
        PROVEN,
        f"{_ISSUE} 438: Google's compiler stops at FakeQuant nodes; 512: fp16.",
    ),
    "refused-op": Rule(
        "Tile, Max, Prod and Unpack on a picture's tensor have no op on the bonnet.",
        WILL_NOT,
        PROVEN,
        f"{_ISSUE} 439 and 674: Google's compiler stops at them.",
    ),
    "unknown-op": Rule(
        "The network consists of convolutions, Relu6, average pools, products, reshapes, concats and softmax.",
        WILL_NOT,
        INFERRED,
        "no known compiled file holds another op, so nothing shows how it would be written.",
    ),
    "no-sample": Rule(
        "The network consists of convolutions, Relu6, average pools, products, reshapes, concats and softmax.",
        WILL_NOT,
        INFERRED,
        "no known compiled file holds this op; Google's compiler may have had it, but nothing shows how it is written.",
    ),
    "newer-op": Rule(
        "TensorFlow 1.4, on which Google's compiler stands, does not know this op.",
        NOTE,
        PROVEN,
        f"{_ISSUE} 674. 'mirilla compile' understands it; Google's compiler and other old readers do not.",
    ),
    "newer-attribute": Rule(
        "TensorFlow 1.4, on which Google's compiler stands, does not know this attribute.",
        NOTE,
        PROVEN,
        "TensorFlow 1.4's op registry. 'mirilla compile' understands it; old readers may refuse the graph.",
    ),
    "input-channels": Rule(
        "The input has three channels, RGB.",
        WILL_NOT,
        PROVEN,
        f"{_FILES} reads 3 planes in its first convolution; the client sends RGB, and grey three times.",
    ),
    "input-side": Rule(
        "The input's sides are multiples of 8.",
        MAY_NOT,
        INFERRED,
        "the rule is that of Google's guide, which is gone; known files have 160, 224 and 256.",
    ),
    "input-not-square": Rule(
        "The input is square.",
        MAY_NOT,
        PROVEN,
        f"{_ISSUE} 536: Google's compiler takes square inputs only. Whether the firmware does, nothing shows.",
    ),
    "input-size": Rule(
        "The input has a fixed size.", WILL_NOT, PROVEN, "the memory plan holds addresses for one size."
    ),
    "depth": Rule(
        "Tensors that a convolution or pool reads have a depth that is a multiple of 8 (all but the input).",
        MAY_NOT,
        INFERRED,
        f"{_FILES} keeps to it: 16, 32, 64, 128 ...; only outputs (6, 12, 24, 1001) do not.",
    ),
    "flatten": Rule(
        "A fully connected layer reads a map that was pooled to 1x1, not a flattened one.",
        MAY_NOT,
        INFERRED,
        f"known files have one only after a global pool; {_ISSUE} 439 shows Google's compiler refuse Flatten.",
    ),
    "arena-overflow": Rule(
        "All tensors alive at once, with scratch memory, fit into 1441792 bytes.",
        WILL_NOT,
        PROVEN,
        f"the plan of {_FILES} follows from that size; {_ISSUE} 436: 'Not enough on-device memory'. (A "
        "larger "
        "network was published for the kit, so Google's compiler knew a further way, which nobody has "
        "seen.)",
    ),
    "fp16-overflow": Rule(
        "Weights and biases, batch norm folded in, are below 65520 in magnitude.",
        WILL_NOT,
        PROVEN,
        "the range of fp16, in which every constant is stored (the largest in known files is 88.4).",
    ),
    "name-taken": Rule(
        "A model is not loaded under a name that the firmware uses itself.",
        WILL_NOT,
        PROVEN,
        "the client's published source says that the graph has no effect under FaceDetection: the firmware "
        "answers with a model of its own. That DishDetection is like it is inferred.",
    ),
    "classes": Rule(
        "Decoder, labels and network agree about the number of classes.", WILL_NOT, PROVEN, "the outputs' shapes."
    ),
    "anchors": Rule("Decoder and network agree about the number of anchors.", WILL_NOT, PROVEN, "the outputs' shapes."),
    "google-decoder": Rule(
        "aiy.vision.models.object_detection decodes three classes and 1278 anchors, nothing else.",
        NOTE,
        PROVEN,
        "the client's published source.",
    ),
    "card": Rule("model.json belongs to the file it lies beside.", MAY_NOT, PROVEN, "its checksum."),
    "letterbox": Rule(
        "The kit squashes the whole picture to the input's size.",
        NOTE,
        INFERRED,
        "the client sends pictures whole; how the firmware resizes them is not known.",
    ),
    "depthwise-kernel": Rule(
        "Depthwise convolutions are 3x3 with SAME padding.",
        MAY_NOT,
        INFERRED,
        f"{_FILES} has no other; {_ISSUE} 644 shows Google's compiler refuse 1x1.",
    ),
    "planar-threshold": Rule(
        "Depthwise convolutions of stride 1 run planar on maps from some side between 21 and 28 on.",
        MAY_NOT,
        INFERRED,
        "known files have sides up to 20 and from 28 on; between them nothing is known.",
    ),
    "planar-reader": Rule(
        "A depthwise convolution of stride 1 follows the first convolution.", MAY_NOT, INFERRED, f"{_FILES} does so."
    ),
    "first-conv": Rule(
        "The first convolution is 3x3, stride 2, with 16 channels.",
        MAY_NOT,
        INFERRED,
        f"{_FILES} does so; its scratch memory for other shapes is a guess.",
    ),
    "concat-depth": Rule("Concats join rows or columns.", MAY_NOT, INFERRED, "no known file joins along depth."),
    "plan-differs": Rule(
        "The memory plan is the one that follows from ops and sizes.",
        MAY_NOT,
        PROVEN,
        f"{_FILES} agrees with the plan computed afresh in every number.",
    ),
    "plan-overflow": Rule("Every tensor and scratch lies inside the arena.", WILL_NOT, PROVEN, "the file's own plan."),
    "plan-overlap": Rule(
        "Tensors that are alive together do not share memory.", WILL_NOT, PROVEN, "the file's own plan."
    ),
    "plan-missing": Rule("Every op has a memory plan.", WILL_NOT, PROVEN, f"{_FILES} has one for every op."),
    "arena-size": Rule("The file states the arena's 1441792 bytes.", MAY_NOT, PROVEN, f"{_FILES} does."),
    "config": Rule("The pipeline's model can be built.", WILL_NOT, PROVEN, "docs/config.md."),
    "malformed": Rule("Ops fit their inputs.", WILL_NOT, PROVEN, "the file itself."),
}


def finding(
    code: str,
    layer: str,
    what: str,
    remedy: str,
    *,
    severity: str | None = None,
    alive: tuple[tuple[str, int], ...] = (),
) -> Finding:
    """A finding of a rule in RULES; `severity` replaces the rule's own."""
    rule = RULES[code]
    return Finding(
        severity or rule.severity, code, layer, what, rule.text, remedy, rule.certainty, rule.evidence, alive=alive
    )


def from_rule(one: rules.Finding, severity: str = WILL_NOT) -> Finding:
    """A finding of the reader, the compiler or the planner; RULES says more where it has the rule."""
    rule = RULES.get(one.rule)
    if rule is None:
        evidence = (
            "the graph itself."
            if one.certainty == PROVEN
            else "no known compiled file does so, so nothing shows how it would be written."
        )
        return Finding(severity, one.rule or "refused", one.layer, one.what, "", one.remedy, one.certainty, evidence)
    return Finding(severity, one.rule, one.layer, one.what, rule.text, one.remedy, rule.certainty, rule.evidence)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without repetitions, the most severe first."""
    unique: dict[tuple[str, str], Finding] = {}
    for one in findings:
        unique.setdefault(one.key, one)
    return tuple(sorted(unique.values(), key=lambda one: SEVERITIES.index(one.severity)))


def stands_against(findings: Iterable[Finding]) -> bool:
    """Whether anything but notes was found."""
    return any(one.severity != NOTE for one in findings)


def some(names: Iterable[str], most: int = 3) -> str:
    """ "'a', 'b', 'c' and 4 more"."""
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
