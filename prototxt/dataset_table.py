"""What each data set's net and solver are made from: image size, default net, data layers, solver, and why each number.

A data set of your own (tools/dhn/datasets/recipes.py) has the nets and numbers of the paper's data sets.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from nets import FINE_TUNED, NETS
from run_settings import BY_MAKE, SECTIONS, applied, changed, check

_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# of data/ and of the paths in the files: the repository, or the working directory where pip put this folder into `dhn`
ROOT = os.getcwd() if os.path.exists(os.path.join(_PARENT, "__init__.py")) else _PARENT


class Dataset(NamedTuple):
    """What a net and its recipe need to know of a dataset."""

    image: tuple  # channels, height, width that the net sees
    net: str  # of NETS, the one that is taken unless another is named
    hash_std: float  # of the hash layer's initial weights
    data: dict  # param_str keys shared by the training and the test data layer
    train: dict  # param_str keys of the training data layer
    test: dict  # param_str keys of the test data layer
    quantization_weight: float  # lambda
    solver: list  # (field, value, why: None where the value is Caffe's default or speaks for itself)
    normalization: str = "mean"  # of the quantization loss
    classes: int | None = None  # labels that the net can learn to classify
    multi_label: bool = False  # an image may carry several of them
    pretraining: tuple = ()  # what differs in the solver of the classifier; empty: none, weights come from elsewhere
    similar_weight: float | str = 1  # of a similar pair in the pairwise loss, see python_layers/pairwise_loss.py
    notes: tuple = ()  # comments for train_val.prototxt: what is not as this table has it, and why


class Labels(NamedTuple):
    """The labels of a data set. queries: number of query images, of which the test net looks at about all."""

    queries: int
    classes: int
    multi_label: bool
    size: tuple | None = None  # of a data set of your own: height and width of its pictures, where they are known
    train: int | None = None  # of a data set of your own: number of training images

    def is_small(self) -> bool:
        """True for pictures that cifar_quick is made for."""
        return self.size is not None and max(self.size) <= SMALL


def fine_tuned(dataset: str, labels: Labels, net: str = "alexnet") -> Dataset:
    """A net of FINE_TUNED on a data set; AlexNet and CaffeNet with the numbers of the paper and, where it states none,
    of dhn-caffe."""
    queries = labels.queries
    batches = max(1, round(queries / 50))
    spec = Dataset(
        image=(3, 227, 227),
        net=net,
        hash_std=0.01,  # dhn-caffe's
        data={"gray": False, "resize": 256, "crop": 227, "mean_value": [104, 117, 123]},
        train={"source": f"data/{dataset}/train_lmdb", "batch_size": 64, "mirror": True, "threads": 4},
        test={"source": f"data/{dataset}/query_lmdb", "batch_size": 50},
        # dhn-caffe's q_gamma; its gradient is that of a sum over bits. The paper cross-validates lambda.
        quantization_weight=0.3,
        normalization="authors",
        solver=[
            (
                "test_iter",
                batches,
                f"{batches} batches of 50: the {queries:,} query images of the paper's split"
                if dataset in LABELS
                else f"{batches} batches of 50: the {queries:,} query images",
            ),
            ("test_interval", 500, "where dhn-caffe's learning rate falls"),
            ("base_lr", 2e-5, "dhn-caffe's and hash-caffe's; the paper cross-validates it, from 1e-5 to 1e-2"),
            ("lr_policy", "step", "this policy and its two numbers are dhn-caffe's (hash-caffe's gamma is 0.5)"),
            ("gamma", 0.3, None),
            ("stepsize", 500, None),
            ("momentum", 0.9, "the paper's and dhn-caffe's"),
            ("weight_decay", 0.0005, "the paper's and dhn-caffe's"),
            ("max_iter", 10000, "dhn-caffe's; hash-caffe stops at 3000"),
            ("display", 20, "a line every few seconds on a GPU"),
            ("snapshot", 1000, "dhn-caffe's"),
            ("random_seed", 1, "the same hash layer and dropout each time"),
            ("solver_mode", "CPU", "so that it runs anywhere; `make train GPU=0` and `caffe train -gpu 0` override it"),
        ],
    )
    if net in BY_NET:
        other: dict[str, Any] = {**BY_NET[net], "classes": labels.classes, "multi_label": labels.multi_label}
        if net == "cifar_quick" and labels.train is not None and labels.train <= 1000:
            few = (("max_iter", 300, "20 epochs of 1,000 training images: enough for so few"),)
            other.update({steps: (*other[steps], *few) for steps in ("solver", "pretraining")})
        if not labels.classes:  # a split.json of an older version; `make data` writes it again
            del other["pretraining"]
    else:
        other = AT_FULL_SIZE.get(dataset, {})
    return spec._replace(
        **{
            **other,
            "data": {**spec.data, **other.get("data", {})},
            "solver": changed(spec.solver, other.get("solver", ())),
        }
    )


# What differs from `fine_tuned` for small images that the net sees at 227x227, and whose two steps both run here.
AT_FULL_SIZE: dict[str, dict[str, Any]] = {
    "fashion_mnist": dict(
        data={"mean_value": 73},  # the mean grey value of the training images
        quantization_weight=1.0,
        normalization="mean",
        solver=(
            ("test_interval", 100, "20 batches take as long as 8 training iterations"),
            ("base_lr", 5e-5, "half of the classifier's; the hash layer learns at 10 times that"),
            ("lr_policy", "step", "the last third at a lower rate settles the codes"),
            ("stepsize", 100, None),
            ("max_iter", 150, "2 epochs of the 5,000 training images: minutes on two cores"),
            ("display", 5, "a line every 10 to 30 seconds on two cores"),
            ("snapshot", 50, "a killed training loses at most some minutes"),
            ("type", "Adam", "from scratch SGD stayed at log(10) for 90 iterations or diverged, at every rate tried"),
        ),
        classes=10,
        pretraining=(
            ("base_lr", 1e-4, "Adam's usual tenth: the pixels are not scaled, as bvlc_alexnet's are not"),
            ("stepsize", 160, "the last fifth at a lower rate"),
            ("max_iter", 200, "2.5 epochs of the 5,000 training images"),
        ),
    ),
}


# A learning rate in place of `fine_tuned`'s steps.
TO_ZERO = (
    ("lr_policy", "poly", "falls linearly to 0, which settles the codes"),
    ("power", 1, None),
    ("gamma", None, None),
    ("stepsize", None, None),
)

# What differs from `fine_tuned` for SqueezeNet on every data set: sized for two cores, in the authors' two steps.
SQUEEZENET = dict(
    image=(3, 131, 131),
    # conv1 and the three poolings make 63, 31, 15 and 7 positions of 131, none of them cut; a third of 227's time
    data={"resize": 144, "crop": 131},
    # With dhn-caffe's 0.01 the initial weights stay in the codes as noise. A hash layer of 48 bits on frozen features
    # of a classifier, MAP among 1,000 held-out training images: 0.60 from 0.01, 0.63 from 0.001 and from 0.0001.
    hash_std=0.001,
    # As above, with fc10 and at each layer's rate: 0.68 from 0.5, 0.70 from 2; without fc10 it was 0.65 and 0.59.
    quantization_weight=2.0,
    normalization="mean",
    solver=(
        ("test_interval", 200, "with each snapshot"),
        ("base_lr", 0.001, "the hash layer learns at 10 times that; 0.0025 took that MAP from 0.63 to 0.55"),
        *TO_ZERO,
        ("max_iter", 800, "10 epochs of CIFAR-10's 5,000 training images"),
        ("display", 10, "a line every 10 to 20 seconds on two cores"),
        ("snapshot", 200, "a killed training loses at most some minutes"),
    ),
    # Straight from ImageNet's weights 400 iterations left the pairwise loss at 0.67; from a classifier of these images
    # they bring it to 0.55.
    pretraining=(
        ("base_lr", 0.001, "at 0.003 the loss rises again after 50 iterations"),
        ("max_iter", 1000, "13 epochs of CIFAR-10's 5,000 training images"),
        ("test_initialization", "false", "BatchNorm has no statistics yet"),
    ),
)

# What differs from `fine_tuned` for pictures of 64 pixels and less: from scratch, in minutes on two cores.
CIFAR_QUICK = dict(
    image=(3, 32, 32),
    hash_std=0.001,  # as SqueezeNet
    # random crops and mirrors, for few pictures; -1 to 1, as the net learns from scratch
    data={"resize": 36, "crop": 32, "mean_value": 128, "scale": 0.0078125},
    quantization_weight=0.5,
    normalization="mean",
    solver=(
        ("test_interval", 500, "a look at the test losses costs little"),
        ("base_lr", 0.003, "the hash layer learns at 10 times that; at 0.01 it throws all codes to 0 first"),
        *TO_ZERO,
        ("max_iter", 800, "10 epochs of 5,000 training images"),
        ("display", 20, "a line every second"),
        ("snapshot", 500, "a killed training loses at most a minute"),
    ),
    pretraining=(
        ("base_lr", 0.002, "the layer of classes learns at 10 times that; at 0.01 the loss rises to 2.5 first"),
        ("max_iter", 800, "10 epochs of 5,000 training images"),
        ("test_initialization", "false", "BatchNorm has no statistics yet"),
    ),
)

# What differs from `fine_tuned` for a net, on every data set.
BY_NET = {"squeezenet": SQUEEZENET, "cifar_quick": CIFAR_QUICK}
SMALL = 64  # pixels of a picture's longer side up to which a data set of your own has cifar_quick

LABELS = {
    "fashion_mnist": Labels(1000, 10, False),
    "cifar10": Labels(1000, 10, False),
    "nus_wide": Labels(2100, 21, True),
    "flickr25k": Labels(1000, 38, True),
}

DATASETS = {
    "fashion_mnist": Dataset(
        image=(1, 28, 28),
        net="small_alexnet",
        hash_std=0.01,  # dhn-caffe's
        data={"mean_value": 73, "scale": 0.0078125},  # the mean grey value of the training images; 1 / 128
        train={"source": "data/fashion_mnist/train_lmdb", "batch_size": 64, "mirror": True},
        test={"source": "data/fashion_mnist/query_lmdb", "batch_size": 100},
        quantization_weight=1.0,
        solver=[
            ("test_iter", 10, "10 batches of 100 are the 1,000 query images"),
            ("test_interval", 500, "a look at the test losses costs less than 10 training iterations"),
            ("base_lr", 0.003, "the hash layer learns at 10 times that; a third of it leaves codes further from +-1"),
            ("lr_policy", "step", "the last third at a lower rate settles the codes"),
            ("gamma", 0.3, None),
            ("stepsize", 400, None),
            ("momentum", 0.9, "as dhn-caffe"),
            ("weight_decay", 0.0005, "as dhn-caffe"),
            ("max_iter", 600, "8 epochs of the 5,000 training images"),
            ("display", 50, "a line every few seconds"),
            ("snapshot", 500, "a killed training loses at most a minute"),
            ("random_seed", 1, "the same weights and dropout each time"),
            ("solver_mode", "CPU", "these images are small; `caffe train -gpu 0` overrides it"),
        ],
        # The paper fine-tunes a net that learned to classify ImageNet. From scratch the pairwise loss draws the codes
        # of classes that the net cannot yet tell apart to 0; so here the net first learns to classify these images.
        classes=10,
        pretraining=(
            ("base_lr", 0.01, "from xavier weights, with momentum 0.9"),
            ("stepsize", 800, "the last fifth at a lower rate"),
            ("max_iter", 1000, "13 epochs of the 5,000 training images"),
        ),
    ),
    **{name: fine_tuned(name, LABELS[name]) for name in ("cifar10", "nus_wide", "flickr25k")},
}


def recipe(dataset: str, net: str | None = None) -> Dataset:
    """What a data set is trained with, with another net if one is named: the table's, and for one of your own
    fine_tuned; in it what the data set's own recipe sets.

    Raises ValueError for an unknown net, one that the data set does not have, and for a data set that is neither in the
    table nor under data/ (where tools/get_data.py puts it), and settings of its recipe that cannot be.
    """
    spec = _of_table(dataset, net)
    for section, settings in _own_settings(dataset).items():
        if section != "pretraining" or spec.pretraining:
            spec = applied(spec, settings, section == "pretraining", f"the recipe of {dataset}")
    return spec


def _own_settings(dataset: str) -> dict:
    """The sections of settings that a data set's recipe has, as data/<dataset>/split.json keeps them; {} for none."""
    path = os.path.join(ROOT, "data", dataset, "split.json")
    try:
        with open(path, encoding="utf-8") as file:
            training = json.load(file)["training"]
        sections = {section: training[section] for section in SECTIONS if section in training}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return check(path, sections)


