"""mirilla detect: photos, folders, videos, and what cannot be read."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from mirilla.cli.main import main
from mirilla.detect.detector import Detector
from mirilla.detect.video import live_source
from mirilla.labels import LabelMap
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.weights.export import export_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model of random weights that detects 'faces' in every picture."""
    pytest.importorskip("safetensors")
    spec = ModelSpec(height_px=64, width_px=64)
    random = np.random.default_rng(1)
    weights = {
        name: (np.ones(shape) if name.endswith(("variance", "gamma")) else random.normal(0, 0.4, shape))
        for name, shape, _ in architecture(spec).variables()
    }
    folder = tmp_path_factory.mktemp("model") / "tiny"
    export_model(spec, weights, LabelMap.from_names(["face"]), folder, threshold=0.6)
    return folder


def picture(path, seed=0, size=(80, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_photos_and_folders(model, tmp_path, capsys):
    single = picture(tmp_path / "one.png")
    picture(tmp_path / "many/a.jpg", 1)
    picture(tmp_path / "many/deeper/a.jpg", 2)
    (tmp_path / "many/notes.txt").write_text("no photo")
    out = tmp_path / "out"
    assert main(["detect", str(model), str(single), str(tmp_path / "many"), "--out", str(out)]) == 0
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "one.jpg",
        "a.jpg",
        "deeper/a.jpg",
        "detections.json",
    }
    content = json.loads((out / "detections.json").read_text())
    assert content["threshold"] == 0.6  # the model's own
    assert "squash" in content["protocol"]
    assert [entry["picture"] for entry in content["results"]] == ["one.jpg", "a.jpg", "deeper/a.jpg"]
    entry = content["results"][0]
    assert (entry["height_px"], entry["width_px"]) == (60, 80)
    found = Detector.load(model, threshold=0.6)(np.asarray(Image.open(single)))
    assert len(entry["detections"]) == len(found) > 0
    assert entry["detections"][0]["label"] == "face"
    np.testing.assert_allclose([d["box_yxyx"] for d in entry["detections"]], found.boxes_yxyx, atol=1e-5)
    drawn = np.asarray(Image.open(out / "one.jpg")).astype(int)
    assert drawn.shape == (60, 80, 3)
    assert np.abs(drawn - np.asarray(Image.open(single)).astype(int)).max() > 50
    printed = capsys.readouterr().out
    assert "one.png: face " in printed
    assert "found in 3 pictures" in printed


def test_json_lines(model, tmp_path, capsys):
    photos = [str(picture(tmp_path / f"{i}.png", i)) for i in range(2)]
    assert main(["detect", str(model), *photos, "--json", "--threshold", "0.9"]) == 0
    found = lines(capsys.readouterr().out)
    assert [entry["source"] for entry in found] == photos
    assert all(detection["score"] >= 0.9 for entry in found for detection in entry["detections"])
    assert {path.suffix for path in tmp_path.iterdir()} == {".png"}  # nothing is written without --out


def test_unreadable_photos_are_reported_and_skipped(model, tmp_path, capsys):
    good = picture(tmp_path / "good.png")
    cut = picture(tmp_path / "cut.jpg", 1)
    cut.write_bytes(cut.read_bytes()[:600])
    (tmp_path / "text.jpg").write_text("this is no picture")
    assert main(["detect", str(model), str(tmp_path), str(tmp_path / "nowhere.jpg"), "--json"]) == 1
    captured = capsys.readouterr()
    assert [entry["source"] for entry in lines(captured.out)] == [str(good)]
    for name in ("cut.jpg", "text.jpg", "nowhere.jpg"):
        assert name in captured.err
    assert "3 could not be read" in captured.err
    assert "Traceback" not in captured.err


def test_photos_of_the_same_name_get_different_results(model, tmp_path):
    photos = [picture(tmp_path / f"{folder}/x.png") for folder in ("a", "b")]
    out = tmp_path / "out"
    assert main(["detect", str(model), *map(str, photos), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"x.jpg", "x_2.jpg", "detections.json"}


def test_rotated_photos_are_turned_upright(model, tmp_path, capsys):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "white").save(path, exif=exif)
    assert main(["detect", str(model), str(path), "--json"]) == 0
    assert (lines(capsys.readouterr().out)[0]["height_px"]) == 40


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "x.jpg"], 1, "no such model"),
        (["MODEL", "EMPTY"], 1, "No photo and no video"),
        (["MODEL", "EMPTY", "--threshold", "7"], 2, "must be between 0 and 1"),
        (["MODEL", "EMPTY", "--frames", "0"], 2, "must be at least 1"),
        (["MODEL", "camera:first"], 1, "not a camera's number"),
    ],
)
def test_wrong_use(model, tmp_path, capsys, arguments, code, message):
    pytest.importorskip("cv2")
    (tmp_path / "empty").mkdir()
    words = {"MODEL": str(model), "EMPTY": str(tmp_path / "empty")}
    assert main(["detect", *(words.get(word, word) for word in arguments)]) == code
    assert message in capsys.readouterr().err


