"""A sample: `make demo` in a clone that has no data and no runs yet, by what is installed here."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
MODULES = ("engine", "python_layers", "tools", "prototxt")
UNTRACKED = ("data/fashion_mnist/*.gz", "engine/caffe/cpu/kernels-*", "tools/dhn/*/kernels-*")  # images, libraries


def setup(folder: str):
    """`map`: what the demo ends with. The images are those of this checkout; without any the demo fetches them."""

    def sample():
        with tempfile.TemporaryDirectory(dir=folder) as clone:
            subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
            for pattern in UNTRACKED:
                for path in glob.glob(pattern, root_dir=ROOT):
                    shutil.copy(os.path.join(ROOT, path), os.path.join(clone, path))
            modules = os.pathsep.join(os.path.join(clone, folder) for folder in MODULES)
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, os.path.join(clone, "tools", "demo.py"), "fashion_mnist"],
                cwd=clone,
                env={**os.environ, "PYTHONPATH": modules},
                check=True,
                stdout=sys.stderr,
            )
            seconds = time.perf_counter() - start
            with open(os.path.join(clone, "runs", "fashion_mnist-dhn-48", "metrics.json")) as stream:
                return {"seconds": seconds, "map": json.load(stream)["map"]}

    return sample
