"""The `caffe` command: train, test, time and device_query with BVLC Caffe's flags and log lines (BVLC's
tools/caffe.cpp); shim and doctor for what surrounds it."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import SimpleNamespace

from caffe import glog
from caffe.cli import flags, ranks
from caffe.cli.flags import UsageError
from caffe.imports import import_module

FLAGS = flags.Flags(
    "caffe",
    """caffe: command line brew
usage: caffe <command> <args>

commands:
  train           train or finetune a model
  test            score a model
  device_query    show GPU diagnostic information
  time            benchmark model execution time
  shim DIR [MEAN] write build/tools/* and python/caffe into DIR, for repositories that hard-code them
  doctor          say what is installed, and which caffe Python imports
""",
    {
        "gpu": (
            str,
            "",
            "Optional; run in GPU mode on given device IDs separated by ','. Use '-gpu all' to run on all available "
            "GPUs. 'train' starts a process a device, each with the batch of the prototxt; others use the first.",
        ),
        "processes": (int, 1, "Optional; train on the CPU in so many processes, each with the batch of the prototxt."),
        "solver": (str, "", "The solver definition protocol buffer text file."),
        "model": (str, "", "The model definition protocol buffer text file."),
        "phase": (str, "", "Optional; network phase (TRAIN or TEST). Only used for 'time'."),
        "level": (int, 0, "Optional; network level."),
        "stage": (str, "", "Optional; network stages (not to be confused with phase), separated by ','."),
        "snapshot": (str, "", "Optional; the snapshot solver state to resume training."),
        "weights": (
            str,
            "",
            "Optional; the pretrained weights to initialize finetuning, separated by ','. "
            "Cannot be set simultaneously with snapshot.",
        ),
        "precision": (
            str,
            "float32",
            "Optional; in what convolutions and inner products multiply: float32, tf32 (on a GPU only) or bf16.",
        ),
        "deterministic": (
            bool,
            False,
            "Optional; compute to the bit alike each time on a GPU, which is slower. On a CPU it is always so.",
        ),
        "iterations": (int, 50, "The number of iterations to run."),
        "sigint_effect": (
            str,
            "stop",
            "Optional; action to take when a SIGINT signal is received: snapshot, stop or none.",
        ),
        "sighup_effect": (
            str,
            "snapshot",
            "Optional; action to take when a SIGHUP signal is received: snapshot, stop or none.",
        ),
    },
)


ACTIONS = ("device_query", "test", "time", "train")  # functions of caffe.cli.actions


def shim_command(folder: str, mean: str | None = None) -> None:
    """Write the folder that lets an old repository run: see caffe.cli.shim."""
    from caffe.cli import shim

    result = shim.write(Path(folder), mean)
    for path in result.written:
        print(path)
    for path, reason in result.left:
        print(f"not written: {path} {reason}")


def _run(typed: list[str], words: list[str], values: SimpleNamespace) -> int:
    values.command_line = typed
    if words and words[0] == "shim":
        if len(words) not in (2, 3):
            raise UsageError(
                f"caffe shim DIR [MEAN]: expected a folder and perhaps a mean, found {len(words) - 1} words"
            )
        shim_command(*words[1:])
        return 0
    if len(words) != 1 or words == ["help"]:
        print(FLAGS.help_text())
        return 0
    if words[0] == "doctor":
        from caffe.cli import doctor

        return doctor.report()
    if words[0] not in ACTIONS:
        glog.error("caffe.cpp:78", "Available caffe actions:")
        for name in (*ACTIONS, "shim", "doctor"):
            glog.error("caffe.cpp:81", f"\t{name}")
        glog.error("caffe.cpp:83", f"Unknown action: {words[0]}")
        return 1
    actions = import_module("caffe.cli.actions")  # here: it imports torch, which help needs not
    return getattr(actions, words[0])(values) or 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    typed = sys.argv[1:] if arguments is None else arguments
    action = functools.partial(_run, typed)
    return ranks.run(lambda: flags.run(FLAGS, action, typed, alone=ranks.place() is None))


if __name__ == "__main__":
    sys.exit(main())
