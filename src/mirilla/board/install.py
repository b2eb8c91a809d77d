"""Versions of a model on a kit: each in its own folder, and a symbolic link to the one that runs.

    ~/mirilla/current -> versions/20180704T120000-1f2e3d4c
    ~/mirilla/versions/20180704T120000-1f2e3d4c/
        face.binaryproto  model.json  mirilla_kit.py  SHA256SUMS
        previous            the version that ran before this one, to which a rollback returns

A version is copied into `versions/.incoming-...`, checked against its hashes there, flushed to the card and renamed;
then the link is replaced with a single rename. So `current` always points to a complete version, even if an
installation is interrupted. The next installation removes the folders of an interrupted copy; a lock prevents two at
once.
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
import tempfile
import time
from pathlib import Path

from mirilla.board.link import Link, Result
from mirilla.board.payload import PROGRAM, SUMS, Payload
from mirilla.errors import BoardError

COPY_S = 600


def archive(payload: Payload) -> bytes:
    """The files as a tar archive, readable by everyone."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in {**payload.files, SUMS: payload.sums.encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def install(link: Link, payload: Payload) -> bool:
    """Copy a version and switch to it.

    Returns:
        False if the current version has the same files; nothing is changed then.

    Raises:
        BoardError: the connection was lost, the disk is full, a hash differs, or another deployment is running. The
            current version is unchanged.
    """
    result = link.run(install_script(payload, fetch='tar -xf - -C "$new"'), stdin=archive(payload), timeout_s=COPY_S)
    _explain(link, result)
    return "unchanged" not in result.out.split()


def copy_files(link: Link, payload: Payload) -> None:
    """Copy a version with scp only, without switching to it.

    Raises:
        BoardError: the kit cannot be reached, or the files cannot be written.
    """
    # scp creates only the folder that it copies, so it gets the whole tree.
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary, "mirilla")
        folder = top / "versions" / payload.name
        folder.mkdir(parents=True)
        for name, content in {**payload.files, SUMS: payload.sums.encode()}.items():
            (folder / name).write_bytes(content)
        for part in (top, top / "versions", folder):
            part.chmod(0o755)
        link.copy([str(top)], "")


def copy_model(link: Link, payload: Payload, remote: str) -> list[str]:
    """Copy the model and its model.json into an existing folder with scp only. Returns the files' names.

    Raises:
        BoardError: the kit cannot be reached, or the files cannot be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        files = {Path(temporary, name): content for name, content in payload.files.items() if name != PROGRAM}
        for path, content in files.items():
            path.write_bytes(content)
            path.chmod(0o644)
        link.copy([str(path) for path in files], remote.rstrip("/") + "/")
        return [path.name for path in files]


def rollback(link: Link) -> str:
    """Switch to the version that ran before the current one. Returns its name.

    Raises:
        BoardError: nothing is installed, or there is no previous version.
    """
    result = link.run(ROLLBACK, timeout_s=60)
    _explain(link, result)
    return result.out.split()[-1]


def remove(link: Link) -> str:
    """Remove all versions. Returns the names of other files in ~/mirilla, which are kept.

    Remove the service first.
    """
    result = link.run(REMOVE, timeout_s=60)
    _explain(link, result)
    return result.out.strip()


def install_script(payload: Payload, fetch: str) -> str:
    """The script that installs a version. `fetch` is the command that fills the folder "$new"."""
    return "\n".join(
        [
            _HEAD,
            f"name={shlex.quote(payload.name)}",
            f"sums={shlex.quote(payload.sums.rstrip())}",
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
switch() {  # to a version, by name; the rename is atomic
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
# Remove all versions but the new one and the one before it.
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

# Message and remedy for each argument of `fail` in a script.
_REASONS = {
    "locked": ("another deployment to this kit is running.", "Wait until it has finished, then try again."),
    "folder": (
        "~/mirilla cannot be created, or is not a folder.",
        "Rename the file with that name, or check the home folder's permissions.",
    ),
    "cut": ("the copy is incomplete.", "Try again."),
    "hash": (
        "the SHA-256 of the copied files differs.",
        "Try again. If it happens again, the card is probably failing: use another one.",
    ),
    "exists": ("a version with that name exists.", "Try again in a second."),
    "none": ("Mirilla is not installed there.", "mirilla deploy MODEL.binaryproto HOST"),
    "first": ("there is no previous version.", "Deploy the model you want instead."),
    "broken": ("the previous version is damaged or missing.", "Deploy the model you want instead."),
}
_UNCHANGED = " The current version is unchanged."


def _explain(link: Link, result: Result) -> None:
    """Raise BoardError if a script failed."""
    if result.code == 0:
        return
    full = re.search(r"No space left|quota exceeded|File (size limit exceeded|too large)", result.err)
    if full or result.code == 153:  # 153: killed by SIGXFSZ
        raise BoardError(
            f"{link.target}: no space left to copy the files.{_UNCHANGED}",
            "Free some space: du -xh ~ | sort -h | tail lists the largest folders; sudo apt-get clean helps.",
        )
    lines = result.err.strip().splitlines()
    reason = re.search(r"^mirilla: (\w+)$", result.err, re.M)
    if reason and reason[1] in _REASONS:
        what, remedy = _REASONS[reason[1]]
        raise BoardError(f"{link.target}: {what}" + (_UNCHANGED if reason[1] in ("cut", "hash") else ""), remedy)
    if "Read-only file system" in result.err:
        raise BoardError(
            f"{link.target}: its card is read-only.", "Reboot the kit. A card that stays read-only is worn out."
        )
    if reason:
        lines = lines[:-1] or lines  # the line before the reason has more detail
    last = lines[-1][:200] if lines else f"exit status {result.code}"
    raise BoardError(f"{link.target}: the copy failed ({last}).{_UNCHANGED}", f"mirilla deploy --check {link.target}")
