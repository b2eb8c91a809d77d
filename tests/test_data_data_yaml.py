"""YOLO's data.yaml: YAML's forms, errors with their line, and hostile files."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mutations
from mirilla.data import data_yaml, read_dataset
from mirilla.errors import DataError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: ['a', \"b, c\"]", {0: "a", 1: "b, c"}),
        ("names: [a,\n  b]", {0: "a", 1: "b"}),
        ("names:\n- a  # first\n- 'it''s'", {0: "a", 1: "it's"}),
        ("names:\n  0: a\n  1: 'b: c'\n", {0: "a", 1: "b: c"}),
        ("names: {0: a, 1: b}", {0: "a", 1: "b"}),
        ("names: {3: a, 1: b}", {1: "b", 3: "a"}),
        ("names: face", {0: "face"}),
        ("names:", {}),
        ('names: ["fa\\u0063e", "a\\nb"]', {0: "face", 1: "a\nb"}),
        ("names: &n [face]\nother: *n", {0: "face"}),
        ("other: &n [face]\nnames: *n", {0: "face"}),
        (
            "names:\n  - two\n    words\n  - >-\n    folded\n    text\n  - |\n    kept",
            {0: "two words", 1: "folded text", 2: "kept\n"},
        ),
        (
            "names: [007, yes, 1e3, null, '~', 2024-01-01]",
            dict(enumerate(["007", "yes", "1e3", "", "~", "2024-01-01"])),
        ),
        ("names: [!!int 3, !!python/name:os.system x]", {0: "3", 1: "x"}),
        ("roboflow: {a: [b, {c: d}]}\nnames: [a]\ndownload: |\n  import os\n  x: y", {0: "a"}),
    ],
)
def test_data_yaml(tmp_path, text, names):
    (tmp_path / "data.yaml").write_text(f"# made\ntrain: images/train\n{text}\nnc: 2\n")
    found = data_yaml.read(tmp_path / "data.yaml")
    assert found.names == names
    assert found.places == (("images/train", "train"),)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("train: a\nnames: [a, b\nval: c", 3, "not YAML: "),
        ("names: {0: a\n", 2, "not YAML: "),
        ("train: a\nnames: *n", 2, "undefined alias"),
        ("train: a\n\tnames: b", 2, "not YAML: "),
        ("train: a\nnames: [a, \x00]", 2, "special characters are not allowed"),
        ("- a\n- b", 1, "the file must be 'key: value' lines, but it is a list"),
        ("train: {a: b}", 1, "a value of 'train' must be a string, but it is a mapping"),
        ("path: [a]\ntrain: b", 1, "a value of 'path' must be a string, but it is a list"),
        ("train: b\nnames:\n  - a\n  - [b]", 4, "a value of 'names' must be a string, but it is a list"),
        ("names:\n  0: a\n  one: b", 3, "a key of 'names' must be a class number (0, 1, 2, ...), but it is 'one'"),
        ("names:\n  ? [a]\n  : b", 2, "a key of 'names' must be a class number"),
        ("names: &n [*n]", 1, "a value of 'names' must be a string, but it is a list"),
        ("a: b\n---\nc: d", 2, "not YAML: "),
    ],
)
def test_data_yaml_that_is_wrong(tmp_path, text, line, message):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        data_yaml.read(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert message in str(caught.value)
    assert caught.value.remedy


def test_data_yaml_that_is_hostile(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("names: [a]\n" + "#" * (1 << 20))
    with pytest.raises(DataError, match="at most 262,144"):
        data_yaml.read(path)
    path.write_text("names: " + "[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        data_yaml.read(path)
    laughs = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'ha'}]\n" for i in range(30))
    path.write_text(laughs + "names: *l29\n")
    with pytest.raises(DataError, match="must be a string"):
        data_yaml.read(path)


HOSTILE = [
    *(
        f"names: {sign * 42}"
        for sign in ("- ", "? ", ": ", "[", "{", "[{", "&a ", "*a ", "!a ", "'", '"', "\\", "| ", "> ")
    ),
    *(f"{sign * 85}" for sign in ("- ", "? ", "[", "{", "&a ", "!!", "%", "\n", "#", " ", "<<: ")),
    "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nd: &d [*c,*c,*c]\nnames: [*d,*d,*d]",
    "a: &a {x: y}\nnames: {<<: [*a, *a, *a, *a], <<: *a, 0: face}",
    "&a names: [*a, *a]\n? &b [*a]\n: *b",
    f"nc: {'9' * 60}e{'9' * 20}",
    f"kpt_shape: [{'9' * 30}, 2]",
    "names: !!python/object/apply:os.system ['touch /tmp/x']",
    "train: '" + "../" * 28,
    'train: "' + "\\0" * 20 + '"\nnames: [a]',
    'train: "\\ud800"\nnames: [a]',
    "train: " + "a" * 300 + "\nnames: [a]",
    "train: /dev/zero\nnames: [a]",
]


@pytest.mark.parametrize("reads", ["file", "folder"])
def test_small_files_neither_hang_nor_fill_the_memory(tmp_path, reads):
    def read(content):
        (tmp_path / "data.yaml").write_bytes(content)
        read_dataset(tmp_path / "data.yaml" if reads == "file" else tmp_path)

    contents = [content.encode() for content in HOSTILE]
    result = mutations.survive("hostile data.yaml", contents, lambda content, _: content, read, len(contents))
    assert result["refused"] == len(contents)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_yaml_round_trip(tmp_path, names):
    path = tmp_path / "data.yaml"
    path.write_text(data_yaml.text_of(names, {"train": "images/train"}), "utf-8", newline="")
    assert data_yaml.read(path).names == dict(enumerate(names))
