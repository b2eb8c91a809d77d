"""Every flag of the original scripts: what it does here, and how a command line is read.

The syntax is absl's: --name=value, --name value, one or two dashes, and for switches --name, --noname and
--name=true or false. A flag acts as it did, is ignored with a note, or is refused with the reason and a remedy.
A refused flag is accepted with its default value, which asks for nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirilla.errors import UsageError
from mirilla.files import explaining

ACTS, IGNORED, REFUSED, NEW = "acts", "ignored", "refused", "new"
Value = str | int | bool | None


@dataclass(frozen=True)
class Flag:
    """A flag of a script.

    status: ACTS, IGNORED, REFUSED, or NEW for a flag that the original does not have.
    note: what it does; or the reason why it is ignored or refused.
    remedy: of a refused flag.
    """

    name: str
    kind: type[str] | type[int] | type[bool]
    default: Value
    status: str
    note: str
    remedy: str = ""
    required: bool = False


def _text(name: str, note: str, default: str | None = None, *, required: bool = False) -> Flag:
    return Flag(name, str, default, ACTS, note, required=required)


def _switch(name: str, note: str) -> Flag:
    return Flag(name, bool, False, ACTS, note)


_NO_LOG = "Mirilla prints its messages on the terminal"
_NO_DEBUGGER = "start Python's own tool instead, for example: python -m pdb -m mirilla tf1 ..."
ABSL = (
    Flag("alsologtostderr", bool, False, IGNORED, _NO_LOG),
    Flag("logtostderr", bool, False, IGNORED, _NO_LOG),
    Flag("stderrthreshold", str, "fatal", IGNORED, _NO_LOG),
    Flag("verbosity", int, -1, IGNORED, _NO_LOG),
    Flag("v", int, -1, IGNORED, _NO_LOG),
    Flag("showprefixforinfo", bool, True, IGNORED, "messages have no prefix"),
    Flag("log_dir", str, "", IGNORED, "no log files are written there; the training's log is in its own folder"),
    Flag("only_check_args", bool, False, ACTS, "check the flags and end"),
    Flag("pdb", bool, False, IGNORED, _NO_DEBUGGER),
    Flag("pdb_post_mortem", bool, False, IGNORED, _NO_DEBUGGER),
    Flag("run_with_pdb", bool, False, REFUSED, "there is no debugger inside", "python -m pdb -m mirilla tf1 ..."),
    Flag(
        "run_with_profiling",
        bool,
        False,
        REFUSED,
        "there is no profiler inside",
        "python -m cProfile -m mirilla tf1 ...",
    ),
    Flag("profile_file", str, None, IGNORED, "it belongs to run_with_profiling"),
    Flag("use_cprofile_for_profiling", bool, True, IGNORED, "it belongs to run_with_profiling"),
    Flag("help", bool, False, ACTS, "list the flags; also -h and -?"),
    Flag("helpshort", bool, False, ACTS, "list the flags"),
    Flag("helpfull", bool, False, ACTS, "list the flags"),
    Flag("helpxml", bool, False, ACTS, "list the flags (as text, not as XML)"),
    Flag("flagfile", str, "", ACTS, "read more flags from a file, one per line"),
    Flag("undefok", str, "", ACTS, "names of flags that may be unknown, separated by commas"),
)
_HELP = ("help", "helpshort", "helpfull", "helpxml")

_CLUSTER = "TensorFlow's clusters are not supported"
_TORCHRUN = "Start several processes with torchrun: docs/training.md describes it."
_SIDE_INPUTS = "Mirilla's networks have no side inputs"
_THREE_FILES = "with the two other files instead of pipeline_config_path"
_TF_CHECKPOINTS = Flag("tf_checkpoints", bool, False, NEW, "write TensorFlow checkpoints too, for old tools")
_PIPELINE = _text("pipeline_config_path", "the pipeline.config", required=True)

FLAGS: dict[str, tuple[Flag, ...]] = {
    "down_data": (
        Flag(
            "from",
            str,
            None,
            NEW,
            "folder with the photos or the .zip files that you already have; nothing is downloaded",
        ),
        Flag("copy", bool, False, NEW, "with --from: copy the photos instead of linking their folders"),
    ),
    "data_to_pascal_xml": (),
    "xml_to_csv": (),
    "generate_tfrecord": (
        _text("csv_input", "table of the boxes", "", required=True),
        _text("output_path", "TFRecord file to write", "", required=True),
        _text("images_path", "folder of the photos", "", required=True),
        Flag(
            "label_map",
            str,
            None,
            NEW,
            "label map, for classes other than 'face' (the original was edited for them)",
        ),
    ),
    "model_main": (
        _text("model_dir", "folder for checkpoints and events", required=True),
        _PIPELINE,
        Flag("num_train_steps", int, None, ACTS, "train until this step; default: train_config.num_steps"),
        _switch("eval_training_data", "evaluate on the training records; only with checkpoint_dir"),
        Flag("sample_1_of_n_eval_examples", int, 1, ACTS, "evaluate on one of n examples"),
        Flag(
            "sample_1_of_n_eval_on_train_examples",
            int,
            5,
            ACTS,
            "evaluate on one of n training examples; only with eval_training_data",
        ),
        _text("checkpoint_dir", "only evaluate the checkpoints of this folder"),
        _switch("run_once", "with checkpoint_dir: evaluate once, do not wait for more checkpoints"),
        _text("hparams_overrides", "load_pretrained=false: do not start from fine_tune_checkpoint"),
        Flag("max_eval_retries", int, 0, IGNORED, "an evaluation that fails ends the program with the reason"),
        _TF_CHECKPOINTS,
    ),
    "export_inference_graph": (
        _text("input_type", "image_tensor, encoded_image_string_tensor or tf_example", "image_tensor"),
        _text("input_shape", "shape of image_tensor, such as 1,-1,-1,3; -1 or None is any size (default: any)"),
        _PIPELINE,
        _text("trained_checkpoint_prefix", "the checkpoint: MODEL_DIR/model.ckpt-STEP", required=True),
        _text("output_directory", "folder to write", required=True),
        _text("config_override", "text that is merged into the pipeline.config", ""),
        _switch("write_inference_graph", "write inference_graph.pbtxt, the graph with variables, in text form"),
        Flag(
            "additional_output_tensor_names",
            str,
            None,
            REFUSED,
            "the graph's outputs are fixed",
            "Any tensor of frozen_inference_graph.pb can be fetched by its name.",
        ),
        Flag("use_side_inputs", bool, False, REFUSED, _SIDE_INPUTS, "Leave it out."),
        Flag("side_input_shapes", str, None, REFUSED, _SIDE_INPUTS, "Leave it out."),
        Flag("side_input_types", str, None, REFUSED, _SIDE_INPUTS, "Leave it out."),
        Flag("side_input_names", str, None, REFUSED, _SIDE_INPUTS, "Leave it out."),
    ),
    "train": (
        _text("train_dir", "folder for checkpoints and events", "", required=True),
        _text("pipeline_config_path", "the pipeline.config; or the three files below", ""),
        _text("train_config_path", f"a TrainConfig, {_THREE_FILES}", ""),
        _text("input_config_path", f"an InputReader, {_THREE_FILES}", ""),
        _text("model_config_path", f"a DetectionModel, {_THREE_FILES}", ""),
        _switch("clone_on_cpu", "train on the CPU"),
        _TF_CHECKPOINTS,
        Flag("num_clones", int, 1, REFUSED, "one process trains on one GPU", _TORCHRUN),
        Flag("worker_replicas", int, 1, REFUSED, _CLUSTER, _TORCHRUN),
        Flag("ps_tasks", int, 0, REFUSED, _CLUSTER, _TORCHRUN),
        Flag("master", str, "", REFUSED, _CLUSTER, _TORCHRUN),
        Flag("task", int, 0, REFUSED, _CLUSTER, _TORCHRUN),
    ),
    "eval": (
        _text("checkpoint_dir", "folder of the checkpoints", "", required=True),
        _text("eval_dir", "folder for the events", "", required=True),
        _text("pipeline_config_path", "the pipeline.config; or the three files below", ""),
        _text("eval_config_path", f"an EvalConfig, {_THREE_FILES}", ""),
        _text("input_config_path", f"an InputReader, {_THREE_FILES}", ""),
        _text("model_config_path", f"a DetectionModel, {_THREE_FILES}", ""),
        _switch("eval_training_data", "evaluate on the training records"),
        _switch("run_once", "evaluate once, do not wait for more checkpoints"),
    ),
}


def flag_named(script: str, name: str) -> Flag | None:
    """The flag of a script, or absl's."""
    return next((flag for flag in (*FLAGS[script], *ABSL) if flag.name == name), None)


