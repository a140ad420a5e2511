"""Convolution, InnerProduct, Pooling, LRN."""

from __future__ import annotations

import caffe

from .table import Case


def convolution(what, fields, bottoms="2x3x7x6", **options):
    return Case("Convolution/" + what, "convolution_param { num_output: 4 %s }" % fields, bottoms, **options)


def pooling(what, fields, bottoms="2x3x7x6", **options):
    return Case("Pooling/" + what, "pooling_param { %s }" % fields, bottoms, **options)


def inner_product(what, fields, bottoms="3x2x4x2", **options):
    return Case("InnerProduct/" + what, "inner_product_param { num_output: 5 %s }" % fields, bottoms, **options)


def lrn(what, fields, bottoms="2x7x5x6", **options):
    return Case("LRN/" + what, "lrn_param { %s }" % fields, bottoms, **options)


CASES = [
    convolution("kernel", "kernel_size: 3"),
    convolution("kernel_1", "kernel_size: 1"),
    convolution("stride_pad", "kernel_size: 3 stride: 2 pad: 1"),
    convolution("stride_leaves_rest", "kernel_size: 3 stride: 3", "2x3x7x7"),
    convolution("no_bias", "kernel_size: 2 bias_term: false"),
    convolution("height_width", "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2"),
    convolution("repeated", "kernel_size: 2 kernel_size: 3 stride: 1 stride: 2 pad: 1 pad: 0"),
    convolution("dilation", "kernel_size: 3 dilation: 2 pad: 2"),
    convolution("dilation_repeated", "kernel_size: 2 dilation: 3 dilation: 2 stride: 2"),
    convolution("group", "kernel_size: 3 pad: 1 group: 2", "2x6x5x5"),
    convolution("depthwise", "kernel_size: 3 group: 4", "2x4x5x6"),
    convolution("axis_2", "kernel_size: 2 axis: 2", "2x2x3x4x5"),
    convolution("axis_negative", "kernel_size: 2 axis: -3", "2x2x3x4x5"),
    convolution("dimensions_1", "kernel_size: 3 stride: 2 pad: 1", "2x3x9"),
    convolution("dimensions_3", "kernel_size: 2 stride: 2 pad: 1", "2x2x3x4x3"),
    convolution("dimensions_3_dilated", "kernel_size: 2 dilation: 1 dilation: 2 dilation: 1 group: 2", "1x4x3x5x3"),
    convolution("dimensions_0", "", "3x4"),
    convolution("force_nd", "kernel_size: 3 pad: 1 stride: 2 force_nd_im2col: true"),
    convolution("two_bottoms", "kernel_size: 3", "2x3x5x5, 2x3x5x5", tops=2),
    convolution("accumulates", "kernel_size: 3", iterations=2),
    Case(
        "Convolution/frozen_weights",
        "param { lr_mult: 0 } param { lr_mult: 1 } convolution_param { num_output: 2 kernel_size: 3 }",
        "2x3x5x5",
    ),
    inner_product("plain", ""),
    inner_product("no_bias", "bias_term: false"),
    inner_product("transpose", "transpose: true"),
    inner_product("axis_2", "axis: 2"),
    inner_product("axis_negative", "axis: -1 transpose: true"),
    inner_product("axis_0", "axis: 0", "3x4"),
    inner_product("vectors", "", "6x4"),
    inner_product("accumulates", "", iterations=2),
    pooling("max", "pool: MAX kernel_size: 3 stride: 2"),
    pooling("max_even", "kernel_size: 2 stride: 2"),
    pooling("max_pad", "pool: MAX kernel_size: 3 stride: 2 pad: 1"),
    pooling("max_pad_clips_window", "pool: MAX kernel_size: 2 stride: 2 pad: 1", "1x2x5x4"),
    pooling("max_overlap", "pool: MAX kernel_size: 3 stride: 1 pad: 1"),
    pooling("max_ties", "pool: MAX kernel_size: 3 stride: 2", "2x2x7x7 ties3"),
    pooling("max_mask", "pool: MAX kernel_size: 3 stride: 2", "2x2x6x7 ties4", tops=2, backward=False),
    pooling("max_mask_backward", "pool: MAX kernel_size: 2 stride: 2", "2x2x6x6", tops=2),
    pooling("max_height_width", "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0"),
    pooling("max_stride_over_kernel", "kernel_size: 2 stride: 3", "1x2x8x8"),
    pooling("max_floor", "kernel_size: 3 stride: 2 round_mode: FLOOR", "1x2x8x8"),
    pooling("max_ceil", "kernel_size: 3 stride: 2 round_mode: CEIL", "1x2x8x8"),
    pooling("max_global", "global_pooling: true"),
    pooling("ave", "pool: AVE kernel_size: 3 stride: 2"),
    pooling("ave_pad", "pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    pooling("ave_pad_clips_window", "pool: AVE kernel_size: 3 stride: 2 pad: 2", "1x2x6x5"),
    pooling("ave_ceil_beyond_pad", "pool: AVE kernel_size: 3 stride: 2 pad: 1", "1x2x8x8"),
    pooling("ave_floor", "pool: AVE kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR", "1x2x8x8"),
    pooling("ave_height_width", "pool: AVE kernel_h: 2 kernel_w: 4 stride_h: 2 stride_w: 3 pad_h: 0 pad_w: 1"),
    pooling("ave_stride_over_kernel", "pool: AVE kernel_size: 1 stride: 2", "2x3x7x7"),
    pooling("ave_global", "pool: AVE global_pooling: true"),
    lrn("across", "local_size: 5 alpha: 0.3 beta: 0.75"),
    lrn("across_default", "", "2x7x3x3 large"),
    lrn("across_small", "local_size: 3 alpha: 1.5 beta: 0.5 k: 2"),
    lrn("across_wider_than_channels", "local_size: 9 alpha: 0.8", "2x4x3x3"),
    lrn("across_size_1", "local_size: 1 alpha: 0.7 k: 0.5"),
    lrn("across_one_channel", "local_size: 5 alpha: 0.5", "2x1x3x4"),
    lrn("within", "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.9 beta: 0.75"),
    lrn("within_odd", "norm_region: WITHIN_CHANNEL local_size: 5 alpha: 2 beta: 0.6", "1x2x3x7"),
    lrn("within_test_phase", "norm_region: WITHIN_CHANNEL local_size: 3", phase=caffe.TEST),
]