def test_output_folder_is_a_file(model, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    photo = picture(tmp_path / "x.png")
    assert main(["detect", str(model), str(photo), "--out", str(tmp_path / "out")]) == 2
    assert "out" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == ""


def test_without_a_model_the_shipped_one_is_used(model, tmp_path, capsys, monkeypatch):
    from mirilla import shipped

    monkeypatch.setattr(shipped, "FOLDER", model)
    photo = picture(tmp_path / "x.png")
    assert main(["detect", str(photo)]) == 0
    printed = capsys.readouterr().out
    assert "ships with Mirilla" in printed
    assert "x.png: face" in printed
    assert main(["detect", str(photo), "--json"]) == 0
    assert len(lines(capsys.readouterr().out)) == 1  # nothing but results
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "gone")
    assert main(["detect", str(photo)]) == 1
    assert "contains no model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["a.pb", "x.jpg"], "a.pb"),
        (["gone.pb", "x.jpg"], "gone.pb"),
        (["export", "x.jpg"], "export"),  # holds a model and a photo
        (["training", "x.jpg"], "training"),
        (["empty", "x.jpg"], "empty"),  # neither; loading it reports the error
        (["nowhere", "x.jpg"], "nowhere"),
        (["photos"], None),
        (["photos", "x.jpg"], None),
        (["x.jpg", "a.pb"], None),
        (["lite.tflite", "x.jpg"], "lite.tflite"),
        (["exported", "x.jpg"], "exported"),
        (["report", "x.jpg"], None),
        (["gone.jpg"], None),
        (["gone.MP4"], None),
        (["camera:0"], None),
        (["notes"], None),  # an existing file; reading it as a photo reports the error
    ],
)
def test_which_word_is_a_model(tmp_path, monkeypatch, words, named):
    from mirilla.cli.detect import model_and_photos

    monkeypatch.chdir(tmp_path)
    for name in (
        "a.pb",
        "x.jpg",
        "export/m.binaryproto",
        "export/x.jpg",
        "lite.tflite",
        "exported/model.onnx",
        "exported/photo.jpg",
        "report/index.html",
        "report/x.jpg",
        "training/pipeline.config",
        "photos/deep/x.png",
        "empty/y.txt",
        "notes",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert model_and_photos(None, words) == (named, tuple(words[1:] if named else words))
    assert model_and_photos("other", words) == ("other", tuple(words))


def test_a_model_without_a_photo(model, capsys):
    assert main(["detect", str(model)]) == 2
    assert "no photo is given" in capsys.readouterr().err


@pytest.fixture
def video(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (80, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MP4")
    random = np.random.default_rng(0)
    for _ in range(5):
        writer.write(random.integers(0, 256, (64, 80, 3), np.uint8))
    writer.release()
    return path


def test_a_video(model, video, tmp_path, capsys):
    import cv2

    out = tmp_path / "out"
    assert main(["detect", str(model), str(video), "--out", str(out), "--json"]) == 0
    found = lines(capsys.readouterr().out)
    assert [entry["frame"] for entry in found] == [0, 1, 2, 3, 4]
    assert {path.name for path in out.iterdir()} == {"clip.webm", "detections.json"}
    capture = cv2.VideoCapture(str(out / "clip.webm"))
    assert int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") == b"VP80"
    assert sum(capture.grab() for _ in range(9)) == 5
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (80, 64)


def test_a_video_cut_after_some_frames(model, video, capsys):
    assert main(["detect", str(model), str(video), "--frames", "2", "--json"]) == 0
    assert len(lines(capsys.readouterr().out)) == 2


def test_a_broken_video(model, tmp_path, capsys):
    pytest.importorskip("cv2")
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"rubbish" * 100)
    assert main(["detect", str(model), str(path), "--out", str(tmp_path / "out")]) == 1
    assert "not a readable video" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"detections.json"}


def test_a_video_without_opencv(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    assert main(["detect", str(model), str(tmp_path / "clip.mp4")]) == 1
    assert "pip install 'mirilla[video]'" in capsys.readouterr().err


def test_patterns_and_lists(model, tmp_path, capsys, monkeypatch):
    for name in ("a.jpg", "b.jpg", "c.png"):
        picture(tmp_path / "photos" / name)
    (tmp_path / "list.txt").write_bytes("photos/c.png\r\n\r\nphotos/a.jpg\r\n".encode("utf-16"))
    monkeypatch.chdir(tmp_path)
    assert main(["detect", str(model), "photos/*.jpg", "list.txt", "--json"]) == 0
    wanted = ["photos/a.jpg", "photos/b.jpg", "photos/c.png", "photos/a.jpg"]
    assert [entry["source"] for entry in lines(capsys.readouterr().out)] == wanted
    monkeypatch.chdir(tmp_path.parent)  # the paths in a list are also relative to the list
    assert main(["detect", str(model), str(tmp_path / "list.txt"), "--json"]) == 0
    assert len(lines(capsys.readouterr().out)) == 2
    assert main(["detect", str(model), str(tmp_path / "*.bmp"), "--json"]) != 0
    assert "no file fits this pattern" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_reported(model, tmp_path, capsys):
    picture(tmp_path / "photos" / "a.jpg")
    picture(tmp_path / "photos" / "locked" / "b.jpg")
    (tmp_path / "photos" / "locked").chmod(0)
    try:
        assert main(["detect", str(model), str(tmp_path / "photos")]) == 1
    finally:
        (tmp_path / "photos" / "locked").chmod(0o700)
    assert "locked: the folder cannot be read" in capsys.readouterr().err


def test_a_video_has_a_summary_and_lines_only_if_asked(model, video, tmp_path, capsys):
    assert main(["detect", str(model), str(video), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"clip\.mp4: \d+ found in 5 frames, [\d.]+ frames/s", out)
    assert "frame 0" not in out
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry["frame"] for entry in content["results"]] == [0, 1, 2, 3, 4]
    assert main(["detect", str(model), str(video), "-v"]) == 0
    assert "frame 4" in capsys.readouterr().out


def test_a_video_over_http(model, video, capsys):
    handler = partial(SimpleHTTPRequestHandler, directory=str(video.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/clip.mp4"
        assert main(["detect", str(model), address]) == 0
        assert f"{address}: " in capsys.readouterr().out
        assert main(["detect", address.replace("clip", "none")]) == 1
        assert "the stream cannot be read" in capsys.readouterr().err
        server.shutdown()


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("0", "camera:0"),
        ("2", "camera:2"),
        ("webcam", "camera:0"),
        ("rtsp://u:p@h/1", "rtsp://u:p@h/1"),
        ("a.mp4", None),
    ],
)
def test_words_for_cameras_and_streams(word, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert live_source(word) == source
    (tmp_path / "0").write_text("a file called 0")
    assert live_source("0") is None


def test_a_streams_password_is_not_shown(model, capsys):
    pytest.importorskip("cv2")
    assert main(["detect", str(model), "http://user:secret@127.0.0.1:9/x.mp4"]) == 1
    out, err = capsys.readouterr()
    assert "http://127.0.0.1:9/x.mp4: the stream cannot be read" in err
    assert "secret" not in out + err
