"""What the tools print: any file's name, also one that is no text in the output's encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dhn import progress

SCRIPT = "from dhn.progress import console; console.print('b\\udcfc.jpg \\u00e9')"


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", "b\\udcfc.jpg \u00e9"), ("ascii", "b\\udcfc.jpg \\xe9")])
def test_a_name_in_any_encoding_is_printed(encoding, expected):
    paths = {"PYTHONPATH": str(Path(progress.__file__).parents[1]), "PYTHONIOENCODING": f"{encoding}:strict"}
    command = [sys.executable, "-c", SCRIPT]
    said = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.decode(encoding).strip() == expected
