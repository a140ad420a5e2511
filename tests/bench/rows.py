"""The table: what each row measures, against what, and what is to be reached."""

from __future__ import annotations

import prepared
from harness import Goal, Row, Side

LIMITED = ("alexnet", "caffenet", "googlenet", "squeezenet", "resnet50")  # nets that are to come near their products
NAMES = {"alexnet": "AlexNet", "caffenet": "CaffeNet"}


def both(task: str, **options: object) -> dict[str, Side]:
    """The same script on the engine and on BVLC Caffe."""
    return {"engine": Side(task, options), "BVLC": Side(task, options, inside=True)}


def products(net: str, batch: int, **options: object) -> dict[str, Side]:
    """The limit: the products alone."""
    return {"limit": Side("limit", {"net": net, "batch": batch, **options})}


def training(net: str, batch: int, iterations: int, bound: float, seconds: float, says: str) -> Row:
    sides = both("training", net=net, batch=batch, iterations=iterations) | products(net, batch)
    goals = [Goal(bound, to="BVLC")]
    if net in LIMITED:
        goals.append(Goal(1.35, to="limit"))
    return Row(f"training iteration of {says}, batch {batch}", sides, tuple(goals), seconds)


def plain_torch(net: str, batch: int, bound: float, seconds: float) -> Row:
    """Next to the net's prototxt as plain PyTorch modules, in either memory format: the better of both counts."""
    what = {"net": net, "batch": batch, "iterations": 1}
    sides = {
        "engine": Side("training", what),
        "PyTorch": Side("torch_nets", what),
        "channels_last": Side("torch_nets", {**what, "channels_last": True}),
        **products(net, batch),
    }
    says = f"training iteration of {net}, batch {batch}, next to plain PyTorch, channels_last too"
    return Row(says, sides, (Goal(bound, to=("PyTorch", "channels_last")),), seconds)


def timed(net: str) -> Row:
    sides = both("timing", net=net, batch=64, iterations=2)
    return Row(f"forward and backward of {NAMES[net]} at 227x227, batch 64, as `caffe time` has it", sides,
               (Goal(0.65, to="BVLC"),), 40)  # fmt: skip


def beside_torch(net: str, bound: float, seconds: float) -> Row:
    what = {"net": net, "batch": 64, "iterations": 1}
    sides = {"engine": Side("training", what), "PyTorch": Side("torch_training", {**what, "kernels": True})}
    says = f"training iteration of {NAMES[net]} at 227x227, batch 64, next to PyTorch with the engine's kernels in it"
    return Row(says, sides, (Goal(bound, to="PyTorch"),), seconds)


def layers(engine: str, bvlc: str) -> dict[str, Side]:
    what = {"batch": 64, "iterations": 8}
    return {"engine": Side("data_layers", {"layer": engine, **what}),
            "BVLC": Side("data_layers", {"layer": bvlc, **what}, inside=True)}  # fmt: skip


