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
    "convert_mnist_data": ("caffe.cli.convert_mnist_data:main", ("build/examples/mnist/convert_mnist_data",)),
    "convert_mnist_siamese_data": (
        "caffe.cli.convert_mnist_data:siamese",
        ("build/examples/siamese/convert_mnist_siamese_data",),
    ),
    "convert_cifar_data": ("caffe.cli.convert_cifar_data:main", ("build/examples/cifar10/convert_cifar_data",)),
    "parse_log": ("caffe.cli.parse_log:main", ("tools/extra/parse_log.py",)),
    "plot_training_log": (
        "caffe.cli.plot_training_log:main",
        ("tools/extra/plot_training_log.py", "tools/extra/plot_training_log.py.example"),
    ),
    "draw_net": ("caffe.cli.draw_net:main", ("python/draw_net.py",)),
    "classify": ("caffe.cli.classify:main", ("python/classify.py",)),
    "detect": ("caffe.cli.detect:main", ("python/detect.py",)),
}

# what `caffe shim` writes too, under names that say too little to be commands: path: module and function
SCRIPTS: dict[str, str] = {
    "build/examples/cpp_classification/classification": "caffe.cli.classification:main",
    "tools/extra/parse_log.sh": "caffe.cli.log_tables:parse_log",
    "tools/extra/extract_seconds.py": "caffe.cli.log_tables:extract_seconds",
}
