"""Label maps: the API's forms, its rules, round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirilla.errors import ConfigError
from mirilla.labels import (
    Label,
    LabelMap,
    label_map_text,
    load_label_map,
    parse_label_map,
    save_label_map,
)


def test_the_apis_forms():
    labels = parse_label_map(
        """# faces and more
        item { id: 2 name: '/m/01g317' display_name: "person" }
        item: <
          name: 'face', id: 1;
        >
        item { id: 3 display_name: 'only shown' }
        """
    )
    assert labels.names == ("face", "/m/01g317", "only shown")
    assert [item.id for item in labels] == [1, 2, 3]
    assert labels.id_of("/m/01g317") == 2
    assert labels.id_of("person") == 2  # by its display name
    assert labels.name_of(2) == "/m/01g317"
    assert (labels.shown(2), labels.shown(1), labels.shown(9)) == ("person", "face", "9")
    assert (len(labels), labels.max_id, labels.contiguous) == (3, 3, True)
    assert "face" in labels
    assert "cat" not in labels


def test_from_names():
    labels = LabelMap.from_names(["face", "cat"])
    assert labels.items == (Label(1, "face"), Label(2, "cat"))
    assert label_map_text(LabelMap.from_names(["face"])) == 'item {\n  name: "face"\n  id: 1\n}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }", ("l.pbtxt:2:", "id 1", "'a'")),
        ("item { id: 1 name: 'a' }\n\nitem {\n id: 2 name: 'a' }", ("l.pbtxt:3:", "'a' occurs twice")),
        ("\nitem { id: 0 name: 'a' }", ("l.pbtxt:2:", "background")),
        ("item { id: -4 name: 'a' }", ("l.pbtxt:1:", "start at 1")),
        ("item { name: 'a' }", ("l.pbtxt:1:", "has no id")),
        ("# x\nitem { id: 1 }", ("l.pbtxt:2:", "no name")),
        ("item { id: 1 nmae: 'a' }", ("l.pbtxt:1:", "'nmae'", "Did you mean 'name'?")),
        ("item { id: 1 name: 'a'", ("l.pbtxt:1:", "Close every {")),
        ("", ("l.pbtxt", "no class")),
        ("face\ncat\n", ("l.pbtxt:1:", "an  item { id: 1 name: 'face' }  for each class")),
        ("???\nface\n", ("l.pbtxt:1:", "an  item { id: 1 name: 'face' }  for each class")),
        ("item {\n id: 1\n name: 'baby's face'\n}", ("l.pbtxt:3:", "double quotes")),
        ("item {\n id: 1\n name: “toy”\n}", ("l.pbtxt:3:", "straight quotes")),
        ("item {\n id: 1\n name: ‘toy’\n}", ("l.pbtxt:3:", "straight quotes")),
        ("item {\n id: 1\n name: face\n}", ("l.pbtxt:3:", "Put the text in quotes")),
        ("item {\n id: '1'\n name: 'face'\n}", ("l.pbtxt:2:", "without quotes")),
        ("'item {\n id: 1\n name: 'face'\n}'", ("l.pbtxt:1:", "Remove the quotes")),
        ("// mine\nitem {\n id: 1\n}", ("l.pbtxt:1:", "comments with #")),
        ('{"1": "face"}', ("l.pbtxt:1:", "not JSON")),
        ("item {\n id: 1 name: 'a'\n id: 2 name: 'b'\n}", ("l.pbtxt:3:", "for each class")),
        ("item { id: 1 name: 'a' }\n}", ("l.pbtxt:2:", "Remove this }")),
    ],
)
def test_errors_name_the_line(content, words):
    with pytest.raises(ConfigError) as caught:
        parse_label_map(content, "l.pbtxt")
    assert caught.value.remedy
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "l.pbtxt").write_text("item { id: 1 name: 'niño' }", encoding)
    assert load_label_map(tmp_path / "l.pbtxt").names == ("niño",)


def test_braces_in_strings_and_comments_do_not_move_lines():
    content = "# item {\nitem { id: 1 name: '}{ item { #' }\nitem { id: 0 name: 'b' }"
    with pytest.raises(ConfigError, match=r"l\.pbtxt:3:"):
        parse_label_map(content, "l.pbtxt")


def test_lookups_that_fail():
    labels = LabelMap.from_names(["face", "person"])
    with pytest.raises(ConfigError, match=r"(?s)no class 'fase'.*Did you mean 'face'"):
        labels.id_of("fase")
    with pytest.raises(ConfigError, match="background"):
        labels.name_of(0)
    with pytest.raises(ConfigError, match="number 3"):
        labels.name_of(3)


@pytest.mark.parametrize("items", [(), (Label(0, "a"),), (Label(1, "a"), Label(1, "b")), (Label(1, ""),)])
def test_a_bad_map_cannot_be_built(items):
    with pytest.raises(ConfigError):
        LabelMap(items)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.pbtxt: no such file\.\n  Remedy: Check the path of the label map"):
        load_label_map(tmp_path / "none.pbtxt")


@pytest.mark.parametrize(
    ("name", "count", "max_id"),
    [("mscoco_label_map", 80, 90), ("pascal_label_map", 20, 20), ("pet_label_map", 37, 37)],
)
def test_the_apis_label_maps(shared, name, count, max_id):
    labels = load_label_map(shared / f"data/odapi/samples/{name}.pbtxt")
    assert (len(labels), labels.max_id) == (count, max_id)
    assert labels.contiguous == (count == max_id)
    assert parse_label_map(label_map_text(labels)) == labels


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.dictionaries(st.integers(1, 2**31 - 1), st.tuples(names, names | st.just("")), min_size=1, max_size=8))
def test_what_is_written_reads_back(content):
    unique = {name: (number, shown) for number, (name, shown) in content.items()}
    labels = LabelMap(tuple(Label(number, name, shown) for name, (number, shown) in unique.items()))
    assert parse_label_map(label_map_text(labels)) == labels


def test_save(tmp_path):
    labels = LabelMap.from_names(["größe", 'a "b"'])
    save_label_map(tmp_path / "l.pbtxt", labels)
    assert load_label_map(tmp_path / "l.pbtxt") == labels
