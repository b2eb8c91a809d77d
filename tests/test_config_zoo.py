"""The models of the zoo: their cost, computed by hand, and that the bonnet can run them."""

from __future__ import annotations

import json

import pytest

from mirilla import config
from mirilla.cli.main import main
from mirilla.config import zoo
from mirilla.config.to_spec import model_spec
from mirilla.doctor.cost import cost
from mirilla.errors import UsageError
from mirilla.job.options import JobOptions
from mirilla.model.layers import FIRST_MAPS, architecture
from mirilla.model.spec import ModelSpec

# parameters, million multiply-accumulates; the first as the sample's checkpoint has it
KNOWN = {"kit": (100_050, 28.41), "kit-s8": (100_446, 28.81), "kit-mid": (209_154, 43.43), "kit-wide": (358_066, 63.72)}


def made(name: str):
    pipeline = config.sample(1, "a", "b", "c")
    zoo.apply(name, pipeline)
    return pipeline


def test_the_first_is_the_sample_itself():
    assert config.dump(made("kit")) == config.dump(config.sample(1, "a", "b", "c"))
    assert model_spec(made(JobOptions.model)) == ModelSpec()


def test_applying_a_model_replaces_the_previous_one():
    pipeline = made("kit-wide-s8")
    zoo.apply("kit", pipeline)
    assert config.dump(pipeline) == config.dump(config.sample(1, "a", "b", "c"))


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_is_valid_and_has_its_maps(name):
    pipeline, model = made(name), zoo.find(name)
    assert {finding.severity for finding in config.check(pipeline, ("model",))} == {"note"}
    table = architecture(model_spec(pipeline))
    assert tuple(p.input for p in table.predictors)[: len(model.feature_maps)] == model.feature_maps
    assert tuple(p.anchors for p in table.predictors) == model.counts
    if name in KNOWN:
        assert (table.parameters, round(table.multiplications / 1e6, 2)) == KNOWN[name]
    if model.feature_maps != FIRST_MAPS:
        # the map of 1/8 of the input: two anchors of 4 codes and 2 logits, on 256 * width channels
        plain = architecture(model_spec(made(name.removesuffix("-s8"))))
        channels = table.predictors[0].in_channels
        assert table.parameters - plain.parameters == 2 * 6 * (channels + 1)
        assert table.multiplications - plain.multiplications == 32 * 32 * 2 * 6 * channels


@pytest.mark.parametrize("name", ["kit-s8", "kit-widest-s8"])
def test_the_bonnet_can_run_it(name):
    """Peaks: see test_model_maps; the largest are the network's widest that fits."""
    price = cost(model_spec(made(name)))
    assert price.runs
    assert price.findings == ()
    assert price.peak_bytes == {"kit-s8": 1_179_648, "kit-widest-s8": 1_311_488}[name]
    assert price.file_bytes is not None
    assert price.file_bytes > 2 * price.parameters


def test_the_next_width_overflows_the_arena():
    """0.4375: 28 planes of 128 * 128 beside 16 fill the arena's 1,441,792 bytes; no room for scratch."""
    pipeline = made("kit-widest")
    pipeline.model.ssd.feature_extractor.depth_multiplier = 0.4375
    price = cost(model_spec(pipeline))
    assert not price.runs
    assert price.peak_bytes is None
    assert any(finding.code == "arena-overflow" for finding in price.findings)


def test_unknown_names_list_the_known_names():
    with pytest.raises(UsageError) as caught:
        zoo.apply("kitt", config.sample(1, "a", "b", "c"))
    assert "kit-s8" in str(caught.value.remedy)


def test_accuracy_has_known_models_and_columns():
    for name, columns in zoo.ACCURACY.items():
        assert name in zoo.MODELS
        assert set(columns) <= set(zoo.ACCURACY_COLUMNS)
        assert all(0 < value < 1 for value in columns.values())


def test_verb(capsys, monkeypatch):
    monkeypatch.setattr(zoo, "MODELS", {name: zoo.MODELS[name] for name in ("kit", "kit-s8")})
    monkeypatch.setattr(zoo, "ACCURACY", {"kit-s8": {"AP >= 16 px": 0.5}})
    assert main(["zoo"]) == 0
    said = capsys.readouterr().out
    assert "100,446" in said
    assert "0.500" in said
    assert main(["zoo", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["parameters"], row["runs"]) for row in rows] == [
        ("kit", 100_050, True),
        ("kit-s8", 100_446, True),
    ]