def extracted(name: str) -> dict[str, Side]:
    """The command extract_features on files of prepared.extraction."""
    words = (f"{name}.caffemodel", f"{name}_data.prototxt", prepared.FEATURES[name], "features",
             str(prepared.EXTRACTED[name] // prepared.BATCH), "lmdb", "CPU")  # fmt: skip
    options = {"makes": "features", "count": prepared.EXTRACTED[name]}
    return {
        "engine": Side("commands", {"command": ("PYTHON", "-m", "caffe.cli.extract_features", *words), **options}),
        "BVLC": Side("commands", {"command": ("extract_features", *words), **options}, inside=True),
        **products(name, prepared.BATCH, forward=True),
    }


def built(*command: str) -> dict:
    return {"command": command, "makes": "built", "count": prepared.PHOTOS}


def scored(items: int, queries: int, **more: object) -> Side:
    return Side("scoring", {"items": items, "queries": queries, "bits": 48, "classes": 21, "top": 5000, **more})


def reading(size: float, **options: object) -> dict[str, Side]:
    """The limit of what only reads so many bytes of memory."""
    return {"limit": Side("reading", {"size": size, **options})}


def nearest(**options: object) -> dict[str, Side]:
    """The nearest items by an index, with either rule for ties, and by faiss."""
    index = {"what": "index", **options}
    return {
        "index": Side("nearest", {**index, "ties": "key"}),
        "by product": Side("nearest", {**index, "ties": "product"}),
        "faiss": Side("nearest", {"what": "faiss", **options}),
    }


MANY = {"items": 10_000_000, "bits": 64}
FEW = {"items": 64_000, "bits": 48, "distinct": 4672}
NUS_WIDE = 193_734  # database images of the paper's split

ROWS = {
    "alexnet": training("alexnet", 64, 1, 0.45, 40, "AlexNet at 227x227"),
    "alexnet-time": timed("alexnet"),
    "alexnet-torch": plain_torch("alexnet", 64, 0.60, 45),
    "alexnet-overhead": beside_torch("alexnet", 1.05, 35),
    "caffenet": training("caffenet", 64, 1, 0.50, 40, "CaffeNet at 227x227"),
    "caffenet-time": timed("caffenet"),
    "caffenet-torch": plain_torch("caffenet", 64, 0.70, 45),
    "caffenet-overhead": beside_torch("caffenet", 1.05, 35),
    "extract": Row(
        "features (fc7) from AlexNet's deploy net, batch 50",
        both("features", net="alexnet", batch=50, blob="fc7", iterations=1),
        (Goal(0.65, to="BVLC"),),
        15,
    ),
    **{
        f"extract-{name}": Row(
            f"extract_features, features of {name} from an LMDB of {prepared.EXTRACTED[name]} JPEGs, end to end",
            extracted(name),
            (Goal(0.40, to="BVLC"),),
            45,
            rounds=(2, 5),
            needs=(prepared.extraction,),
        )
        for name in ("alexnet", "squeezenet", "demo")
    },
    "lenet": training("lenet", 64, 40, 0.45, 15, "LeNet"),
    "cifar10": training("cifar10_full", 100, 3, 0.45, 15, "cifar10 full (LRN within channel)"),
    "googlenet": training("googlenet", 16, 1, 0.45, 40, "GoogLeNet at 224x224 with its three losses"),
    "googlenet-torch": plain_torch("googlenet", 16, 0.70, 40),
    "squeezenet": training("squeezenet", 32, 1, 0.45, 45, "the project's SqueezeNet at 227x227"),
    "squeezenet-torch": plain_torch("squeezenet", 32, 0.65, 45),
    "resnet50": training("resnet50", 8, 1, 0.50, 45, "ResNet-50 at 224x224"),
    "resnet50-torch": plain_torch("resnet50", 8, 0.90, 45),
    "demo": Row(
        "training iteration of the demo's net, batch 64: both losses, data layer on an LMDB",
        both("demo_iterations", iterations=10) | products("demo", 64),
        (Goal(0.45, to="BVLC"),),
        25,
        needs=(prepared.demo_lmdb,),
    ),
    "demo-command": Row(
        "`make demo` after installation, from the images to the index",
        {"demo": Side("demo_command")} | products("demo", 64, times=600 + 70_000 / 64 / 3),  # a forward: a third
        (Goal(75, "demo"),),
        75,
        rounds=(1, 1),
    ),
    "neighbour": Row(
        "training iteration of LeNet, batch 64, next to a program that keeps all cores busy, and without it",
        {
            "busy": Side("training", {"net": "lenet", "batch": 64, "iterations": 20, "neighbour": True}),
            "alone": Side("training", {"net": "lenet", "batch": 64, "iterations": 20}),
        },
        (Goal(2.5, "busy", "alone"),),
        20,
    ),
    "memory": Row(
        "peak memory of a process that trains AlexNet, batch 64, three iterations",
        both("training", net="alexnet", batch=64, iterations=1)
        | {"limit": Side("holding", {"net": "alexnet", "batch": 64})},
        (Goal(1.0, to="BVLC", figure="peak"),),
        10,
        rounds=(1, 2),
        fresh=True,
    ),
    "data": Row(
        "Data layer on an LMDB of 256x256 JPEGs, crop 227, mirror, mean image: time for an image",
        layers("data", "data"),
        (Goal(1.8, to="BVLC", faster=True, rate="images"),),
        20,
        needs=(prepared.photos_lmdb,),
    ),
    "data-starve": Row(
        "iteration of a net that computes elsewhere, for twice the Data layer's time for a batch; beside data at hand",
        {
            "engine": Side("data_layers", {"layer": "data", "batch": 64, "iterations": 10, "paused": True}),
            "at hand": Side("data_layers", {"layer": "there", "batch": 64, "iterations": 10, "paused": True}),
        },
        (Goal(1.05, to="at hand"),),
        20,
        needs=(prepared.photos_lmdb,),
    ),
    "multilabel": Row(
        "python_layers/multilabel_data.py, nothing cached, beside ImageData: 500x375 JPEGs, resize 256, crop, mirror",
        layers("multilabel", "image_data"),
        (Goal(1.5, to="BVLC", faster=True, rate="images"),),
        25,
        needs=(prepared.photos,),
    ),
    "lmdb": Row(
        "tools/create_lmdb.py beside convert_imageset, as commands: 2,000 JPEGs, 500x375, to an LMDB of 256x256 JPEGs",
        {
            "engine": Side(
                "commands",
                built(
                    "PYTHON",
                    str(prepared.ROOT / "tools" / "create_lmdb.py"),
                    "photos.txt",
                    "built",
                    "--resize",
                    "256",
                    "256",
                    "--encode",
                    "jpg",
                ),
            ),
            "BVLC": Side(
                "commands",
                built(
                    "convert_imageset",
                    "--resize_height=256",
                    "--resize_width=256",
                    "--encoded",
                    "--encode_type=jpg",
                    "./",
                    "photos.txt",
                    "built",
                ),
                inside=True,
            ),
        },
        (Goal(1.8, to="BVLC", faster=True, rate="images"),),
        45,
        rounds=(2, 5),
        needs=(prepared.photos,),
    ),
    "score": Row(
        "MAP of 193,734 x 2,100 codes of 48 bits, 21 labels, R = 5000, with its tie range; beside the authors' script",
        {"engine": scored(NUS_WIDE, 2100), "authors": scored(NUS_WIDE, 2100, authors=True)},
        (Goal(80, to="authors", faster=True), Goal(0.5e9, figure="peak")),
        40,
        rounds=(3, 3),
        memory=11,
    ),
    "score-scale": Row(
        "the same with 10 and 100 times the database and 210 queries; memory beyond an empty process's",
        {
            "1x": scored(NUS_WIDE, 210),
            "10x": scored(10 * NUS_WIDE, 210),
            "100x": scored(100 * NUS_WIDE, 210),
            **reading(100 * NUS_WIDE * (48 * 4 + 21)),  # its codes and labels as they are given
        },
        (
            Goal(1.0, "10x", "1x", per=10),
            Goal(1.0, "100x", "10x", per=10),
            Goal(1.0, "10x", "1x", "grown", per=10),
            Goal(1.0, "100x", "10x", "grown", per=10),
        ),
        60,
        rounds=(2, 3),
        memory=11,
    ),
    "search": Row(
        "exact top 100 of 10,000,000 random codes of 64 bits, ten queries on one core; beside faiss IndexBinaryFlat",
        nearest(**MANY) | reading(MANY["items"] * 8, cores=1),  # the binary codes, once for all queries
        (Goal(1.0, "index", "faiss"), Goal(1.0, "by product", "faiss")),
        60,
        memory=9,
    ),
    "search-clustered": Row(
        "exact top 100 of 64,000 codes of 48 bits, clustered as the demo's; beside faiss IndexBinaryFlat",
        nearest(**FEW) | reading(FEW["items"] * 8, cores=1),
        (Goal(8, "index", "faiss", faster=True), Goal(8, "by product", "faiss", faster=True)),
        15,
    ),
    "search-open": Row(
        "an index of 10,000,000 codes of 64 bits opened, none of its files in memory",
        {"index": Side("nearest", {"what": "open", **MANY})},
        (Goal(0.05, "index"),),
        25,
        memory=9,
    ),
    "search-build": Row(
        "an index of 10,000,000 codes of 64 bits built",
        {"index": Side("nearest", {"what": "build", **MANY})},
        (Goal(60, "index"),),
        40,
        rounds=(1, 2),
        memory=9,
    ),
    "search-http": Row(
        "a query by key over HTTP, 8 clients at a time, 64,000 codes of 48 bits: the median and the slowest but 1 %",
        {
            "p50": Side("serving", {**FEW, "quantile": 0.5}),
            "p99": Side("serving", {**FEW, "quantile": 0.99}),
            "limit": Side("serving", {**FEW, "quantile": 0.5, "asked": "/healthz"}),  # the same server, no search
        },
        (Goal(0.005, "p50"), Goal(0.025, "p99")),
        20,
        program="wrk",
    ),
    "search-picture": Row(
        "a query by a picture over HTTP, SqueezeNet at 131x131: beyond its net's forward",
        {"beyond": Side("serving", FEW), "limit": Side("decoding")},
        (Goal(0.010, "beyond"),),
        20,
        needs=(prepared.photos,),
    ),
    "load": Row(
        "a caffemodel of 233 MB in the form of 2013 (V1) into AlexNet",
        both("weights") | reading(233e6),
        (Goal(1.0, to="BVLC"),),
        15,
        needs=(prepared.weights,),
    ),
    "start": Row(
        "from the command to `import caffe` done, `caffe.Net` too, and to the first iteration of `caffe train`",
        {
            "import": Side("starting", {"what": "import"}),
            "Net": Side("starting", {"what": "net"}),
            "torch": Side("starting", {"what": "torch"}),
            "train": Side("starting", {"what": "train"}),
        },
        (Goal(1.05, "import", "torch"), Goal(1.05, "Net", "torch"), Goal(2.5, "train")),
        40,
        rounds=(3, 5),
        limit="torch",
    ),
    "start-tools": Row(
        "processor time of the slowest start of create_lmdb, get_data and score_map --json, which need no torch",
        {"tools": Side("starting", {"what": "tools"}), "limit": Side("starting", {"what": "numpy"})},
        (Goal(0.5, "tools"),),
        15,
        rounds=(3, 5),
    ),
    "score-first": Row(
        "the first call of score_map --json",
        {"score_map": Side("starting", {"what": "score"})},
        (Goal(2.0, "score_map"),),
        10,
        rounds=(3, 5),
    ),
}
