"""Google's own client for the kit, used as on the kit, against the emulator.

The client needs an old protobuf, so it is installed in a separate environment, made once for this file. The tests are
skipped if the package registry cannot be reached.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers_environment import make_environment
from mirilla import boxes as geometry
from mirilla.bonnet.run import CompiledModel
from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.emulator.camera import open_frames
from mirilla.emulator.server import Server
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.box_coder import decode
from mirilla.model.spec import AnchorSpec, BoxCoderSpec

pytestmark = pytest.mark.slow  # making the environment takes a while

CLIENT = "aiy-projects-python==1.4"
DEPENDENCIES = [
    "protobuf==3.20.3",
    "pillow",
]  # the client's metadata requires packages that only build on a Raspberry Pi
MAPS = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
ANCHORS = anchors_yxyx(AnchorSpec(), MAPS, 256, 256)
# Photos of ilc2021 in which these models detect something (they were not trained on faces).
# Photos of scikit-image's package -> the ImageNet classes that they show, counted from 1 (0 is the background).
OBJECTS = {
    "chelsea.png": {282, 283, 286},  # tabby, tiger cat, Egyptian cat
    "coffee.png": {505, 968, 969},  # coffee mug, espresso, cup
    "motorcycle_left.png": {666, 671},  # moped, motor scooter
    "motorcycle_right.png": {666, 671},
}
PHOTOS = (
    "1a1f1785657aa98068e6b66d1031784d",
    "121c9e1e2f9fefa8a5ea63b54d23ac91",
    "01d0117fb990e00ac58348ba621975aa",
    "0697d656d0e607116947d81322f962a2",
    "0d1340a3e928cfe722852e74f0828561",
    "1255e19d9448c5c43be10c545553e8e5",
    "0d5c4d735a8521b8509e71357559bb74",
    "177cd8213775da3a8ea5785f72f79a56",
)

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with Google's client."""
    if os.name == "nt" or platform.machine().startswith("arm"):
        pytest.skip("Google's client needs a Unix, and treats a processor named arm... as the kit")
    return make_environment(tmp_path_factory.mktemp("kit") / "venv", DEPENDENCIES, ["--no-deps", CLIENT])


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few photos for the camera."""
    source = shared / "data" / "faces" / "ilc2021" / "images"
    if not source.is_dir():
        pytest.skip("../shared/data/faces/ilc2021 is missing")
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS:
        shutil.copy(source / f"{name}.jpg", folder)
    return folder


@pytest.fixture(scope="module")
def models(shared: Path) -> Path:
    folder = shared / "data" / "bonnet"
    if not folder.is_dir():
        pytest.skip("../shared/data/bonnet is missing")
    return folder


@pytest.fixture(scope="module")
def kit_models(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our model and anchors under the file names that the client's decoder expects."""
    folder = tmp_path_factory.mktemp("models")
    stem = "mobilenet_ssd_256res_0.125_person_cat_dog"
    shutil.copy(models / "card_detector.binaryproto", folder / f"{stem}.binaryproto")
    lines = [" ".join(repr(float(edge)) for edge in anchor) for anchor in ANCHORS]
    (folder / f"{stem}_anchors.txt").write_text("\n".join(lines) + "\n")
    stem = "mobilenet_v1_160res_0.5_imagenet"
    shutil.copy(models / "google_mobilenet_v1_160_imagenet.binaryproto", folder / f"{stem}.binaryproto")
    shutil.copy(models / "google_squeezenet_160.binaryproto", folder / "squeezenet_160res_5x5_0.75.binaryproto")
    (folder / f"{stem}_labels.txt").write_text("".join(f"{i}\n" for i in range(1001)))
    return folder