def _of_table(dataset: str, net: str | None) -> Dataset:
    if net is not None and net not in NETS:
        raise ValueError(f"unknown net {net!r}; there are {', '.join(NETS)}")
    spec = DATASETS.get(dataset)
    if spec is not None and net in (None, spec.net):
        return spec
    nets = nets_of(dataset)
    if net not in (None, *nets):
        raise ValueError(f"{dataset} has no net {net!r}; it has {', '.join(nets)}")
    return fine_tuned(dataset, labels_of(dataset), net or nets[0])


def labels_of(dataset: str) -> Labels:
    """The labels of a data set, as data/<dataset>/split.json counts them; LABELS where it is not there.

    Of the paper's data sets the number of queries is that of the paper's split. Raises ValueError for a data set of
    your own without that file, and for a file whose values are of other kinds.
    """
    built_in, path = LABELS.get(dataset), os.path.join(ROOT, "data", dataset, "split.json")
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
    except (OSError, ValueError, RecursionError):
        facts = None
    if isinstance(facts, dict):
        key = _misfit(facts)
        if key is not None:
            again = f"make data DATASET={dataset}" if BY_MAKE else f"dhn get-data {dataset}"
            raise ValueError(f"{path}: is damaged: {key!r} cannot be {facts[key]!r:.80}; run: {again}")
        if built_in is not None:
            return built_in._replace(classes=len(facts["label_names"])) if "label_names" in facts else built_in
        images, counts = facts.get("images", {}), facts.get("counts", {})
        if "query" in counts:
            size, names = tuple(images.get("size") or ()) or None, facts.get("label_names", [])
            return Labels(counts["query"], len(names), images.get("multi_label", False), size, counts.get("train"))
    if built_in is not None:
        return built_in
    command = "make data DATASET=path/to/recipe" if BY_MAKE else "dhn get-data path/to/recipe"
    raise ValueError(
        f"unknown dataset {dataset!r}; there are {', '.join(DATASETS)}, and those that `{command}` has made"
    )


