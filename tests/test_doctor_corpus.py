"""The doctor's verdict on files that Google's compiler made, and on the graphs that it took."""

from __future__ import annotations

import pytest

from mirilla.doctor import examine as doctor
from mirilla.errors import UsageError

RUN = (
    "PCK_frozen_inference_graph.pb",
    "card_detector.binaryproto",
    "darthvader.binaryproto",
    "google_mobilenet_v1_160_imagenet.binaryproto",
    "google_person_cat_dog.binaryproto",
    "google_person_cat_dog_2017.binaryproto",
    "google_squeezenet_160.binaryproto",
    "google_squeezenet_160.pb",
    "pikachu2_detector.binaryproto",
    "pikachu_detector.binaryproto",
    "rover_224.binaryproto",
    "rps_160.binaryproto",
    "voc20_frozen_inference_graph.pb",
    "voc20_object_detection.binaryproto",
)


@pytest.mark.parametrize("name", RUN)
def test_what_ran_on_the_kit_runs(shared, name):
    assert doctor.examine(shared / "data/bonnet" / name).verdict == "runs"


def test_a_missing_input_size_is_asked_for(shared):
    path = shared / "data/bonnet/google_person_cat_dog.pb"
    with pytest.raises(UsageError) as caught:
        doctor.examine(path)
    assert "--input-size" in (caught.value.remedy or "")
    assert doctor.examine(path, doctor.Options(input_size=256)).verdict == "runs"


def test_a_graph_of_tensorflow_for_poets_compiles_as_it_is(shared):
    """Its placeholder with a default is a note; the channels of its first convolution are not those of known files."""
    found = doctor.examine(shared / "data/bonnet/poets_retrained_graph.pb").findings
    assert [(finding.code, finding.severity) for finding in found] == [
        ("first-conv", "warning"),
        ("training-switch", "note"),
    ]
