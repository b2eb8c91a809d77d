"""Boxes from the raw outputs of model_heads.onnx, or of what a vendor's compiler made of it. Needs numpy only.

    from decode import Decoder
    for label, score, (ymin, xmin, ymax, xmax) in Decoder("model.json")(outputs):

`outputs`: the arrays in the file's order, real numbers (dequantised if the runtime gives integers): the box codes of
each map, then the class logits of each map, as (1, channels, rows, columns), or (1, rows, columns, channels) with
Decoder("model.json", planar=False). Boxes are normalised to the network's input, 0 to 1.
"""

import json

import numpy as np


class Decoder:
    def __init__(self, model_json, planar=True):
        with open(model_json, encoding="utf-8") as file:
            model = json.load(file)
        anchors = np.array(model["anchors"]["boxes_yxyx"], np.float32)
        self.centres, self.sizes = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        coder, post = model["box_coder"], model["post_processing"]
        self.offset_scales = np.array([coder["y_scale"], coder["x_scale"]], np.float32)
        self.size_scales = np.array([coder["height_scale"], coder["width_scale"]], np.float32)
        self.converter, self.iou = post["score_converter"], post["iou_threshold"]
        self.most = post["max_total_detections"]
        self.threshold = model["recommended_threshold"]
        self.labels = {label["id"]: label["display_name"] or label["name"] for label in model["labels"]}
        self.planar = planar

    def __call__(self, outputs, threshold=None):
        """Detections as (label, score, box), best first; scores from `threshold` (default: the model's)."""
        maps = [np.asarray(one, np.float32) for one in outputs]
        if self.planar:
            maps = [one.transpose(0, 2, 3, 1) for one in maps]
        half = len(maps) // 2
        codes = np.concatenate([one.reshape(-1, 4) for one in maps[:half]])
        logits = np.concatenate([one.reshape(-1, max(self.labels) + 1) for one in maps[half:]])
        found = []
        boxes, scores = self._boxes(codes), self._scores(logits)
        for column in range(scores.shape[1]):
            for i in self._kept(boxes, scores[:, column], self.threshold if threshold is None else threshold):
                label = self.labels.get(column + 1, "unused")
                found.append((label, float(scores[i, column]), tuple(np.clip(boxes[i], 0, 1).tolist())))
        return sorted(found, key=lambda one: -one[1])[: self.most]

    def _boxes(self, codes):
        centres = codes[:, :2] / self.offset_scales * self.sizes + self.centres
        halves = np.exp(codes[:, 2:] / self.size_scales) * self.sizes / 2
        return np.concatenate([centres - halves, centres + halves], 1)

    def _scores(self, logits):
        if self.converter == "SOFTMAX":
            powers = np.exp(logits - logits.max(1, keepdims=True))
            return (powers / powers.sum(1, keepdims=True))[:, 1:]  # without the background
        return 1 / (1 + np.exp(-logits[:, 1:])) if self.converter == "SIGMOID" else logits[:, 1:]

    def _kept(self, boxes, scores, threshold):
        """Non-maximum suppression: the boxes that overlap no better one."""
        left = np.argsort(-scores, kind="stable")
        left = left[scores[left] >= threshold]
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
        while len(left):
            best, left = left[0], left[1:]
            yield best
            low, high = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
            both = np.prod(np.maximum(high - low, 0), 1)
            left = left[both / (areas[best] + areas[left] - both) <= self.iou]