def _misfit(facts: dict) -> Any:
    """The first key of a split.json whose value is of another kind than `make data` writes; None where none is."""
    names, images, counts = facts.get("label_names", []), facts.get("images", {}), facts.get("counts", {})
    size = images.get("size") if isinstance(images, dict) else None
    pair = isinstance(size, list) and len(size) == 2 and all(type(each) is int and each > 0 for each in size)
    right = {
        "label_names": isinstance(names, list) and all(isinstance(name, str) for name in names),
        "images": isinstance(images, dict) and type(images.get("multi_label", False)) is bool
        and (size is None or pair),
        "counts": isinstance(counts, dict) and all(type(count) is int and count >= 0 for count in counts.values()),
    }  # fmt: skip
    return next((key for key, fits in right.items() if not fits), None)


def nets_of(dataset: str) -> tuple:
    """The nets that a data set can be trained with, its default first: of your own, cifar_quick for small pictures."""
    if dataset in DATASETS:
        first = DATASETS[dataset].net
    else:
        try:
            first = "cifar_quick" if labels_of(dataset).is_small() else "alexnet"
        except ValueError:  # `make data` is still to come
            first = "alexnet"
    return (first, *(name for name in (*FINE_TUNED, "cifar_quick") if name != first))


def choice(dataset: str) -> str:
    """A sentence about the default net of a data set of your own, "" for one of the table."""
    first, *others = nets_of(dataset)
    if dataset in DATASETS:
        return ""
    if first == "cifar_quick":
        size = labels_of(dataset).size or ()
        why = f"which learns from scratch, as its pictures are small ({' x '.join(map(str, reversed(size)))})"
    else:
        why = f"the paper's, which fine-tunes {'WEIGHTS=' if BY_MAKE else '--weights'}"
    names = ", ".join(f"NET={name}" if BY_MAKE else f"--net {name}" for name in others)
    return f"{dataset} has the net {first}, {why}; others: {names}"
