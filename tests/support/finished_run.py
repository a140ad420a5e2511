"""A run whose training has ended, as files."""

from __future__ import annotations

from pathlib import Path

from caffe.proto import caffe_pb2
from dhn.datasets import splits
from dhn.files import sha256, write_json
from dhn.runs import released
from dhn.runs.folder import Run


def write(run: Run, initial_digest: str | None = None, **record: object) -> None:
    """Write the files of a run of 5 iterations, and what says of which images its LMDBs are.

    initial_digest: of the weights it began with. record: what stands in training.json besides.
    """
    run.folder.mkdir(parents=True)
    (run.folder / "solver.prototxt").write_text(f'max_iter: 5 snapshot_prefix: "runs/{run.name}/dhn"')
    (run.folder / "train_val.prototxt").write_text('name: "net"')
    (run.folder / "deploy.prototxt").write_text('name: "deploy"')
    write_json(run.folder / "written.json", {"solver.prototxt": sha256(run.folder / "solver.prototxt")})
    for side in released.SIDES:
        (run.data / f"{side}_lmdb").mkdir(parents=True)
        inputs = {"list": f"list of {side}", "images": "all"}
        write_json(run.data / f"{side}_lmdb" / "source.json", {"recipe": {"inputs": inputs}})
    run.weights().write_bytes(caffe_pb2.NetParameter(name="net").SerializeToString())
    weights = {"weights": run.weights().name, "weights_sha256": sha256(run.weights())}
    made = {"iterations": 5, "recipe": run.recipe(initial_digest), **weights}
    write_json(run.folder / "training.json", made | record)


def write_lists(data: Path) -> dict[str, str]:
    """Write the lists of a data set, of one image each, and their split.json; returns the lists' SHA-256."""
    for row, name in enumerate(splits.LISTS):
        (data / f"{name}.txt").write_text(f"{row} 0\n")
    digests = {f"{name}.txt": sha256(data / f"{name}.txt") for name in splits.LISTS}
    write_json(data / "split.json", {"seed": 0, "sha256": digests})
    return digests
