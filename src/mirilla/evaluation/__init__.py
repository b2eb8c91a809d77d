"""Evaluation of detectors: AP on faces, COCO, Pascal VOC and WIDER FACE, each figure with its protocol."""

from mirilla.evaluation.coco import Coco
from mirilla.evaluation.faces import Faces
from mirilla.evaluation.interface import Curve, Evaluator, Figure, GroundTruth, Result, ground_truths_of
from mirilla.evaluation.measure import evaluate_model, measure, save_results
from mirilla.evaluation.pascal import Pascal
from mirilla.evaluation.widerface import WiderFace

__all__ = [
    "Coco",
    "Curve",
    "Evaluator",
    "Faces",
    "Figure",
    "GroundTruth",
    "Pascal",
    "Result",
    "WiderFace",
    "evaluate_model",
    "ground_truths_of",
    "measure",
    "save_results",
]
