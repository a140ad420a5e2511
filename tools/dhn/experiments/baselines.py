"""LSH, SH, ITQ and ITQ-CCA on a data set: their features, codes, and scores, by the measure that DHN is scored with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import net as nets
import numpy as np

from dhn import files
from dhn.codes import files as codes
from dhn.codes.of_run import is_fresh, run_extraction
from dhn.datasets import splits
from dhn.experiments.classic_hashing import METHODS, TITLES, BitsError
from dhn.experiments.measure import LENGTHS, MEASURED, is_measured, measure, ranks
from dhn.experiments.metrics import score_files, write_metrics
from dhn.files import load_json
from dhn.layout import target_command
from dhn.progress import console
from dhn.runs import facts as run_facts
from dhn.runs.folder import ROOT, Run, RunError
from dhn.scoring.retrieval import PROTOCOLS

SIDES = ("train", "query", "database")
PIXELS = "pixels"
SIZE = 32  # of images whose pixels are features, at most
CHUNK = 8192  # images hashed at a time
Features = Callable[[str], tuple[np.ndarray, np.ndarray]]  # side -> features (N, D), labels (N, C)


def source(run: Run, side: str) -> Path:
    """The LMDB of a side. Raises RunError where it is missing."""
    folder = run.data / f"{side}_lmdb"
    if not (folder / "source.json").exists():
        raise RunError(f"{run.display_path(folder)} is missing; run: {target_command('data', run.dataset)}")
    return folder


def pixels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (N, D) uint8 and labels (N, C) int8 of an LMDB's images, in its order; -1 where labels are unknown.

    Raises ValueError for images that are not all of one size, up to SIZE x SIZE.
    """
    from image_records import LmdbSource

    records = LmdbSource(str(path), None, None, None)
    if max(records.read(0)[0].shape[1:]) > SIZE:
        records = LmdbSource(str(path), None, False, (SIZE, SIZE))
    first, _ = records.read(0)
    values = np.empty((len(records), first.size), np.uint8)
    labels = np.empty((len(records), records.labels), np.int8)
    for row in range(len(records)):
        image, carried = records.read(row)
        if image.shape != first.shape:
            raise ValueError(f"{records.name(row)}: expected an image of {first.shape}, found {image.shape}")
        values[row], labels[row] = image.ravel(), carried
    return values, labels


def cut(model: Path, blob: str, out: Path) -> None:
    """Write the part of a deploy net that a blob needs: weights of what comes later are then not asked for.

    Raises ValueError where the net has no such blob.
    """
    from caffe.proto.text import read_net
    from google.protobuf import text_format

    net = read_net(model)
    makers = [place for place, layer in enumerate(net.layer) if blob in layer.top]
    if not makers:
        tops = list(dict.fromkeys(top for layer in net.layer for top in layer.top))
        raise ValueError(f"{model} has no blob {blob}; it has {', '.join(tops)}")
    del net.layer[makers[-1] + 1 :]
    text = f"# {model.name} up to {blob}\n" + text_format.MessageToString(net)
    files.write_atomic(out, lambda stream: stream.write(text.encode()))


def blob_features(run: Run, blob: str, model: Path | None, weights: Path | None) -> tuple[Features, str]:
    """Features from a blob of a net, kept in runs/<dataset>-features-<blob>/, and the digest of weights and net."""
    if weights is None:
        if not run.is_trained():
            raise RunError(
                f"features of {blob} need a net: {run.display_path(run.folder)} holds no finished training; "
                f"{run.make_command('train')}, or name another net with --model and --weights"
            )
        model, weights = run.folder / "deploy.prototxt", run.weights()
    elif model is None:
        model = run.root / Path(nets.default_folder(run.dataset, run.net)).relative_to(nets.ROOT) / "deploy.prototxt"
    for path in (model, weights):
        if not path.exists():
            raise ValueError(f"there is no file {path}")
    digest = hashlib.sha256(blob.encode() + model.read_bytes() + weights.read_bytes()).hexdigest()
    folder = run.root / "runs" / f"{run.dataset}-features-{blob}-{digest[:12]}"
    part = folder / "deploy.prototxt"
    if not part.exists():
        cut(model, blob, part)

    def features(side: str) -> tuple[np.ndarray, np.ndarray]:
        out, images = folder / f"{side}.npz", source(run, side)
        if not is_fresh(out, weights, images):
            words = ["--model", part, "--weights", weights, "--blob", blob, "--source", images, "--out", out]
            like = model.with_name("train_val.prototxt")
            words += ["--like", like] if like.exists() else []
            if run_extraction([*map(str, words)], run.root):
                raise RunError(f"cannot extract {blob} of {run.display_path(images)}; the reason stands above")
        return codes.load(out)

    return features, digest


