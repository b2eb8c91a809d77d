"""kernels.wasm is what kernels.c compiles to."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from importlib.resources import files

import pytest

FOLDER = files("mirilla.targets.web")
SOURCE = FOLDER.joinpath("kernels.c").read_text("utf-8")
BINARY = FOLDER.joinpath("kernels.wasm").read_bytes()
# the same call for each module, on the same random values; prints the hash of all of memory
COMPARE = """
const { readFileSync } = require("fs");
const hash = async (path) => {
  const memory = new WebAssembly.Memory({ initial: 16 });
  const { instance } = await WebAssembly.instantiate(readFileSync(path), { env: { memory } });
  const values = new Float32Array(memory.buffer);
  let state = 1;
  for (let i = 32768; i < values.length; i++) values[i] = ((state = (state * 48271) % 2147483647) / 2147483647) - 0.5;
  const at = (place) => 4 * (32768 + place), { conv, depthwise } = instance.exports;
  conv(at(0), 70, at(20000), 60, at(40000), at(60000), 9, 7, 5, 11, 3, 2, 1, 2, -0.5, 0.5);
  conv(at(0), 70, at(22000), 60, at(40000), at(60000), 5, 6, 8, 8, 1, 1, 1, 1, 0, 6);
  depthwise(at(0), 70, at(24000), 60, at(40000), at(60000), 5, 6, 7, 3, 3, 1, 1, 0, 6);
  depthwise(at(0), 70, at(26000), 60, at(40000), at(60000), 3, 3, 9, 5, 4, 2, 2, -9, 9);
  return require("crypto").createHash("sha256").update(new Uint8Array(memory.buffer, 131072)).digest("hex");
};
(async () => console.log(JSON.stringify([await hash(process.argv[1]), await hash(process.argv[2])])))();
"""


@pytest.mark.skipif(
    not all(shutil.which(program) for program in ("clang", "wasm-ld", "node")),
    reason="clang, lld and Node.js are not installed",
)
def test_the_source_gives_the_binary(tmp_path):
    """Compilers differ in their code, not in its results: without fused operations, every sum has one value."""
    (tmp_path / "kernels.c").write_text(SOURCE)
    command = re.search(r"^ +(clang .*?kernels\.c)$", SOURCE, re.M | re.S)
    assert command is not None
    subprocess.run(shlex.split(command[1].replace("\\\n", " ")), cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "stored.wasm").write_bytes(BINARY)
    arguments = ["node", "-e", COMPARE, str(tmp_path / "kernels.wasm"), str(tmp_path / "stored.wasm")]
    made, stored = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    assert made == stored


def test_the_binary_is_small():
    assert BINARY[:8] == b"\0asm\1\0\0\0"
    assert len(BINARY) < 8192
