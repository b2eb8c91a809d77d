"""Runs in the environment of Google's client, with a running emulator: does one job and prints JSON.

Usage: python helpers_kit_client.py JOB JSON-ARGUMENTS. It imports nothing of Mirilla or of the test suite.
"""

import json
import logging
import sys

from aiy.vision import inference
from PIL import Image


class Warnings(logging.Handler):
    """Keeps the warnings of the client, which logs the errors of load_model instead of raising them."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


WARNINGS = Warnings()
logging.getLogger().addHandler(WARNINGS)


def descriptor(model, name, side=256):
    with open(model, "rb") as file:
        return inference.ModelDescriptor(name, (1, side, side, 3), (128.0, 128.0), file.read())


def tensors(result):
    return {
        name: {
            "shape": [t.shape.batch, t.shape.height, t.shape.width, t.shape.depth],
            "data": list(t.data),
            "indices": [list(index.values) for index in t.indices],
        }
        for name, t in result.tensors.items()
    }


def summary(result):
    window = result.window
    return {
        "model": result.model_name,
        "size": [result.width, result.height],
        "window": [window.x, window.y, window.width, window.height],
        "duration_ms": result.duration_ms,
        "frame": [result.frame.index, result.frame.timestamp_us] if result.HasField("frame") else None,
        "tensors": tensors(result),
    }


def images(model, photo, side=256):
    """One photo as JPEG, as RGB planes and as a grey plane."""
    with inference.ImageInference(descriptor(model, "mine", side)) as client:
        loaded = list(client.engine.get_inference_state().loaded_models)
        with open(photo, "rb") as file:
            results = {"jpeg": summary(client.run(file.read()))}
        results["rgb"] = summary(client.run(Image.open(photo).convert("RGB")))
        results["grey"] = summary(client.run(Image.open(photo).convert("L")))
    with inference.InferenceEngine() as engine:
        left = list(engine.get_inference_state().loaded_models)
    return {"loaded": loaded, "left": left, **results}


def camera(model, count):
    with inference.CameraInference(descriptor(model, "mine")) as client:
        running = client.engine.get_camera_state()
        processing = list(client.engine.get_inference_state().processing_models)
        results = [summary(result) for result in client.run(count)]
    with inference.InferenceEngine() as engine:
        after = engine.get_camera_state().running
    return {
        "running": running.running,
        "size": [running.width, running.height],
        "after": after,
        "processing": processing,
        "results": results,
        "count": client.count,
    }


def sparse(model, photo, rows, columns, threshold, top_k):
    configs = {
        "concat_1": inference.ThresholdingConfig([rows, columns], threshold, top_k, [(1, 0)]),
        "concat": inference.FromSparseTensorConfig([rows], "concat_1", [1]),
    }
    with inference.ImageInference(descriptor(model, "mine")) as client:
        picture = Image.open(photo).convert("RGB")
        dense = summary(client.run(picture))
        return {"dense": dense, "sparse": summary(client.run(picture, sparse_configs=configs))}


def state():
    with inference.InferenceEngine() as engine:
        firmware, system = engine.get_firmware_info(), engine.get_system_info()
        return {"firmware": str(firmware), "uptime": system.uptime_seconds, "temperature": system.temperature_celsius}


def reset(model):
    with inference.InferenceEngine() as engine:
        engine.load_model(descriptor(model, "mine"))
        before = list(engine.get_inference_state().loaded_models)
        engine.reset()
        return {"before": before, "after": list(engine.get_inference_state().loaded_models)}


def errors(model, photo):
    """The texts of exceptions and the warnings that the client logs, for wrong requests."""
    found = {}

    def attempt(name, function):
        try:
            function()
            found[name] = None
        except inference.InferenceException as error:
            found[name] = str(error)

    good = descriptor(model, "mine")
    with inference.InferenceEngine() as engine:
        attempt("not loaded", lambda: engine.image_inference("mine", Image.open(photo).convert("RGB")))
        attempt("unload", lambda: engine.unload_model("mine"))
        attempt("stop", engine.stop_camera_inference)
        attempt("camera", engine.camera_inference)
        attempt("load", lambda: engine.load_model(good._replace(compute_graph=b"nonsense")))
        attempt("face", lambda: engine.load_model(good._replace(name="FaceDetection")))
        engine.load_model(good)
        attempt("jpeg", lambda: engine.image_inference("mine", b"nonsense"))
        picture = Image.open(photo).convert("RGB")
        wrong = {"concat": inference.ThresholdingConfig([5], 0.0, 1, [])}
        attempt("sparse", lambda: engine.image_inference("mine", picture, sparse_configs=wrong))
        attempt("fine", lambda: engine.image_inference("mine", picture))
        engine.unload_model("mine")
    return {"exceptions": found, "warnings": WARNINGS.lines}


def objects(photos, threshold, model=None, classes=4):
    """Google's own decoder, dense (and sparse, at 0.5), on the emulator's answers.

    It supports exactly four columns of logits; a model with fewer gets columns that never win.
    """
    from aiy.vision.models import object_detection

    def plain(found):
        return [[*box.bounding_box, box.kind, box.score] for box in found]

    made = object_detection.model() if model is None else descriptor(model, "mine")
    results = []
    with inference.ImageInference(made) as client:
        for photo in photos:
            picture = Image.open(photo).convert("RGB")
            answer = client.run(picture)
            if classes < 4:
                logits = list(answer.tensors["concat_1"].data)
                wide = []
                for start in range(0, len(logits), classes):
                    wide += [*logits[start : start + classes], *[-100.0] * (4 - classes)]
                del answer.tensors["concat_1"].data[:]
                answer.tensors["concat_1"].data.extend(wide)
            found = {"dense": plain(object_detection.get_objects(answer, threshold))}
            if classes == 4:
                # below 0.5 this decoder takes the missing logits, 0, for the best
                few = client.run(picture, sparse_configs=object_detection.sparse_configs(0.5))
                found["sparse"] = plain(object_detection.get_objects_sparse(few))
            results.append(found)
    return results


def classes(photos):
    """Google's own decoder of its two classifiers, whole and sparse."""
    from aiy.vision.models import image_classification as decoder

    results = {}
    for kind in (decoder.MOBILENET, decoder.SQUEEZENET):
        with inference.ImageInference(decoder.model(kind)) as client:
            for photo in photos:
                picture = Image.open(photo).convert("RGB")
                whole = decoder.get_classes(client.run(picture), 3)
                few = client.run(picture, sparse_configs=decoder.sparse_configs(3, 0.01, kind))
                results.setdefault(photo, {})[kind] = [whole, decoder.get_classes_sparse(few)]
    return results


if __name__ == "__main__":
    jobs = {job.__name__: job for job in (images, camera, sparse, state, reset, errors, objects, classes)}
    json.dump(jobs[sys.argv[1]](**json.loads(sys.argv[2])), sys.stdout)
