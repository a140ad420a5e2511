"""Train a variant of DHN on a data set with `caffe train`, into runs/<dataset>-<variant>-<bits>/.

    python tools/train.py fashion_mnist [--variant dhn] [--bits 48] [--net alexnet] [--seed 1] [--weights W.caffemodel]
        [--gpu 0 | --gpus 0,1] [--resume] [--set base_lr=0.01 --set batch_size=32 ...]

Writes the nets and the solver (prototxt/net.py), runs `caffe train -solver`, keeps its whole log in train.log and its
curves in train.csv (in event files too, where tensorboard is installed), and shows where it is. A finished training is
left as it is; one that was cut off goes on from its newest complete snapshot (--resume insists on one). What another
recipe left in the folder is moved to `earlier-N/`, not overwritten. A prototxt that was edited in the folder is
trained as it stands; the command, training.json, metrics.json and the report say so. A loss that is not finite stops
the training at its first display, and the snapshots that are not good any more are removed; --resume goes on from the
last good one all the same.

--set has a field of the solver, or batch_size, mirror, resize, crop, mean_value, scale, lambda, similar_weight,
otherwise than the tables of prototxt/ (run_settings.py). What is typed are all settings of the run: other ones than it
had make another recipe. A command without any keeps those that the run has; --resume takes none. An edited file and
--set exclude each other.

--weights starts from the weights of the layers that have the same names there (fine-tuning); a training that goes on
keeps those it began with. Where none are named and the data set has a pretraining, that is trained first, once for all
variants and bits, into runs/<dataset>-pretraining/. The data set's lists are checked before: a query image that is in
the database or among the training images stops it. DATASET may be the path of a recipe (tools/dhn/datasets/recipes.py).
"""

from __future__ import annotations

import sys

import dhn  # first: it says so where the project is not installed

# isort: split
import net
from dataset_table import choice
from dhn.progress import console
from dhn.runs.command_line import add_settings, run_of, run_parser, settings_typed
from dhn.runs.folder import RunError
from dhn.runs.training import train


def _numbers(text: str) -> list[int]:
    """The numbers of GPUs in `0,1`."""
    return [int(number) for number in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    variants = [*net.VARIANTS, net.PRETRAINING]
    parser = run_parser("Train a variant of DHN on a data set, or the classifier it starts from.", variants=variants)
    parser.add_argument("--weights", metavar="W.caffemodel", help="weights to start from")
    parser.add_argument(
        "--gpus", metavar="N,N", type=_numbers, help="train on several GPUs, each with its part of the recipe's batch"
    )
    parser.add_argument("--resume", action="store_true", help="insist on a snapshot to go on from")
    add_settings(parser)
    options = parser.parse_args(arguments)
    try:
        if options.resume and options.set:
            raise ValueError("--resume goes on with the settings that the run has; leave --set out")
        if options.gpus and options.gpu is not None:
            raise ValueError("--gpus names all GPUs; leave --gpu out")
        run = run_of(options)
        if run.net is None and (sentence := choice(run.dataset)):
            console.print(sentence, markup=False)
        train(run, options.resume, options.weights, options.gpus or options.gpu, settings=settings_typed(options))
    except (RunError, ValueError, OSError) as error:
        print(f"train: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
