"""Versions of a model on a kit: each in a folder of its own, and one symbolic link that says which runs.

    ~/mirilla/current -> versions/20180704T120000-1f2e3d4c
    ~/mirilla/versions/20180704T120000-1f2e3d4c/
        face.binaryproto  model.json  mirilla_kit.py  SHA256SUMS
        previous            the version that ran before this one: what a rollback goes back to

A version is copied into `versions/.incoming-...`, compared with its hashes there, flushed to the card and
renamed; then the link is replaced by one rename. So whatever is interrupted, `current` leads to a whole
version. Folders that an interrupted copy left are removed by the next one; a lock keeps two from meeting.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mirilla.board.link import Link, Result
from mirilla.errors import BoardError, ModelError, UsageError
from mirilla.files import explaining

PROGRAM = "mirilla_kit.py"
CARD = "model.json"
SUMS = "SHA256SUMS"
COPY_S = 600


@dataclass(frozen=True)
class Payload:
    """What becomes a version.

    name: of the version's folder: time of making and a hash of all files.
    model: the model's name, for people.
    files: content by file name.
    """

    name: str
    model: str
    files: Mapping[str, bytes]

    @property
    def sums(self) -> str:
        """The hashes as sha256sum reads them."""
        lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(self.files.items()))
        return "".join(lines)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def digest(self) -> str:
        """Eight hex digits that tell versions of different content apart."""
        return self.name.rpartition("-")[2]


def payload(model_path: str | os.PathLike[str], *, bonnet: bool = True, stamp: str | None = None) -> Payload:
    """Read a model, its model.json and the program for the kit.

    Args:
        bonnet: the model must be one compiled for the bonnet; False takes any, without looking inside.
        stamp: the time in the version's name; now by default.

    Raises:
        ModelError: no compiled model, no model.json, or one of another file.
        MirillaError: a file cannot be read.
    """
    from mirilla.model import card as cards

    model_path = Path(model_path)
    with explaining(model_path):
        content = model_path.read_bytes()
    if bonnet:
        from mirilla.bonnet import format as binary

        if model_path.suffix == ".pb":
            raise UsageError(
                f"{model_path}: a frozen graph does not run on the bonnet.",
                f"mirilla compile {model_path} --out {model_path.with_suffix('.binaryproto')}",
            )
        binary.parse(content, os.fspath(model_path))
    card_path = cards.find(model_path)
    if card_path is None:
        raise ModelError(
            f"{model_path}: no model.json stands beside it, which tells labels and anchors.",
            "Compile from an export's folder: 'mirilla compile' writes it beside the model.",
        )
    card = cards.load(card_path, model_path)
    if bonnet and card.target != "bonnet":
        raise ModelError(
            f"{card_path}: 'file.target' is '{card.target}', not 'bonnet'.", "Compile again with 'mirilla compile'."
        )
    if not re.fullmatch(r"[\w+][\w+ .,()=-]*", card.file) or card.file in (CARD, PROGRAM, SUMS, "previous"):
        raise ModelError(
            f"{card_path}: '{card.file}' cannot be a model's file name on the kit.",
            "Use letters, digits, '.', '_' and '-', and compile again under that name.",
        )
    with explaining(card_path):
        files = {card.file: content, CARD: card_path.read_bytes(), PROGRAM: program()}
    digest = hashlib.sha256(repr(sorted((n, hashlib.sha256(c).hexdigest()) for n, c in files.items())).encode())
    stamp = stamp or time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return Payload(f"{stamp}-{digest.hexdigest()[:8]}", card.name, files)


def program() -> bytes:
    """The program for the kit, as it is copied there."""
    return (resources.files("mirilla.board") / "kit_program.py").read_bytes()


def archive(pack: Payload) -> bytes:
    """The files as a tar archive, readable by all and owned by nobody in particular."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in {**pack.files, SUMS: pack.sums.encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def install(link: Link, pack: Payload) -> bool:
    """Copy a version and switch to it.

    Returns:
        False when the same files are what runs already; nothing is changed then.

    Raises:
        BoardError: cut off, no space, a hash that is wrong there, another deployment under way. What ran
            before still runs.
    """
    result = link.run(install_script(pack, fetch='tar -xf - -C "$new"'), stdin=archive(pack), timeout_s=COPY_S)
    _explain(link, result)
    return "unchanged" not in result.out.split()


def rollback(link: Link) -> str:
    """Go back to the version that ran before the present one; returns its name.

    Raises:
        BoardError: nothing is installed, or there is none before it.
    """
    result = link.run(ROLLBACK, timeout_s=60)
    _explain(link, result)
    return result.out.split()[-1]


def remove(link: Link) -> str:
    """Remove all versions; returns what stays in ~/mirilla because others put it there (empty: nothing).

    The service must have been removed before.
    """
    result = link.run(REMOVE, timeout_s=60)
    _explain(link, result)
    return result.out.strip()


