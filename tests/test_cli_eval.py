"""`mirilla eval` from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mirilla.cli.main import main


def test_predictions_against_wider_face(shared, tmp_path, capsys):
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    folder = shared / "data/wider_eval"
    arguments = [
        "eval",
        "--predictions",
        str(folder / "predictions/mnet_python.tar.gz"),
        "--ground-truth",
        str(folder),
        "--metrics",
        "widerface",
    ]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "easy" in text
    assert "metric: WIDER FACE AP (official rule)" in text
    figures = json.loads((tmp_path / "metrics.json").read_text())[0]["figures"]
    assert figures["hard"] == pytest.approx(0.3952, abs=0.0005)
    assert (tmp_path / "precision_recall_widerface.png").stat().st_size > 10_000
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["figures"] == figures


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["eval"], 2, "A MODEL and a DATASET are needed"),
        (["eval", "m.pb", "d", "--metrics", "widerface"], 2, "needs the benchmark's ground truth"),
        (["eval", "--predictions", "p"], 2, "need --ground-truth"),
        (["eval", "--predictions", "p", "m.pb", "d"], 2, "replaces the model"),
        (["eval", "--pipeline-config", "p"], 2, "must be given together"),
        (["eval", "missing.pb", "missing"], 1, "missing.pb"),
    ],
)
def test_wrong_usage(arguments, code, message, capsys):
    assert main(arguments) == code
    assert message in capsys.readouterr().err


@pytest.fixture
def silent(monkeypatch):
    """Every model detects nothing."""
    from mirilla.detect.detector import Detector
    from mirilla.labels import LabelMap
    from mirilla.model.card import ModelCard
    from mirilla.model.spec import ModelSpec
    from mirilla.targets.target import Codes

    def load(path, *, threshold=None, averages=None):
        card = ModelCard(ModelSpec(), LabelMap.from_names(["face"]), name="silent")
        anchors = len(card.anchors_yxyx)

        def network(pictures):
            logits = np.full((len(pictures), anchors, 2), -50, np.float32)
            return Codes(np.zeros((len(pictures), anchors, 4), np.float32), logits)

        return Detector(card, network, threshold, source=str(path))

    monkeypatch.setattr(Detector, "load", staticmethod(load))


def test_a_model_on_a_csv_data_set(silent, tmp_path, capsys):
    """The model's own label map, threshold and protocol are used; the data set is read as any other."""
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "images/a.png")
    (tmp_path / "annotations.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,80,60,face,10,10,50,50\n"
    )
    assert main(["eval", "model.pb", str(tmp_path), "--json", "--score-threshold", "0.1"]) == 0
    result = json.loads(capsys.readouterr().out)[0]
    assert result["metric"] == "faces"
    assert result["figures"]["AP@0.5"] == 0
    assert "scores >= 0.1" in result["protocol"]["detector"]
    assert result["protocol"]["model"] == "model.pb"


def test_the_pipeline_config_sets_data_and_metrics(silent, shared, tmp_path, capsys):
    """Records, label map and metrics come from the config's eval parts."""
    folder = shared / "data/odapi"
    config = tmp_path / "pipeline.config"
    content = (folder / "pipeline_b24.config").read_text()
    start = content.rindex("eval_config")
    config.write_text(
        content[:start]
        + f"""eval_input_reader {{
  label_map_path: "{folder}/label_map.pbtxt"
  sample_1_of_n_examples: 16
  tf_record_input_reader {{ input_path: "{folder}/val.record" }}
}}
eval_config {{ metrics_set: "pascal_voc_detection_metrics" metrics_set: "strange" }}
"""
    )
    assert main(["eval", "--pipeline-config", str(config), "--model-dir", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    (result,) = json.loads(printed.out)
    assert result["metric"] == "pascal"
    assert result["protocol"]["data"].startswith("3 pictures")
    assert "'strange'" in printed.err