@pytest.fixture(scope="module")
def ask(environment: Path, photos: Path, kit_models: Path) -> Iterator[Ask]:
    """Run a job of helpers_kit_client.py against an emulator and return what it prints."""
    script = Path(__file__).with_name("helpers_kit_client.py")
    with Server(EmulatedBonnet(frames=open_frames(photos), fps=0), port=0) as server:

        def run(job: str, **arguments: object) -> Any:
            variables = {
                "VISION_BONNET_HOST": server.host,
                "VISION_BONNET_PORT": str(server.port),
                "VISION_BONNET_MODELS_PATH": str(kit_models),
            }
            clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
            done = subprocess.run(
                [str(environment), str(script), job, json.dumps(arguments)],
                env=clean | variables,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        yield run


def flat(model: Path, rgb: np.ndarray) -> dict[str, np.ndarray]:
    """{output: flat values} of our interpreter for a photo."""
    return {k: v.ravel() for k, v in CompiledModel.load(model).run_image(rgb, 128, 128).items()}


def test_images(ask: Ask, models: Path, photos: Path):
    model, photo = models / "card_detector.binaryproto", photos / f"{PHOTOS[0]}.jpg"
    answer = ask("images", model=str(model), photo=str(photo))
    assert answer["loaded"] == ["mine"]
    assert answer["left"] == []
    with Image.open(photo) as image:
        rgb, grey = np.asarray(image.convert("RGB")), np.asarray(image.convert("L"))
    pictures = {"jpeg": rgb, "rgb": rgb, "grey": np.repeat(grey[:, :, None], 3, 2)}
    for kind, pixels in pictures.items():
        result, expected = answer[kind], flat(model, pixels)
        assert result["model"] == "mine"
        assert result["size"] == [rgb.shape[1], rgb.shape[0]]
        assert result["window"] == [0, 0, rgb.shape[1], rgb.shape[0]]
        assert result["duration_ms"] >= 1
        assert result["frame"] is None
        assert result["tensors"]["concat"]["shape"] == [1, 1278, 1, 4]
        assert result["tensors"]["concat_1"]["shape"] == [1, 1, 1278, 4]
        for name, values in expected.items():
            # builds of Pillow may decode a JPEG with a difference of one grey level
            tolerance = 0.2 if kind == "jpeg" else 1e-5
            np.testing.assert_allclose(result["tensors"][name]["data"], values, atol=tolerance)
    assert (
        np.abs(
            np.subtract(answer["grey"]["tensors"]["concat"]["data"], answer["rgb"]["tensors"]["concat"]["data"])
        ).max()
        > 0.01
    )


def test_classifier(ask: Ask, models: Path, photos: Path):
    model, photo = models / "rps_160.binaryproto", photos / f"{PHOTOS[0]}.jpg"
    result = ask("images", model=str(model), photo=str(photo), side=160)["rgb"]
    assert result["tensors"]["final_result"]["shape"] == [1, 1, 1, 3]
    assert sum(result["tensors"]["final_result"]["data"]) == pytest.approx(1, abs=1e-5)


def test_camera(ask: Ask, models: Path, photos: Path):
    model = models / "pikachu2_detector.binaryproto"
    answer = ask("camera", model=str(model), count=len(PHOTOS) + 1)
    assert answer["running"] is True
    assert answer["after"] is False
    assert answer["processing"] == ["mine"]
    assert answer["count"] == len(PHOTOS) + 1
    assert [r["frame"][0] for r in answer["results"]] == list(range(len(PHOTOS) + 1))
    order = sorted(photos.iterdir())
    for path, result in zip([*order, order[0]], answer["results"], strict=True):
        with Image.open(path) as image:
            assert result["size"] == list(image.size)
            expected = flat(model, np.asarray(image.convert("RGB")))
        np.testing.assert_allclose(result["tensors"]["concat_1"]["data"], expected["concat_1"], atol=1e-5)


def test_sparse(ask: Ask, models: Path, photos: Path):
    threshold, top_k = -4.0, 7
    model, photo = models / "card_detector.binaryproto", photos / f"{PHOTOS[0]}.jpg"
    answer = ask("sparse", model=str(model), photo=str(photo), rows=1278, columns=4, threshold=threshold, top_k=top_k)
    logits = np.reshape(answer["dense"]["tensors"]["concat_1"]["data"], (1278, 4))
    codes = np.reshape(answer["dense"]["tensors"]["concat"]["data"], (1278, 4))
    scores, boxes = (answer["sparse"]["tensors"][name] for name in ("concat_1", "concat"))
    foreground = logits.copy()
    foreground[:, 0] = -np.inf
    best = np.sort(foreground[foreground > threshold])[::-1][:top_k]
    assert len(best) == top_k
    assert scores["data"] == best.tolist()
    assert [logits[row, column] for row, column in scores["indices"]] == scores["data"]
    rows = list(dict.fromkeys(row for row, _ in scores["indices"]))
    assert boxes["indices"] == [[row] for row in rows]
    np.testing.assert_array_equal(np.reshape(boxes["data"], (-1, 4)), codes[rows])


def test_state_and_reset(ask: Ask, models: Path):
    answer = ask("state")
    assert answer["firmware"] == "1.2"
    assert answer["uptime"] >= 0
    assert answer["temperature"] == 40
    answer = ask("reset", model=str(models / "pikachu2_detector.binaryproto"))
    assert answer == {"before": ["mine"], "after": []}


def test_errors_arrive_as_exceptions(ask: Ask, models: Path, photos: Path):
    model, photo = models / "card_detector.binaryproto", photos / f"{PHOTOS[0]}.jpg"
    answer = ask("errors", model=str(model), photo=str(photo))
    exceptions, warnings = answer["exceptions"], answer["warnings"]
    assert exceptions["not loaded"] == "ImageInference: Model 'mine' is not loaded."
    assert exceptions["unload"] == "UnloadModel: Model 'mine' is not loaded."
    assert exceptions["stop"] == "StopCameraInference: Camera inference is not running."
    assert exceptions["camera"] == "CameraInference: Camera inference is not running."
    assert "JPEG" in exceptions["jpeg"]
    assert "logical shape" in exceptions["sparse"]
    assert exceptions["fine"] is None
    # the client turns errors of load_model into warnings
    assert exceptions["load"] is None
    assert exceptions["face"] is None
    assert len(warnings) == 2
    assert warnings[0].startswith("LoadModel: ")
    assert "ignores the graph" in warnings[1]


def our_objects(model: Path, photo: Path, threshold: float, background: bool = True) -> np.ndarray:
    """Rows of x, y, width, height in whole pixels, class and score, by our box coder, anchors and NMS.

    Google's rule: an anchor counts if its largest logit belongs to an object class and exceeds the threshold (the
    sparse decoder ignores the background); a single NMS at 0.5 for all classes, on boxes truncated to whole pixels.
    """
    with Image.open(photo) as image:
        rgb = np.asarray(image.convert("RGB"))
    outputs = flat(model, rgb)
    logits = outputs["concat_1"].reshape(1278, -1).astype(np.float64)
    if not background:
        logits[:, 0] = -np.inf
    classes = logits.argmax(1)
    scores = 1 / (1 + np.exp(-logits.max(1)))
    keep = np.flatnonzero((classes > 0) & (scores > threshold))
    codes = outputs["concat"].reshape(1278, 4).astype(np.float64)[keep]
    edges = geometry.clip(decode(codes, ANCHORS[keep].astype(np.float64), BoxCoderSpec()))
    height, width = rgb.shape[:2]
    x, y = np.trunc(edges[:, 1] * width), np.trunc(edges[:, 0] * height)
    w, h = np.trunc((edges[:, 3] - edges[:, 1]) * width), np.trunc((edges[:, 2] - edges[:, 0]) * height)
    chosen = geometry.nms(np.stack([y, x, y + h, x + w], 1), scores[keep], 0.5, 1278)
    return np.stack([x, y, w, h, classes[keep], scores[keep]], 1)[chosen]


@pytest.mark.parametrize("name", ["card_detector", "pikachu2_detector", "pikachu_detector", "darthvader"])
def test_googles_decoder_gives_the_same_objects_as_ours(ask: Ask, models: Path, photos: Path, name: str):
    threshold, model = 0.05, models / f"{name}.binaryproto"
    paths = sorted(photos.iterdir())
    own = {} if name == "card_detector" else {"model": str(model), "classes": 2}
    answers = ask("objects", photos=[str(p) for p in paths], threshold=threshold, **own)
    counts: dict[str, int] = {}
    for path, answer in zip(paths, answers, strict=True):
        for kind, found in answer.items():
            sparse = kind == "sparse"
            ours = our_objects(model, path, 0.5 if sparse else threshold, background=not sparse)
            counts[kind] = counts.get(kind, 0) + len(ours)
            theirs = np.array(found, np.float64).reshape(-1, 6)
            assert theirs.shape == ours.shape, path.name
            np.testing.assert_array_equal(theirs[:, 4], ours[:, 4])  # classes
            np.testing.assert_allclose(theirs[:, 5], ours[:, 5], atol=1e-6)  # scores
            np.testing.assert_allclose(theirs[:, :4], ours[:, :4], atol=1)  # a pixel: rounding
    assert set(counts) == ({"dense", "sparse"} if name == "card_detector" else {"dense"})
    assert min(counts.values()) >= (1 if name == "pikachu_detector" else 3), counts


def test_googles_decoder_gives_the_same_objects_as_the_detector(ask: Ask, models: Path, photos: Path):
    """The same with our usual post-processing, which has an NMS per class."""
    from mirilla import postprocess
    from mirilla.model.spec import ModelSpec, PostProcessing

    paths = sorted(photos.iterdir())
    answers = ask("objects", photos=[str(p) for p in paths], threshold=0.3)
    spec = ModelSpec(num_classes=3, post_processing=PostProcessing(score_threshold=0.05, iou_threshold=0.5))
    total = 0
    for path, answer in zip(paths, answers, strict=True):
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB"))
        outputs = flat(models / "card_detector.binaryproto", rgb)
        codes, logits = (outputs[key].reshape(1278, 4) for key in ("concat", "concat_1"))
        ours = postprocess.detections(codes, logits, ANCHORS, spec)
        for x, y, w, h, kind, score in answer["dense"]:
            theirs = np.array([[y, x, y + h, x + w]]) / np.tile(rgb.shape[:2], 2)
            same = (ours.classes == kind) & (np.abs(ours.scores - score) < 1e-4)
            assert same.any()
            assert geometry.iou(theirs, ours.boxes_yxyx[same].astype(np.float64)).max() > 0.9
            total += 1
    assert total >= 3


def test_googles_classifiers(ask: Ask, environment: Path, models: Path):
    """The best class is right for photos of things that ImageNet has, and the probabilities are the interpreter's."""
    command = [str(environment), "-m", "pip", "install", "-q", "--no-deps", "--retries", "1", "scikit-image"]
    if subprocess.run(command, capture_output=True, timeout=240).returncode:
        pytest.skip("scikit-image, for its photos, cannot be installed")
    where = "import importlib.util as u; print(u.find_spec('skimage').submodule_search_locations[0])"
    folder = Path(subprocess.run([environment, "-c", where], capture_output=True, text=True).stdout.strip()) / "data"
    found = ask("classes", photos=[str(folder / name) for name in OBJECTS])
    files = {
        "image_classification_mobilenet": "google_mobilenet_v1_160_imagenet.binaryproto",
        "image_classification_squeezenet": "google_squeezenet_160.binaryproto",
    }
    for path, answers in found.items():
        name = Path(path).name
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB"))
        for kind, (whole, sparse) in answers.items():
            assert int(whole[0][0]) in OBJECTS[name], (name, kind, whole)
            probabilities = next(iter(flat(models / files[kind], rgb).values()))
            best = np.argsort(-probabilities)[:3]
            assert [int(label) for label, _ in whole] == best.tolist()
            np.testing.assert_allclose([score for _, score in whole], probabilities[best], atol=1e-5)
            assert [label for label, _ in sparse] == [label for label, score in whole if score > 0.01]
