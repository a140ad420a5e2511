"""Further layers that move or count values (BatchReindex to Tile), Deconvolution, Embed, SPP, the recurrent ones."""

from __future__ import annotations

from .table import Case


def first(name, fields, bottoms, tops=1, **options):
    """A case whose first bottom alone receives a diff."""
    down = "propagate_down: true" + " propagate_down: false" * bottoms.count(",") + " loss_weight: 1" * tops
    return Case(name, down + " " + fields, bottoms, tops=tops, force=False, **options)


def deconvolution(what, fields, bottoms="2x3x4x3", **options):
    return Case("Deconvolution/" + what, "convolution_param { num_output: 4 %s }" % fields, bottoms, **options)


def im2col(what, fields, bottoms="2x3x6x5", **options):
    return Case("Im2col/" + what, "convolution_param { %s }" % fields, bottoms, **options)


def crop(what, fields, bottoms, **options):
    return first("Crop/" + what, "crop_param { %s }" % fields, bottoms, **options)


def recurrent(kind, what, fields, bottoms, **options):
    filler = "weight_filler { type: 'constant' } bias_filler { type: 'constant' }"
    return Case(kind + "/" + what, "recurrent_param { num_output: 3 %s %s }" % (filler, fields), bottoms, **options)


CLIPS = "4x2 ties2"  # sequence markers: 0 begins a new one

CASES = [
    deconvolution("kernel", "kernel_size: 3"),
    deconvolution("stride_pad", "kernel_size: 4 stride: 2 pad: 1"),
    deconvolution("no_bias", "kernel_size: 2 bias_term: false"),
    deconvolution("group", "kernel_size: 3 group: 2 stride: 2", "2x4x3x3"),
    deconvolution("dilation", "kernel_size: 2 dilation: 2"),
    deconvolution("height_width", "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0"),
    deconvolution("dimensions_1", "kernel_size: 3 stride: 2", "2x3x5"),
    deconvolution(
        "bilinear",
        "kernel_size: 4 stride: 2 pad: 1 group: 4 bias_term: false weight_filler { type: 'bilinear' }",
        "1x4x3x3",
        params="as filled",
    ),
    im2col("kernel", "kernel_size: 3"),
    im2col("stride_pad", "kernel_size: 3 stride: 2 pad: 1"),
    im2col("dilation", "kernel_size: 2 dilation: 2"),
    im2col("dimensions_1", "kernel_size: 3 pad: 1", "2x3x5"),
    crop("axis_2", "axis: 2 offset: 1 offset: 2", "2x3x6x5, 2x3x4x3"),
    crop("one_offset", "axis: 2 offset: 1", "2x3x6x5, 2x3x4x3"),
    crop("no_offset", "", "2x3x6x5, 2x3x4x3"),
    crop("axis_1", "axis: 1 offset: 1 offset: 0 offset: 2", "2x4x6x5, 2x2x4x3"),
    crop("axis_negative", "axis: -1 offset: 1", "2x3x5, 2x3x2"),
    Case("Tile/axis_1", "tile_param { tiles: 3 }", "2x3x2"),
    Case("Tile/axis_0", "tile_param { axis: 0 tiles: 2 }", "2x3"),
    Case("Tile/axis_negative", "tile_param { axis: -1 tiles: 2 }", "2x3x2"),
    Case("Tile/once", "tile_param { tiles: 1 }", "2x3"),
    first("BatchReindex/plain", "", "4x3, 6 ties4"),
    first("BatchReindex/map", "", "3x2x2, 5 ties3"),
    first("Filter/one", "", "5x3, 5 binary"),
    Case("Filter/two", "", "5x3, 5x2x2, 5 binary", tops=2, backward=False),
    Case("Embed/plain", "loss_weight: 1 embed_param { num_output: 4 input_dim: 5 }", "3x2 labels5", force=False),
    Case(
        "Embed/no_bias",
        "loss_weight: 1 embed_param { num_output: 4 input_dim: 5 bias_term: false }",
        "6 labels5",
        force=False,
        iterations=2,
    ),
    Case("Parameter/plain", "parameter_param { shape { dim: 2 dim: 3 } }", "", params="small", backward=False),
    Case("SPP/two_levels", "spp_param { pyramid_height: 2 }", "2x3x6x6"),
    Case("SPP/three_levels_ave", "spp_param { pyramid_height: 3 pool: AVE }", "2x2x9x7"),
    Case("SPP/one_level", "spp_param { pyramid_height: 1 }", "2x3x4x4"),
    recurrent("RNN", "plain", "", "4x2x5, " + CLIPS),
    recurrent("RNN", "static", "", "4x2x5, " + CLIPS + ", 2x3"),
    recurrent("RNN", "exposed", "expose_hidden: true", "4x2x5, " + CLIPS + ", 1x2x3", tops=2),
    recurrent("LSTM", "plain", "", "4x2x5, " + CLIPS),
    recurrent("LSTM", "two_runs", "", "4x2x5, " + CLIPS, iterations=2),
    recurrent("LSTM", "static", "", "4x2x5, " + CLIPS + ", 2x3"),
    recurrent("LSTM", "exposed", "expose_hidden: true", "4x2x5, " + CLIPS + ", 1x2x3, 1x2x3", tops=3),
    Case("LSTMUnit/plain", "", "1x2x3, 1x2x12, 1x2 binary", tops=2),
]
