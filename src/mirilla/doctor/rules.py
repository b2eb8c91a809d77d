"""The rules of the Vision Kit, each with its severity, its certainty and its evidence.

A rule is proven if files made by Google's compiler show it, if the compiler's makers or users report it (the numbers
are issues of google/aiyprojects-raspbian on GitHub), or if the checked file contradicts itself. It is inferred if no
known file breaks it, or if it was derived from known cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mirilla.findings import ERROR, INFERRED, NOTE, PROVEN, WARNING, Certainty, Finding, Severity, by_severity

# How the doctor prints severities.
VERDICTS: dict[Severity, str] = {ERROR: "will not run", WARNING: "may not run", NOTE: "note"}


@dataclass(frozen=True)
class Rule:
    """A rule of the kit.

    Attributes:
        text: the rule in a sentence.
        severity: severity of its findings.
        certainty: PROVEN or INFERRED.
        evidence: the evidence for it, or the observations from which it is inferred.
    """

    text: str
    severity: Severity
    certainty: Certainty
    evidence: str


def to_json(found: Finding) -> dict[str, object]:
    """A finding as `mirilla doctor --json` prints it."""
    return {
        "severity": VERDICTS[found.severity],
        "code": found.code,
        "layer": found.where,
        "what": found.what,
        "rule": found.rule,
        "remedy": found.remedy,
        "certainty": found.certainty,
        "evidence": found.evidence,
        "fixable": found.fixable,
        "alive": [{"tensor": name, "bytes": size} for name, size in found.alive],
    }


_GOOGLES_FILES = "every known file of Google's compiler"
_ISSUE = "google/aiyprojects-raspbian, issue"
_LAYERS = "The network consists of convolutions, Relu6, Relu, pools, products, reshapes, concats and softmax."

RULES: dict[str, Rule] = {
    "preprocessing-inside": Rule(
        "The network starts from normalised pixels; decoding, resizing, loops and scaling run on the host.",
        ERROR,
        PROVEN,
        f"{_ISSUE}s 368 and 314: Google's compiler stops at TensorArrayV3, Enter, LoopCond.",
    ),
    "preprocessing-before": Rule(
        "Nodes before the input tensor are not compiled.",
        NOTE,
        PROVEN,
        "a graph and its file from Google's compiler: the graph's input scale is not folded into the weights.",
    ),
    "postprocessing-inside": Rule(
        "The network ends with raw outputs; box decoding and non-maximum suppression run on the host.",
        ERROR,
        PROVEN,
        f"{_GOOGLES_FILES} ends with concat, concat_1 or a softmax.",
    ),
    "unknown-name": Rule("Input and outputs are nodes of the graph.", ERROR, PROVEN, "the graph's list of nodes."),
    "kernel-too-large": Rule(
        "No kernel is larger than its input map.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 314: the makers of the compiler say that the bonnet does not support it.",
    ),
    "batch-norm-not-constant": Rule(
        "Mean, variance, scale and offset of batch norm are constants.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 411: Google's compiler stops with this check.",
    ),
    "not-frozen": Rule(
        "Variables are constants in a frozen graph.", ERROR, PROVEN, "the graph has no values for them."
    ),
    "training-switch": Rule(
        "Every switch between training and inference has a fixed side, and every input but the image a default.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 411; the format has no such op. Defaults and fixed switches are removed when a graph is read, as "
        "Google's compiler did with graphs of 'TensorFlow for poets'.",
    ),
    "dropout": Rule(
        "Dropout is used in training only; at inference it passes its input on.",
        ERROR,
        PROVEN,
        "the format has no random numbers. Plain dropout is removed when a graph is read.",
    ),
    "quantised": Rule(
        "The bonnet computes in fp16; graphs with simulated or real 8-bit quantisation are not supported.",
        ERROR,
        PROVEN,
        f"{_ISSUE} 438: Google's compiler stops at FakeQuant nodes; issue 512: fp16.",
    ),
    "refused-op": Rule(
        "The bonnet has no op for Tile, Max, Prod or Unpack of a feature map.",
        ERROR,
        PROVEN,
        f"{_ISSUE}s 439 and 674: Google's compiler stops at them.",
    ),
    "unknown-op": Rule(_LAYERS, ERROR, INFERRED, "no known compiled file has another op, so its encoding is unknown."),
    "no-sample": Rule(
        _LAYERS,
        ERROR,
        INFERRED,
        "no known compiled file has this op; Google's compiler may support it, but its encoding is unknown.",
    ),
    "newer-op": Rule(
        "TensorFlow 1.4, which Google's compiler uses, does not have this op.",
        NOTE,
        PROVEN,
        f"{_ISSUE} 674. 'mirilla compile' supports the op; Google's compiler and other old readers do not.",
    ),
    "newer-attribute": Rule(
        "TensorFlow 1.4, which Google's compiler uses, does not have this attribute.",
        NOTE,
        PROVEN,
        "TensorFlow 1.4's op registry. 'mirilla compile' supports it; old readers may refuse the graph.",
    ),
    "input-channels": Rule(
        "The input has three channels, RGB.",
        ERROR,
        PROVEN,
        f"{_GOOGLES_FILES} reads three planes in its first convolution; the kit's client sends RGB, and grey images "
        "as three equal channels.",
    ),
    "input-side": Rule(
        "The input's sides are multiples of 8.",
        WARNING,
        INFERRED,
        "Google's guide, which is no longer online, had this rule; known files have 160, 224 and 256.",
    ),
    "input-not-square": Rule(
        "The input is square.",
        WARNING,
        PROVEN,
        f"{_ISSUE} 536: Google's compiler accepts square inputs only. It is unknown whether the firmware does.",
    ),
    "depth": Rule(
        "Tensors that a convolution reads, except the input, have a depth that is a multiple of 8.",
        WARNING,
        INFERRED,
        f"{_GOOGLES_FILES} has such depths: 8, 16, 24, 32, 64 ...; only outputs and what a pool reads (6, 12, 24, "
        "1001) do not.",
    ),
    "arena-overflow": Rule(
        "All tensors that are alive at the same time, with scratch memory, fit into 1441792 bytes.",
        ERROR,
        PROVEN,
        f"the memory plan of {_GOOGLES_FILES} follows from this size; {_ISSUE} 436: 'Not enough on-device memory'. "
        "A reorder that does not fit beside its input writes outside the arena, as in Google's own Squeezenet; a "
        "larger network was published for the kit, so there may be other cases.",
    ),
    "fp16-overflow": Rule(
        "Weights and biases, with batch norm folded in, are below 65520 in magnitude.",
        ERROR,
        PROVEN,
        "the range of fp16, in which all constants are stored (the largest in known files is 88.4). Google's compiler "
        "did not check it: an old file, which its author replaced, has constants that are not numbers.",
    ),
    "name-taken": Rule(
        "A model must not be loaded under a name of a built-in model of the firmware.",
        ERROR,
        PROVEN,
        "the client's published source says that the firmware ignores the graph under the name FaceDetection and uses "
        "its own model. That this holds for DishDetection is inferred.",
    ),
    "classes": Rule("Decoder, labels and network have the same number of classes.", ERROR, PROVEN, "output shapes."),
    "anchors": Rule("Decoder and network have the same number of anchors.", ERROR, PROVEN, "output shapes."),
    "google-decoder": Rule(
        "aiy.vision.models.object_detection decodes only three classes and 1278 anchors.",
        NOTE,
        PROVEN,
        "the client's published source.",
    ),
    "card": Rule("model.json belongs to the model file in the same folder.", WARNING, PROVEN, "its checksum."),
    "letterbox": Rule(
        "The kit squashes the whole image to the input's size.",
        NOTE,
        INFERRED,
        "the client sends whole images; how the firmware resizes them is unknown.",
    ),
    "depthwise-kernel": Rule(
        "Depthwise convolutions are 3x3 with SAME padding.",
        WARNING,
        INFERRED,
        f"{_GOOGLES_FILES} has no other; {_ISSUE} 644: Google's compiler refuses 1x1.",
    ),
    "planar-threshold": Rule(
        "3x3 convolutions of stride 1 use the planar layout on large maps: depthwise ones from 21 to 28 "
        "px on, others from 10 to 16 px on.",
        WARNING,
        INFERRED,
        "the sides in known files; what happens between is unknown.",
    ),
    "first-conv": Rule(
        "The first convolution is 3x3, stride 2, with 16 channels; 5x5, stride 2, with 72; or 3x3, stride 1, with 32.",
        WARNING,
        INFERRED,
        f"{_GOOGLES_FILES} has one of these; the scratch memory of other shapes is a guess.",
    ),
    "plan-differs": Rule(
        "The memory plan is the one that follows from ops and sizes.",
        WARNING,
        PROVEN,
        f"the plan of {_GOOGLES_FILES} equals the computed one in every number.",
    ),
    "plan-overflow": Rule("Every tensor and scratch block is inside the arena.", ERROR, PROVEN, "the file's own plan."),
    "plan-overlap": Rule(
        "Tensors that are alive at the same time do not share memory.", ERROR, PROVEN, "the file's own plan."
    ),
    "plan-missing": Rule("Every op has a memory plan.", ERROR, PROVEN, f"{_GOOGLES_FILES} has one for every op."),
    "arena-size": Rule("The file states the arena's 1441792 bytes.", WARNING, PROVEN, f"{_GOOGLES_FILES} does."),
    "config": Rule("The pipeline's network can be built.", ERROR, PROVEN, "docs/config.md."),
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
    """A finding about a rule in RULES.

    Args:
        severity: replaces the rule's severity.
        alive: for memory: (tensor, bytes) of everything held at the same time.
    """
    rule = RULES[code]
    return Finding(
        severity or rule.severity, code, where, what, remedy, rule.certainty, rule.evidence, rule.text, alive=alive
    )


def with_rule(found: Finding) -> Finding:
    """Add the text and evidence of its rule to a finding of the reader, the compiler or the planner."""
    rule = RULES.get(found.code)
    if rule is not None:
        return replace(found, rule=rule.text, certainty=rule.certainty, evidence=rule.evidence)
    evidence = (
        "the graph itself."
        if found.certainty == PROVEN
        else "no known compiled file has this, so its encoding is unknown."
    )
    return replace(found, code=found.code or "refused", evidence=evidence)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings without duplicates, the most severe first."""
    unique: dict[tuple[str, str], Finding] = {}
    for found in findings:
        unique.setdefault(found.key, found)
    return tuple(by_severity(unique.values()))


def has_problems(findings: Iterable[Finding]) -> bool:
    """Whether any finding is more than a note."""
    return any(found.severity != NOTE for found in findings)


def listed(names: Iterable[str], limit: int = 3) -> str:
    """Names for a message: "'a', 'b', 'c' and 4 more"."""
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
