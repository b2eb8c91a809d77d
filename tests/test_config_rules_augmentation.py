"""Rules about mirilla.augmentation."""

from __future__ import annotations

import pytest

from mirilla import config
from mirilla.config.rules import findings

STEPS = ("mosaic", "object_zoom", "zoom_out", "aspect_mix", "blur", "noise", "jpeg_traces", "grey", "photometric")
FINE = """mosaic { probability: 1 off_share: 0 } object_zoom { least_px: 20 most_px: 20 } zoom_out { most: 1 }
aspect_mix { letterbox_probability: 1 } blur {} noise { most_stddev: 0 } jpeg_traces { least_quality: 95 } grey {}
photometric { strength: 0 }"""


def found(steps: str):
    text = steps.replace("}", "} }")
    for name in STEPS:
        text = text.replace(f"{name} {{", f"augmentation {{ {name} {{")
    return list(findings(config.loads(f"mirilla {{ {text} }}"), ()))


def test_every_step_with_its_defaults_is_fine():
    assert found(FINE) == []


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ("mosaic { probability: 1.1 }", "mosaic.probability"),
        ("mosaic { off_share: -0.1 }", "mosaic.off_share"),
        ("zoom_out { most: 0.9 }", "zoom_out.most"),
        ("object_zoom { least_px: 0 }", "object_zoom.least_px"),
        ("object_zoom { least_px: 50 most_px: 49 }", "object_zoom.most_px"),
        ("aspect_mix { letterbox_probability: 2 }", "aspect_mix.letterbox_probability"),
        ("blur { most_sigma_px: 0 }", "blur.most_sigma_px"),
        ("noise { most_stddev: -1 }", "noise.most_stddev"),
        ("jpeg_traces { least_quality: 96 }", "jpeg_traces.least_quality"),
        ("grey { probability: nan }", "grey.probability"),
        ("photometric { strength: 3 }", "photometric.strength"),
    ],
)
def test_values_out_of_range(steps, field):
    (finding,) = found(steps)
    assert finding.where == f"mirilla.augmentation.{field}"


def test_a_step_that_is_set_twice_or_empty():
    (finding,) = found("grey {} grey {}")
    assert finding.where == "mirilla.augmentation[1].grey"
    (finding,) = findings(config.loads("mirilla { augmentation {} }"), ())
    assert "empty" in finding.what