def ensure_codes(
    dataset: str, method: str, bits: int, seed: int, features: Features, about: dict, root: Path = ROOT
) -> Run:
    """The folder of a method's codes and metrics, made unless it is there with the same `about`.

    about: what else determines the codes, `features` naming them; JSON values, kept in metrics.json under `baseline`.
    Raises classic_hashing.BitsError where the method cannot give that many bits of these features.
    """
    run = Run(dataset, f"{method}_{about['features']}", bits, root, seed=seed)
    out = run.folder / "metrics.json"
    wanted = {"method": method, "seed": seed, **about}
    facts = files.read_json(out)
    if facts.get("baseline") == wanted and is_measured(facts.get("measure")):
        return run
    encode = METHODS[method](*features("train"), bits, seed)
    run.folder.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    for side in SIDES[1:]:
        values, labels = features(side)
        hashed = [encode(values[begin : begin + CHUNK]) for begin in range(0, len(values), CHUNK)]
        codes.save(run.folder / f"{side}.npz", np.concatenate(hashed), labels)
    binary = [protocol for protocol, rules in PROTOCOLS.items() if not rules.real]
    query, database = (str(run.folder / f"{side}.npz") for side in SIDES[1:])
    scores = score_files(query, database, binary, codes_are="sign")
    write_metrics(
        out,
        scores,
        dataset=dataset,
        seed=seed,
        split=about["split"],
        baseline=wanted,
        measure=measure(run.folder, False, top(run)),
    )
    return run


def top(run: Run) -> int | None:
    """R of the run's split; None for the entire database."""
    return ranks(run.data)


def load_features(
    dataset: str,
    name: str = PIXELS,
    model: Path | None = None,
    weights: Path | None = None,
    root: Path = ROOT,
    net: str | None = None,
) -> tuple[Features, dict]:
    """Features by name (pixels, or a blob of a net), and what they depend on.

    net: of the run that has the blob, or of the weights where no model is named; None for the data set's default.
    Raises RunError where data are missing, splits.SplitError where the lists overlap.
    """
    run = Run(dataset, "dhn", LENGTHS[-1], root, net)
    split = splits.verify(run.data)
    if name == PIXELS:
        read, of_net = lambda side: pixels(source(run, side)), None
    else:
        read, of_net = blob_features(run, name, model, weights)
    lists = {side: run_facts.read(source(run, side) / "source.json", {"recipe": dict}).get("recipe") for side in SIDES}
    digest = hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()
    return cache(read), {"features": name, "net": of_net, "images": digest, "split": split}


def baselines(
    dataset: str,
    features: Features,
    about: dict,
    methods: Sequence[str] = tuple(METHODS),
    bits: Sequence[int] = LENGTHS,
    seed: int = 1,
    root: Path = ROOT,
) -> list[dict]:
    """The codes of all methods at all lengths; returns a row each: method, features, bits, seed, the keys of MEASURED.

    features, about: as `load_features` gives them. A method that cannot give a length of these features has a row whose
    numbers are None, and a sentence says why.
    """
    rows = []
    for method in methods:
        for length in bits:
            row = {"method": TITLES[method], "features": about["features"], "bits": length, "seed": seed}
            try:
                with console.status(f"{TITLES[method]}, {length} bits"):
                    run = ensure_codes(dataset, method, length, seed, features, about, root)
                row |= load_json(run.folder / "metrics.json")["measure"]
            except BitsError as error:
                console.print(f"{TITLES[method]}, {length} bits: {error}")
                row |= dict.fromkeys(MEASURED)
            rows.append(row)
    return rows
