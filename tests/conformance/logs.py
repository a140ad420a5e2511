"""The `caffe` commands whose logs are recorded, the files they run on, and how two logs of one command are compared."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

LOGS = Path(__file__).resolve().parent / "recorded" / "logs"

NET = """
name: "tiny_lenet"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 } data_param { source: "data/lmdb_train" batch_size: 8 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 } data_param { source: "data/lmdb_test" batch_size: 4 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { value: 0.1 } bias_filler { type: "constant" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1" param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 10 weight_filler { value: 0.02 } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 weight_filler { value: 0.1 } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "train_val.prototxt"
test_iter: 4
test_interval: 10
base_lr: 0.05
momentum: 0.9
weight_decay: 0.0005
lr_policy: "step"
gamma: 0.5
stepsize: 10
display: 5
max_iter: 20
snapshot: 10
snapshot_prefix: "tiny"
solver_mode: CPU
random_seed: 1
"""
TWO_TESTS = SOLVER.replace(
    "test_iter: 4", 'test_iter: 4\ntest_iter: 2\ntest_state { stage: "a" }\ntest_state { stage: "b" }'
).replace("snapshot: 10", "average_loss: 3\ntest_initialization: false\nsnapshot_after_train: false\ndebug_info: false")
DEBUG = SOLVER.replace("max_iter: 20", "max_iter: 1\ndebug_info: true").replace("snapshot: 10", "snapshot_format: HDF5")
NO_MODE = SOLVER.replace("solver_mode: CPU\n", "").replace("max_iter: 20", "max_iter: 1").replace('"tiny"', '"no_mode"')
LONG = (
    SOLVER.replace("max_iter: 20", "max_iter: 1000000")
    .replace("display: 5", "display: 0")
    .replace("snapshot: 10", "snapshot: 0")
    .replace("test_interval: 10", "test_interval: 1000000")
)
DEPLOY = (
    NET.split("layer {")[0]
    + """input: "data" input_shape { dim: 2 dim: 1 dim: 12 dim: 12 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
"""
)
# In the folder the commands start in, whose data/ has what fixtures.write writes.
FILES = {
    "train_val.prototxt": NET,
    "solver.prototxt": SOLVER,
    "two_tests.prototxt": TWO_TESTS,
    "debug.prototxt": DEBUG,
    "no_mode.prototxt": NO_MODE,
    "long.prototxt": LONG,
    "deploy.prototxt": DEPLOY,
    "old_net.prototxt": 'layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 weight_decay: 1'
    ' inner_product_param { num_output: 2 } }\ninput: "data" input_dim: 2 input_dim: 3 input_dim: 1 input_dim: 1\n',
    "broken.prototxt": 'layer { name: "data" tpye: "Data" }\n',
    "unknown_type.prototxt": 'layer { name: "a" type: "Nonsense" top: "a" }\n',
}

# name of the log: the command (in this order: later ones use what earlier ones wrote)
COMMANDS = {
    "train": "caffe train -solver solver.prototxt",
    "train_resumed": "caffe train --solver=solver.prototxt --snapshot=tiny_iter_10.solverstate",
    "train_finetuned": "caffe train -solver two_tests.prototxt -weights tiny_iter_20.caffemodel",
    "train_debug_info": "caffe train -solver debug.prototxt",
    "train_without_solver_mode": "caffe train -solver no_mode.prototxt",
    "train_sigint": "timeout -s INT 0.5 caffe train -solver long.prototxt",
    "train_sighup": "timeout -s HUP 0.5 caffe train -solver long.prototxt -sighup_effect=stop",
    "train_sigint_snapshot": "timeout -s INT -k 0.5 0.5 caffe train -solver long.prototxt -sigint_effect snapshot",
    "train_snapshot_and_weights": "caffe train -solver solver.prototxt -snapshot x.solverstate -weights x.caffemodel",
    "train_without_solver": "caffe train",
    "train_solver_missing": "caffe train -solver nowhere.prototxt",
    "train_net_broken": "caffe test -model broken.prototxt -weights tiny_iter_20.caffemodel",
    "train_gpu": "caffe train -solver solver.prototxt -gpu 0",
    "test": "caffe test -model train_val.prototxt -weights tiny_iter_20.caffemodel -iterations 3",
    "test_without_model": "caffe test",
    "test_without_weights": "caffe test -model train_val.prototxt",
    "test_weights_missing": "caffe test -model train_val.prototxt -weights nowhere.caffemodel",
    "test_unknown_type": "caffe test -model unknown_type.prototxt -weights tiny_iter_20.caffemodel",
    "time": "caffe time -model train_val.prototxt -iterations 5",
    "time_deploy": "caffe time -model deploy.prototxt -iterations 2 -phase TEST",
    "time_old_net": "caffe time -model old_net.prototxt -iterations 1",
    "time_glog_flags": "caffe time -model deploy.prototxt -iterations 1 -v 1 -vmodule net=1 -logbuflevel -1"
    " -logbufsecs=0 -stderrthreshold 0 -colorlogtostderr --log_dir . -max_log_size=1",
    "time_without_model": "caffe time",
    "device_query": "caffe device_query -gpu 0",
    "device_query_all": "caffe device_query",
    "usage_no_arguments": "caffe",
    "usage_unknown_action": "caffe trian -solver solver.prototxt",
    "usage_unknown_flag": "caffe train -slover solver.prototxt",
    "usage_help": "caffe --help",
    "usage_helpshort": "caffe --helpshort",
    "version": "caffe --version",
}


def read(log: str) -> tuple[list[str], int]:
    """(the lines of a recorded log, its exit status)."""
    lines = (LOGS / f"{log}.txt").read_text().splitlines()
    return lines[1:-1], int(re.findall(r"\d+", lines[-1])[0])


NUMBER = re.compile(r"(?<![\w.])-?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)(?![\w])")


def parts(lines: list[str]) -> list[tuple[str, list[float]]]:
    """Each line as (its text with # for numbers, the numbers), without what differs from run to run.

    Left out: the date, time and process number of a line; speeds and times; the lines of the data layer's own thread.
    """
    kept = []
    for line in lines:
        if "Restarting data prefetching" in line or "Waiting for data" in line:
            continue
        line = re.sub(r"^([IWEF])\d{4} [\d:.]+ +\d+ ", r"\1 ", line)
        line = re.sub(r"\([-\d.e+naif]+ iter/s, [-\d.e+]+s/", "(speed/", line)
        line = re.sub(r"[-\d.e+]+ ms\b", "time", line)
        kept.append((NUMBER.sub("#", line), [float(number) for number in NUMBER.findall(line)]))
    return kept


def differences(expected: list[str], found: list[str]) -> list[str]:
    """One sentence for each line that two logs do not share, or whose numbers are further apart than 1e-3 of theirs."""
    ours, theirs = parts(found), parts(expected)
    said = []
    matcher = difflib.SequenceMatcher(None, [t for t, _ in theirs], [t for t, _ in ours], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            for (text, wanted), (_, got) in zip(theirs[a:b], ours[c:d]):
                if any(abs(x - y) > 1e-3 * abs(x) + 1e-6 for x, y in zip(wanted, got)):
                    said.append(f"{text}: expected {wanted}, found {got}")
        else:
            said += [f"only the reference: {text} {numbers}" for text, numbers in theirs[a:b]]
            said += [f"only the engine: {text} {numbers}" for text, numbers in ours[c:d]]
    return said
