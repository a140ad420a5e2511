"""From the message a prototxt holds to the message a net is made of: layers filtered by state, splits put in.

Pure functions of NetParameter messages (BVLC's Net::FilterNet and insert_splits.cpp).
"""

from __future__ import annotations

from caffe import glog
from caffe.proto import caffe_pb2


def state_meets_rule(state: caffe_pb2.NetState, rule: caffe_pb2.NetStateRule, layer_name: str) -> bool:
    """Whether `state` satisfies each condition that `rule` states; says in the log which one it does not."""
    failed = None
    if rule.HasField("phase") and rule.phase != state.phase:
        failed = f"The NetState phase ({state.phase}) differed from the phase ({rule.phase})"
    elif rule.HasField("min_level") and state.level < rule.min_level:
        failed = f"The NetState level ({state.level}) is above the min_level ({rule.min_level})"
    elif rule.HasField("max_level") and state.level > rule.max_level:
        failed = f"The NetState level ({state.level}) is above the max_level ({rule.max_level})"
    else:
        missing = [stage for stage in rule.stage if stage not in state.stage]
        unwanted = [stage for stage in rule.not_stage if stage in state.stage]
        if missing:
            failed = f"The NetState did not contain stage '{missing[0]}'"
        elif unwanted:
            failed = f"The NetState contained a not_stage '{unwanted[0]}'"
    if failed:
        glog.info("net.cpp:296", f"{failed} specified by a rule in layer {layer_name}")
    return failed is None


def filter_net(param: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """A copy of `param` without the layers that its state leaves out by their include and exclude rules.

    Raises:
        ValueError: a layer has both include and exclude rules.
    """
    filtered = caffe_pb2.NetParameter()
    filtered.CopyFrom(param)
    del filtered.layer[:]
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise ValueError(
                f"layer {layer.name!r}: Specify either include rules or exclude rules; not both. "
                f"Found {len(layer.include)} include and {len(layer.exclude)} exclude"
            )
        if layer.include:
            kept = any(state_meets_rule(param.state, rule, layer.name) for rule in layer.include)
        else:
            kept = not any(state_meets_rule(param.state, rule, layer.name) for rule in layer.exclude)
        if kept:
            filtered.layer.add().CopyFrom(layer)
    return filtered


def insert_splits(param: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """A copy of `param` where each top that several bottoms (or a bottom and a loss weight) use goes through a Split.

    Raises:
        ValueError: a bottom that no earlier layer produces.
    """
    source: dict[tuple[int, int], tuple[int, int]] = {}  # (layer, bottom) -> the (layer, top) it reads
    uses: dict[tuple[int, int], int] = {}
    loss_weights: dict[tuple[int, int], float] = {}
    latest: dict[str, tuple[int, int]] = {}
    for i, layer in enumerate(param.layer):
        for j, name in enumerate(layer.bottom):
            if name not in latest:
                raise ValueError(f"Unknown bottom blob '{name}' (layer '{layer.name}', bottom index {j})")
            source[i, j] = latest[name]
            uses[latest[name]] = uses.get(latest[name], 0) + 1
        for j, name in enumerate(layer.top):
            latest[name] = (i, j)
        for name, weight in zip(layer.top, layer.loss_weight, strict=False):
            loss_weights[latest[name]] = weight
            if weight:
                uses[latest[name]] = uses.get(latest[name], 0) + 1

    result = caffe_pb2.NetParameter()
    result.CopyFrom(param)
    del result.layer[:]
    taken: dict[tuple[int, int], int] = {}
    for i, layer in enumerate(param.layer):
        copy = result.layer.add()
        copy.CopyFrom(layer)
        for j, name in enumerate(layer.bottom):
            top = source[i, j]
            if uses[top] > 1:
                copy.bottom[j] = _split_top(param.layer[top[0]].name, name, top[1], taken.get(top, 0))
                taken[top] = taken.get(top, 0) + 1
        for j, name in enumerate(layer.top):
            count = uses.get((i, j), 0)
            if count <= 1:
                continue
            split = result.layer.add(name=_split_name(layer.name, name, j), type="Split", bottom=[name])
            split.top.extend(_split_top(layer.name, name, j, k) for k in range(count))
            weight = loss_weights.get((i, j), 0.0)
            if weight:  # the loss is read from the split's first top
                split.loss_weight.extend([weight] + [0.0] * (count - 1))
                copy.ClearField("loss_weight")
                taken[i, j] = taken.get((i, j), 0) + 1
    return result


def _split_name(layer: str, blob: str, index: int) -> str:
    return f"{blob}_{layer}_{index}_split"


def _split_top(layer: str, blob: str, index: int, k: int) -> str:
    return f"{_split_name(layer, blob, index)}_{k}"
