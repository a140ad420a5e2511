"""The table: what each row measures, against what, and what is to be reached."""

from __future__ import annotations

from harness import Goal, Row, Side


NAMES = {"alexnet": "AlexNet", "caffenet": "CaffeNet"}


def both(task: str, **options: object) -> dict[str, Side]:
    """The same script on the engine and on BVLC Caffe."""
    return {"engine": Side(task, options), "BVLC": Side(task, options, inside=True)}


def training(net: str, batch: int, iterations: int, bound: float, seconds: float, says: str) -> Row:
    sides = both("training", net=net, batch=batch, iterations=iterations)
    return Row(f"training iteration of {says}, batch {batch}", sides, (Goal(bound, to="BVLC"),), seconds)


def beside_torch(net: str, kernels: bool, bound: float, seconds: float) -> Row:
    what = {"net": net, "batch": 64, "iterations": 1}
    sides = {"engine": Side("training", what), "PyTorch": Side("torch_training", {**what, "kernels": kernels})}
    kind = "plain PyTorch with the engine's LRN and pooling" if kernels else "plain PyTorch, F.local_response_norm"
    says = f"training iteration of {NAMES[net]} at 227x227, batch 64, beside {kind}"
    return Row(says, sides, (Goal(bound, to="PyTorch"),), seconds)


ROWS = {
    "alexnet": training("alexnet", 64, 1, 0.65, 40, "AlexNet at 227x227"),
    "alexnet-torch": beside_torch("alexnet", False, 0.60, 45),
    "alexnet-overhead": beside_torch("alexnet", True, 1.05, 35),
    "caffenet": training("caffenet", 64, 1, 0.65, 40, "CaffeNet at 227x227"),
    "caffenet-torch": beside_torch("caffenet", False, 0.60, 45),
    "caffenet-overhead": beside_torch("caffenet", True, 1.05, 35),
    "extract": Row(
        "features (fc7) from AlexNet's deploy net, batch 50",
        both("features", net="alexnet", batch=50, blob="fc7", iterations=1),
        (Goal(0.65, to="BVLC"),),
        15,
    ),
    "lenet": training("lenet", 64, 10, 0.70, 15, "LeNet"),
    "cifar10": training("cifar10_full", 100, 3, 0.45, 15, "cifar10 full (LRN within channel)"),
    "googlenet": training("googlenet", 16, 1, 0.60, 30, "GoogLeNet at 224x224 with its three losses"),
}
