"""What the doctor says: findings, and the rules they come from, each with what shows it.

Proven means: files made by Google's compiler show it, its makers or its users' logs say it (the numbers are
those of issues of google/aiyprojects-raspbian), or the file in hand contradicts itself. Inferred means that
no known file does so, or that a rule was carried over from cases that are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mirilla.findings import ERROR, INFERRED, NOTE, PROVEN, WARNING, Certainty, Finding, Severity, by_severity

# How the doctor prints severities.
VERDICTS: dict[Severity, str] = {ERROR: "will not run", WARNING: "may not run", NOTE: "note"}


@dataclass(frozen=True)
class Rule:
    """One rule of the kit.

    Attributes:
        text: the rule in a sentence.
        severity: of a finding about it.
        certainty: PROVEN or INFERRED.
        evidence: what shows it, or what it is inferred from.
    """

    text: str
    severity: Severity
    certainty: Certainty
    evidence: str


def to_json(finding: Finding) -> dict[str, Any]:
    """A finding as `mirilla doctor --json` prints it."""
    return {
        "severity": VERDICTS[finding.severity],
        "code": finding.code,
        "layer": finding.where,
        "what": finding.what,
        "rule": finding.rule,
        "remedy": finding.remedy,
        "certainty": finding.certainty,
        "evidence": finding.evidence,
        "fixable": finding.fixable,
        "alive": [{"tensor": name, "bytes": size} for name, size in finding.alive],
    }


_FILES = "every file of Google's compiler that is known"
_ISSUE = "google/aiyprojects-raspbian, issue"

RULES: dict[str, Rule] = {
    "preprocessing-inside": Rule(
        "The network begins with normalised pixels; decoding, resizing, loops and scaling stay on the host.",
        ERROR,
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
        ERROR,
        PROVEN,
        f"{_FILES} ends with concat, concat_1 or a softmax.",
    ),
    "unknown-name": Rule("Input and outputs are nodes of the graph.", ERROR, PROVEN, "the graph's own list of nodes."),
    "kernel-too-large": Rule(
        "No kernel is larger than the map it runs over.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 314: the compiler's makers name this as what the bonnet does not support.",
    ),
    "batch-norm-not-constant": Rule(
        "Mean, variance, scale and offset of a batch norm are constants.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 411: Google's compiler stops with that check.",
    ),
    "not-frozen": Rule(
        "Variables are constants in a frozen graph.", ERROR, PROVEN, "the graph holds no values for them."
    ),
    "training-switch": Rule(
        "Nothing is decided while the network runs: no switches between training and inference.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 411; the format has no op for it.",
    ),
    "dropout": Rule(
        "Dropout belongs to training; at inference it passes its input on.",
        ERROR,
        PROVEN,
        "the format has no random numbers.",
    ),
    "quantised": Rule(
        "The bonnet computes in fp16; graphs with simulated or real 8-bit quantisation are not taken.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 438: Google's compiler stops at FakeQuant nodes; 512: fp16.",
    ),
    "refused-op": Rule(
        "Tile, Max, Prod and Unpack on a picture's tensor have no op on the bonnet.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 439 and 674: Google's compiler stops at them.",
    ),
    "unknown-op": Rule(
        "The network consists of convolutions, Relu6, average pools, products, reshapes, concats and softmax.",
        ERROR,
        INFERRED,
        "no known compiled file holds another op, so nothing shows how it would be written.",
    ),
    "no-sample": Rule(
        "The network consists of convolutions, Relu6, average pools, products, reshapes, concats and softmax.",
        ERROR,
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
        ERROR,
        PROVEN,
        f"{_FILES} reads 3 planes in its first convolution; the client sends RGB, and grey three times.",
    ),
    "input-side": Rule(
        "The input's sides are multiples of 8.",
        WARNING,
        INFERRED,
        "the rule is that of Google's guide, which is gone; known files have 160, 224 and 256.",
    ),
    "input-not-square": Rule(
        "The input is square.",
        WARNING,
        PROVEN,
        f"{_ISSUE} 536: Google's compiler takes square inputs only. Whether the firmware does, nothing shows.",
    ),
    "input-size": Rule("The input has a fixed size.", ERROR, PROVEN, "the memory plan holds addresses for one size."),
    "depth": Rule(
        "Tensors that a convolution or pool reads have a depth that is a multiple of 8 (all but the input).",
        WARNING,
        INFERRED,
        f"{_FILES} keeps to it: 16, 32, 64, 128 ...; only outputs (6, 12, 24, 1001) do not.",
    ),
    "flatten": Rule(
        "A fully connected layer reads a map that was pooled to 1x1, not a flattened one.",
        WARNING,
        INFERRED,
        f"known files have one only after a global pool; {_ISSUE} 439 shows Google's compiler refuse Flatten.",
    ),
    "arena-overflow": Rule(
        "All tensors alive at once, with scratch memory, fit into 1441792 bytes.",
        ERROR,
        PROVEN,
        f"the plan of {_FILES} follows from that size; {_ISSUE} 436: 'Not enough on-device memory'. (A "
        "larger "
        "network was published for the kit, so Google's compiler knew a further way, which nobody has "
        "seen.)",
    ),
    "fp16-overflow": Rule(
        "Weights and biases, batch norm folded in, are below 65520 in magnitude.",
        ERROR,
        PROVEN,
        "the range of fp16, in which every constant is stored (the largest in known files is 88.4).",
    ),
    "name-taken": Rule(
        "A model is not loaded under a name that the firmware uses itself.",
        ERROR,
        PROVEN,
        "the client's published source says that the graph has no effect under FaceDetection: the firmware "
        "answers with a model of its own. That DishDetection is like it is inferred.",
    ),
    "classes": Rule(
        "Decoder, labels and network agree about the number of classes.", ERROR, PROVEN, "the outputs' shapes."
    ),
    "anchors": Rule("Decoder and network agree about the number of anchors.", ERROR, PROVEN, "the outputs' shapes."),
    "google-decoder": Rule(
        "aiy.vision.models.object_detection decodes three classes and 1278 anchors, nothing else.",
        NOTE,
        PROVEN,
        "the client's published source.",
    ),
    "card": Rule("model.json belongs to the file it lies beside.", WARNING, PROVEN, "its checksum."),
    "letterbox": Rule(
        "The kit squashes the whole picture to the input's size.",
        NOTE,
        INFERRED,
        "the client sends pictures whole; how the firmware resizes them is not known.",
    ),
    "depthwise-kernel": Rule(
        "Depthwise convolutions are 3x3 with SAME padding.",
        WARNING,
        INFERRED,
        f"{_FILES} has no other; {_ISSUE} 644 shows Google's compiler refuse 1x1.",
    ),
    "planar-threshold": Rule(
        "Depthwise convolutions of stride 1 run planar on maps from some side between 21 and 28 on.",
        WARNING,
        INFERRED,
        "known files have sides up to 20 and from 28 on; between them nothing is known.",
    ),
    "planar-reader": Rule(
        "A depthwise convolution of stride 1 follows the first convolution.", WARNING, INFERRED, f"{_FILES} does so."
    ),
    "first-conv": Rule(
        "The first convolution is 3x3, stride 2, with 16 channels.",
        WARNING,
        INFERRED,
        f"{_FILES} does so; its scratch memory for other shapes is a guess.",
    ),
    "concat-depth": Rule("Concats join rows or columns.", WARNING, INFERRED, "no known file joins along depth."),
    "plan-differs": Rule(
        "The memory plan is the one that follows from ops and sizes.",
        WARNING,
        PROVEN,
        f"{_FILES} agrees with the plan computed afresh in every number.",
    ),
    "plan-overflow": Rule("Every tensor and scratch lies inside the arena.", ERROR, PROVEN, "the file's own plan."),
    "plan-overlap": Rule("Tensors that are alive together do not share memory.", ERROR, PROVEN, "the file's own plan."),
    "plan-missing": Rule("Every op has a memory plan.", ERROR, PROVEN, f"{_FILES} has one for every op."),
    "arena-size": Rule("The file states the arena's 1441792 bytes.", WARNING, PROVEN, f"{_FILES} does."),
    "config": Rule("The pipeline's model can be built.", ERROR, PROVEN, "docs/config.md."),
    "malformed": Rule("Ops fit their inputs.", ERROR, PROVEN, "the file itself."),
}


def finding(
    code: str,
    where: str,
    what: str,
    remedy: str,
    *,
    severity: Severity | None = None,
    alive: tuple[tuple[str, int], ...] = (),
) -> Finding:
    """A finding about a rule in RULES; `severity` replaces the rule's own."""
    rule = RULES[code]
    return Finding(
        severity or rule.severity,
        code,
        where,
        what,
        remedy,
        rule.certainty,
        rule.evidence,
        rule.text,
        alive=alive,
    )


def with_rule(found: Finding) -> Finding:
    """A finding of the reader, the compiler or the planner, with the rule's text and evidence from RULES."""
    rule = RULES.get(found.code)
    if rule is not None:
        return replace(found, rule=rule.text, certainty=rule.certainty, evidence=rule.evidence)
    evidence = (
        "the graph itself."
        if found.certainty == PROVEN
        else "no known compiled file does so, so nothing shows how it would be written."
    )
    return replace(found, code=found.code or "refused", evidence=evidence)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without repetitions, the most severe first."""
    unique: dict[tuple[str, str], Finding] = {}
    for found in findings:
        unique.setdefault(found.key, found)
    return tuple(by_severity(unique.values()))


def stands_against(findings: Iterable[Finding]) -> bool:
    """Whether anything but notes was found."""
    return any(one.severity != NOTE for one in findings)


def some(names: Iterable[str], most: int = 3) -> str:
    """ "'a', 'b', 'c' and 4 more"."""
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
