"""The commands beside `caffe`: where BVLC's tree has them, and the functions that run them."""

from __future__ import annotations

# command: (module and function, the paths below Caffe's root at which scripts call it)
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "caffe": ("caffe.cli.main:main", ("build/tools/caffe",)),
    "convert_imageset": ("caffe.cli.convert_imageset:main", ("build/tools/convert_imageset",)),
    "compute_image_mean": ("caffe.cli.compute_image_mean:main", ("build/tools/compute_image_mean",)),
    "extract_features": ("caffe.cli.extract_features:main", ("build/tools/extract_features",)),
    "upgrade_net_proto_text": ("caffe.cli.upgrade_proto:net_text", ("build/tools/upgrade_net_proto_text",)),
    "upgrade_net_proto_binary": ("caffe.cli.upgrade_proto:net_binary", ("build/tools/upgrade_net_proto_binary",)),
    "upgrade_solver_proto_text": ("caffe.cli.upgrade_proto:solver_text", ("build/tools/upgrade_solver_proto_text",)),
    "parse_log": ("caffe.cli.parse_log:main", ("tools/extra/parse_log.py",)),
    "plot_training_log": ("caffe.cli.plot_training_log:main", ("tools/extra/plot_training_log.py",)),
    "draw_net": ("caffe.cli.draw_net:main", ("python/draw_net.py",)),
    "classify": ("caffe.cli.classify:main", ("python/classify.py",)),
    "detect": ("caffe.cli.detect:main", ("python/detect.py",)),
}
