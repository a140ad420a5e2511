"""Layers that cut, join or reshape: values pass through."""

from __future__ import annotations

from .table import Case


def reshape(what, fields, bottoms="2x3x4x2", **options):
    return Case("Reshape/" + what, "reshape_param { %s }" % fields, bottoms, **options)


def dims(*sizes):
    return "shape { %s }" % " ".join("dim: %d" % n for n in sizes)


CASES = [
    Case("Slice/two", "", "2x4x3", tops=2),
    Case("Slice/three", "slice_param { axis: 1 }", "2x6x3", tops=3),
    Case("Slice/axis_0", "slice_param { axis: 0 }", "4x3x2", tops=2),
    Case("Slice/axis_negative", "slice_param { axis: -1 }", "2x3x4", tops=2),
    Case("Slice/points", "slice_param { axis: 1 slice_point: 1 slice_point: 4 }", "2x6x2", tops=3),
    Case("Slice/slice_dim", "slice_param { slice_dim: 0 slice_point: 3 }", "4x3x2x1", tops=2),
    Case("Slice/one_top", "", "2x4", tops=1),
    Case("Concat/two", "", "2x3x2, 2x1x2"),
    Case("Concat/axis_0", "concat_param { axis: 0 }", "2x3x2, 1x3x2, 3x3x2"),
    Case("Concat/axis_negative", "concat_param { axis: -1 }", "2x3x2, 2x3x4"),
    Case("Concat/concat_dim", "concat_param { concat_dim: 0 }", "2x3x2x1, 1x3x2x1"),
    Case("Concat/one_bottom", "", "2x3"),
    reshape("dims", dims(6, 8)),
    reshape("zero_copies", dims(0, -1)),
    reshape("infer", dims(2, -1, 4)),
    reshape("axis", "axis: 1 " + dims(4, 6)),
    reshape("axis_num_axes", "axis: 1 num_axes: 2 " + dims(12)),
    reshape("axis_negative", "axis: -2 num_axes: 1 " + dims(2, 1)),
    reshape("num_axes_0_inserts", "axis: 1 num_axes: 0 " + dims(1, 1)),
    reshape("appends", "axis: -1 num_axes: 0 " + dims(1)),
    reshape("zero_and_infer_from_axis", "axis: 1 " + dims(0, -1)),
    Case("Flatten/default", "", "2x3x4x2"),
    Case("Flatten/axis_2", "flatten_param { axis: 2 }", "2x3x4x2"),
    Case("Flatten/axis_end", "flatten_param { axis: 0 end_axis: 1 }", "2x3x4x2"),
    Case("Flatten/negative", "flatten_param { axis: -3 end_axis: -2 }", "2x3x4x2"),
    Case("Split/two", "", "2x3x2", tops=2),
    Case("Split/three", "", "2x3", tops=3),
    Case("Split/one", "", "2x3", tops=1),
    Case("Silence/one", "", "2x3", tops=0),
    Case("Silence/two", "", "2x3, 4x1x2", tops=0),
]