class Values:
    """The values of a script's flags: those given, and defaults."""

    def __init__(self, script: str, given: dict[str, Value]):
        self._script, self.given = script, given

    def _get(self, name: str) -> Value:
        flag = flag_named(self._script, name)
        if flag is None:
            raise KeyError(name)
        return self.given.get(name, flag.default)

    def text(self, name: str) -> str:
        """A text; "" if it is not given and has no default."""
        return str(self._get(name) or "")

    def number(self, name: str) -> int | None:
        value = self._get(name)
        return None if value is None else int(value)

    def switch(self, name: str) -> bool:
        return bool(self._get(name))

    @property
    def wants_help(self) -> bool:
        return any(self.switch(name) for name in _HELP)


def parse(script: str, words: Sequence[str], note: Callable[[str], object]) -> Values:
    """Read a script's command line.

    Args:
        note: called with a line for every flag that is ignored.

    Raises:
        UsageError: an unknown, refused or missing flag, or a value of the wrong kind.
    """
    reader = _Reader(script)
    reader.read(words)
    values = Values(script, reader.given)
    if values.wants_help:
        return values
    for name in reader.given:
        _apply(flag_named(script, name), reader.given[name], note)
    missing = [flag.name for flag in FLAGS[script] if flag.required and not values.text(flag.name)]
    if missing:
        raise UsageError(
            f"{script}: --{missing[0]} is missing.", f"mirilla tf1 {script} --help lists the flags of this script."
        )
    return values


