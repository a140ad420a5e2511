"""`draw_net NET PICTURE`: the picture of a net, by Graphviz's program dot."""

from __future__ import annotations

import argparse
import sys

from atomic_writes.command_lines import Parser

from caffe import draw
from caffe.atomic_files import check_folder, write_atomic
from caffe.cli.arguments import add_proto, run
from caffe.proto import caffe_pb2, text

PHASES = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST, "ALL": None}


def _draw(args: argparse.Namespace) -> None:
    net = text.read_net(args.input_net_proto_file)
    check_folder(args.output_image_file)
    ext = draw.file_type(args.output_image_file)
    picture = draw.draw_net(net, args.rankdir, ext, PHASES[args.phase], args.display_lrm)
    print(f"Drawing net to {args.output_image_file}")
    write_atomic(args.output_image_file, picture)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(prog="draw_net", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("input_net_proto_file", help="Input network prototxt file")
    parser.add_argument("output_image_file", help="Output image file, of the type that its name ends in")
    parser.add_argument(
        "--rankdir", choices=("LR", "TB", "BT", "RL"), default="LR", help="The direction in which the graph runs"
    )
    parser.add_argument("--phase", choices=PHASES, default="ALL", help="Which network phase to draw")
    parser.add_argument("--display_lrm", action="store_true", help="Display the learning rate multipliers of layers")
    add_proto(parser)
    return run(parser, _draw, arguments)


if __name__ == "__main__":
    sys.exit(main())