def install_script(pack: Payload, fetch: str) -> str:
    """The script that installs a version; `fetch` is the command that fills the folder "$new"."""
    return "\n".join(
        [
            _HEAD,
            f"name={shlex.quote(pack.name)}",
            f"sums={shlex.quote(pack.sums.rstrip())}",
            _INSTALL.replace("@FETCH@", fetch),
        ]
    )


_HEAD = r"""
set -eu
umask 022
LC_ALL=C; export LC_ALL
home=$HOME/mirilla
fail() { echo "mirilla: $*" >&2; exit 3; }
lock() {
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$home/.lock"
    flock -n 9 || fail locked
  fi
}
switch() {  # to a version's name; the rename is the moment from which it holds
  ln -s "versions/$1" "$home/.current-new"
  mv -T "$home/.current-new" "$home/current"
  sync
}
""".strip()

_INSTALL = r"""
if [ -e "$home" ] && [ ! -d "$home" ]; then fail folder; fi
mkdir -p "$home/versions" || fail folder
lock
rm -rf "$home"/versions/.incoming-* "$home/.current-new"
now=$(readlink "$home/current" 2>/dev/null || true); now=${now##*/}
check() { (cd "$1" && printf '%s\n' "$sums" | sha256sum -c --status -); }
if [ -n "$now" ] && [ "${now##*-}" = "${name##*-}" ] && check "$home/versions/$now" 2>/dev/null; then
  echo unchanged; exit 0
fi
new=$home/versions/.incoming-$name
mkdir "$new"
trap 'rm -rf "$new"' EXIT
trap 'exit 4' HUP INT TERM PIPE
@FETCH@ || fail copy
[ -s "$new/SHA256SUMS" ] || fail cut
check "$new" || fail hash
if [ -n "$now" ] && [ -d "$home/versions/$now" ]; then printf '%s\n' "$now" >"$new/previous" || fail copy; fi
sync
[ ! -e "$home/versions/$name" ] || fail exists
mv "$new" "$home/versions/$name"
switch "$name"
# Older ones go, but for the one before.
for old in "$home"/versions/*; do
  case ${old##*/} in "$name"|"$now") ;; *) rm -rf "$old" ;; esac
done
echo installed
""".strip()

ROLLBACK = "\n".join(
    [
        _HEAD,
        r"""
[ -d "$home/versions" ] || fail none
lock
rm -f "$home/.current-new"
now=$(readlink "$home/current") || fail none
before=$(cat "$home/$now/previous" 2>/dev/null) || fail first
case $before in */*|.*|'') fail first ;; esac
(cd "$home/versions/$before" 2>/dev/null && sha256sum -c --status SHA256SUMS) || fail broken
switch "$before"
echo "$before"
""".strip(),
    ]
)

REMOVE = "\n".join(
    [
        _HEAD,
        r"""
[ -d "$home" ] || fail none
lock
rm -f "$home/current" "$home/.current-new"
rm -rf "$home/versions"
rm -f "$home/.lock" "$home/.joy-was-enabled"
rmdir "$home" 2>/dev/null || ls -A "$home"
""".strip(),
    ]
)

_REASONS = {
    "locked": ("another deployment to this kit is under way.", "Wait for its end, then try again."),
    "folder": ("~/mirilla cannot be made or is no folder.", "Move away what is there; look at its permissions."),
    "cut": ("the copy did not arrive whole.", "Try again."),
    "hash": (
        "the files there are not those that were sent (their SHA-256 differs).",
        "Try again; if it stays, the card is probably failing: use another one.",
    ),
    "exists": ("a version of that name is there already.", "Try again in a second."),
    "none": ("nothing of Mirilla is installed there.", "mirilla deploy MODEL.binaryproto HOST"),
    "first": ("there is no version before the present one.", "Deploy the model that you want."),
    "broken": ("the version before is damaged or gone.", "Deploy the model that you want."),
}
_UNTOUCHED = " What ran before still runs."


def _explain(link: Link, result: Result) -> None:
    """Raise what a script's failure means."""
    if result.code == 0:
        return
    said = result.err.strip().splitlines()
    last = said[-1][:200] if said else f"exit status {result.code}"
    full = re.search(r"No space left|quota exceeded|File (size limit exceeded|too large)", result.err)
    reason = re.search(r"^mirilla: (\w+)$", result.err, re.M)
    if full or result.code == 153:  # 153: killed by SIGXFSZ
        raise BoardError(
            f"{link.target}: no space left there to copy the files." + _UNTOUCHED,
            "Free some: du -xh ~ | sort -h | tail shows what is large; sudo apt-get clean helps.",
        )
    if reason and reason[1] in _REASONS:
        what, remedy = _REASONS[reason[1]]
        raise BoardError(f"{link.target}: {what}" + (_UNTOUCHED if reason[1] in ("cut", "hash") else ""), remedy)
    if reason and len(said) > 1:
        last = said[-2][:200]
    if "Read-only file system" in result.err:
        raise BoardError(
            f"{link.target}: the card there is read-only.", "Reboot the kit; a card that stays read-only is worn out."
        )
    raise BoardError(
        f"{link.target}: the copy failed there ({last}).{_UNTOUCHED}", "mirilla deploy --check " + link.target
    )