def _apply(flag: Flag | None, value: Value, note: Callable[[str], object]) -> None:
    """Note that a flag is ignored, or refuse it."""
    if flag is None or value == flag.default:
        return
    if flag.status == IGNORED:
        note(f"note: --{flag.name} is ignored: {flag.note}.")
    if flag.status == REFUSED:
        raise UsageError(f"--{flag.name} is not supported: {flag.note}.", flag.remedy)


def is_unknown(name: str, undefok: str) -> bool:
    """Whether a flag without an entry in the table must be an error."""
    allowed = undefok.split(",")
    return name not in allowed and name.removeprefix("no") not in allowed


class _Reader:
    """Reads words into `given`: name -> value."""

    def __init__(self, script: str):
        self.script = script
        self.given: dict[str, Value] = {}
        self.unknown: list[str] = []

    def read(self, words: Sequence[str]) -> None:
        self._read_words(list(words))
        undefok = str(self.given.get("undefok", ""))
        for name in self.unknown:
            if is_unknown(name, undefok):
                raise UsageError(f"{self.script}: unknown flag '--{name}'.", self._guess(name))

    def _read_words(self, words: list[str]) -> None:
        while words:
            word = words.pop(0)
            if word in ("-h", "-?", "--?"):
                self.given["help"] = True
            elif not word.startswith("-") or word in ("-", "--"):
                raise UsageError(f"{self.script}: unexpected argument '{word}'.", self._guess(word.partition("=")[0]))
            else:
                self._read_flag(word, words)

    def _read_flag(self, word: str, rest: list[str]) -> None:
        """Read one flag; its value may be the first word of `rest`, which is then removed."""
        name, equals, value = word.lstrip("-").partition("=")
        flag = flag_named(self.script, name)
        if flag is None:
            positive = flag_named(self.script, name.removeprefix("no"))
            if positive is not None and positive.kind is bool and not equals and name.startswith("no"):
                self.given[positive.name] = False
            else:
                self.unknown.append(name)
            return
        if flag.kind is bool and not equals:
            self.given[name] = True
            return
        if not equals:
            if not rest:
                raise UsageError(f"{self.script}: --{name} needs a value.", f"--{name}=VALUE")
            value = rest.pop(0)
        if name == "flagfile":
            self._read_words(_words_of_file(Path(value)))
        self.given[name] = value_of(flag, value)

    def _guess(self, name: str) -> str:
        names = [flag.name for flag in (*FLAGS[self.script], *ABSL)]
        near = difflib.get_close_matches(name.replace("-", "_").lstrip("_"), names, 1)
        return f"Did you mean --{near[0]}?" if near else f"mirilla tf1 {self.script} --help lists the flags."


def _words_of_file(path: Path) -> list[str]:
    with explaining(path):
        lines = path.read_text("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith(("#", "//"))]


def value_of(flag: Flag, text: str) -> Value:
    """The value of a flag that is written as `text`.

    Raises:
        UsageError: it is of another kind.
    """
    if flag.kind is int:
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"--{flag.name}={text}: it must be a whole number.") from None
    if flag.kind is bool:
        if text.lower() not in ("true", "t", "1", "false", "f", "0"):
            raise UsageError(f"--{flag.name}={text}: it must be true or false.")
        return text.lower() in ("true", "t", "1")
    return text


def help_text(script: str) -> str:
    """The flags of a script, a line each."""
    lines = [f"mirilla tf1 {script} [--flag=value ...]", ""]
    for title, flags in ((f"flags of {script}:", FLAGS[script]), ("flags of every script:", ABSL)):
        lines += [title, *(f"  --{flag.name:36} {flag.status}: {flag.note}" for flag in flags), ""]
    return "\n".join(lines)
