"""What forks of Caffe add to its messages: which field comes from where, and a fork's own caffe.proto next to ours."""

from __future__ import annotations

import difflib
import functools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.message import Message

from caffe.proto import caffe_pb2

# Fields of forks that the engine knows without their caffe.proto: their numbers are in no binary file, see caffe.proto.
_FIRST_OWN = 418360000
_FIRST_FREE = 418370000  # for fields whose own number is taken; text files name fields, not numbers

# fork: the fields of LayerParameter that it adds, or `Message.field` of another message
FIELDS = {
    "SSD (weiliu89/caffe)": (
        "annotated_data_param detection_evaluate_param detection_output_param multibox_loss_param prior_box_param "
        "video_data_param TransformationParameter.resize_param TransformationParameter.noise_param "
        "TransformationParameter.distort_param TransformationParameter.expand_param "
        "TransformationParameter.emit_constraint SolverParameter.eval_type SolverParameter.ap_version "
        "SolverParameter.show_per_class_result SolverParameter.plateau_winsize"
    ),
    "SSD or DeepLab": "TransformationParameter.crop_h TransformationParameter.crop_w",
    "Faster R-CNN (rbgirshick/caffe-fast-rcnn)": "DropoutParameter.scale_train",
    "R-FCN (daijifeng001/caffe-rfcn)": (
        "psroi_pooling_param box_annotator_ohem_param LossParameter.pre_fixed_normalizer"
    ),
    "MNC (Oh233/caffe-mnc)": "roi_warping_param mask_resize_param mask_pooling_param",
    "Mask R-CNN ports": "roi_align_param roi_mask_pooling_param",
    "SegNet (alexgkendall/caffe-segnet)": (
        "dense_image_data_param LossParameter.weight_by_label_freqs LossParameter.class_weighting BNParameter.bn_mode"
    ),
    "SegNet, ENet or PSPNet (each with a layer BN of its own)": "bn_param",
    "DeepLab or PSPNet": (
        "seg_accuracy_param dense_crf_param domain_transform_param mat_read_param mat_write_param unique_label_param "
        "bias_channel_param adaptive_bias_channel_param TransformationParameter.scale_factors "
        "TransformationParameter.crop_width TransformationParameter.crop_height ImageDataParameter.label_type "
        "BatchNormParameter.update_global_stats ConvolutionParameter.hole ConvolutionParameter.hole_h "
        "ConvolutionParameter.hole_w"
    ),
    "NVIDIA's caffe": (
        "detectnet_groundtruth_param detectnet_augmentation_param forward_type backward_type forward_math "
        "backward_math TransformationParameter.use_gpu_transform BatchNormParameter.scale_filler "
        "BatchNormParameter.bias_filler BatchNormParameter.engine BatchNormParameter.scale_bias "
        "ConvolutionParameter.cudnn_convolution_algo_seeker NetParameter.default_forward_type "
        "NetParameter.default_backward_type SolverParameter.solver_data_type SolverParameter.rampup_interval "
        "SolverParameter.min_lr"
    ),
    "Intel's caffe": "NetParameter.engine NetParameter.bn_stats_batch_size SolverParameter.engine",
    "FlowNet (lmb-freiburg)": (
        "correlation_param correlation1d_param augmentation_param coeff_schedule_param l1_loss_param resample_param "
        "flow_warp_param custom_data_param writer_param channel_norm_param downsample_param"
    ),
    "OpenPose (CMU)": "cpm_transform_param imresize_param nms_param TransformationParameter.put_gaussian",
    "YOLO ports": "region_loss_param reorg_param yolov3_detection_output_param eval_detection_param",
    "face recognition forks (center loss, SphereFace)": (
        "center_loss_param margin_inner_product_param normalize_param label_specific_add_param"
    ),
    "C3D (facebook/C3D)": "volume_data_param ConvolutionParameter.kernel_depth PoolingParameter.kernel_depth",
    "DAN or JAN (thuml)": "mmd_param jmmd_param gradient_scaler_param grl_param",
    "spatial transformers (STN)": "st_param st_loss_param loc_loss_param power_file_param",
    "PVANet or RefineDet": "proposal_param object_detection_param",
}

# fork: the layer types that it adds to those of the engine
TYPES = {
    "SSD (weiliu89/caffe)": "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss PriorBox VideoData",
    "R-FCN (daijifeng001/caffe-rfcn)": "PSROIPooling BoxAnnotatorOHEM SmoothL1LossOHEM SoftmaxWithLossOHEM",
    "Faster R-CNN or PVANet": "Proposal RoIProposal",
    "Mask R-CNN ports": "ROIAlign",
    "SegNet (alexgkendall/caffe-segnet)": "DenseImageData",
    "SegNet, ENet or PSPNet (each with a layer BN of its own)": "BN",
    "DeepLab or PSPNet": "SegAccuracy DenseCRF DomainTransform MatRead MatWrite UniqueLabel ImageSegData",
    "NVIDIA's caffe": "DetectNetTransformation L1Loss",
    "FlowNet (lmb-freiburg)": "Correlation Correlation1D FlowWarp Resample DataAugmentation ChannelNorm CustomData",
    "OpenPose (CMU)": "CPMData ImResize Nms CPMBottomUpData",
    "YOLO ports": "RegionLoss Reorg Yolov3DetectionOutput",
    "SENet (hujie-frank/SENet)": "Axpy",
    "MobileNet ports": "ConvolutionDepthwise ReLU6",
    "face recognition forks (center loss, SphereFace)": "CenterLoss MarginInnerProduct",
    "DAN or JAN (thuml)": "MMDLoss JMMDLoss GradientScaler GRL",
    "spatial transformers (STN)": "SpatialTransformer",
}

_FORK_OF_TYPE = {name: fork for fork, names in TYPES.items() for name in names.split()}
_FORK_OF_FIELD = {
    name if "." in name else f"LayerParameter.{name}": fork for fork, names in FIELDS.items() for name in names.split()
}


def explain_field(message: Descriptor, field: str) -> str:
    """More about a field that `message` has not: the fork that it is from, or fields of a similar name."""
    fork = _FORK_OF_FIELD.get(f"{message.name}.{field}")
    if fork:
        return (
            f" The field is no part of BVLC Caffe 1.0: it comes from {fork}. Add that fork's messages with "
            "-proto FORK.proto (in Python caffe.proto.forks.add), or take the field out."
        )
    near = difflib.get_close_matches(field, message.fields_by_name, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} If it is a fork's field, add the fork's messages with -proto FORK.proto, or take it out."


def explain_value(enum: EnumDescriptor) -> str:
    """More about a value that `enum` has not: those that it has."""
    values = ", ".join(enum.values_by_name)
    return f" BVLC Caffe 1.0 knows {values}; a fork's own values come with -proto FORK.proto."


def of_type(layer_type: str) -> str | None:
    """The fork that a layer type comes from, where it is known."""
    return _FORK_OF_TYPE.get(layer_type)


def add(path: str | Path) -> None:
    """Add the messages, fields and enum values of a fork's caffe.proto that ours has not.

    The file may be the fork's whole caffe.proto, or hold just what is new (`message LayerParameter { optional
    MyParameter my_param = 147; }`). Call it before nets are read: messages made earlier are of other classes then.
    A field has the fork's number, by which its binary files are read, unless BVLC Caffe uses that number itself.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: grpcio-tools, which has the compiler, is not installed.
        ValueError: the compiler refuses the file, or what it adds clashes with ours.
    """
    base = descriptor_pb2.FileDescriptorProto()
    base.CopyFrom(caffe_pb2.FILE)
    own = {
        field.type_name.rpartition(".")[2] for each in base.message_type for field in each.field
        if field.number >= _FIRST_OWN and field.type_name
    }  # fmt: skip
    for fork in compile_proto(path):
        _rename_package(fork, base.package)
        _merge_all(fork.message_type, base.message_type, functools.partial(_merge_message, own=own))
        _merge_all(fork.enum_type, base.enum_type, _merge_enum)
    try:
        caffe_pb2.define(base)
    except TypeError as error:
        raise ValueError(f"{path}: its messages conflict with BVLC Caffe's: {error}") from None


def parse_by_bvlc(message: Message, data: bytes) -> None:
    """Parse binary `data` by BVLC Caffe's own fields alone, where a field of another fork has a number of ours.

    Raises:
        DecodeError: it is no such message.
    """
    file = caffe_pb2.shipped()
    for each in file.message_type:
        fields = [field for field in each.field if field.number < _FIRST_OWN]
        del each.field[:]
        each.field.extend(fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    plain = message_factory.GetMessageClass(pool.FindMessageTypeByName(message.DESCRIPTOR.full_name)).FromString(data)
    plain.DiscardUnknownFields()
    message.ParseFromString(plain.SerializePartialToString())


def compile_proto(path: str | Path) -> list[descriptor_pb2.FileDescriptorProto]:
    """The descriptors of a .proto file and of what it imports, as protoc makes them."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"-proto {path}: expected a fork's .proto file there")
    try:
        from grpc_tools import protoc
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"-proto {path}: compiling a .proto file needs the package grpcio-tools, which is not installed: "
            "pip install grpcio-tools"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.desc"
        options = [f"-I{path.parent.absolute()}", f"--descriptor_set_out={out}", "--include_imports"]
        if protoc.main(["protoc", *options, str(path.absolute())]):
            raise ValueError(f"-proto {path}: protoc refuses the file; its message stands above")
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def _rename_package(file: descriptor_pb2.FileDescriptorProto, package: str) -> None:
    """Make the type names of `file` those of `package`."""
    old, new = f".{file.package}." if file.package else ".", f".{package}."

    def visit(message: descriptor_pb2.DescriptorProto) -> None:
        for field in (*message.field, *message.extension):
            if field.type_name.startswith(old):
                field.type_name = new + field.type_name.removeprefix(old)
        for nested in message.nested_type:
            visit(nested)

    for message in file.message_type:
        visit(message)


def _merge_all(fork: Iterable[Message], base: Any, merge: Callable[[Any, Any], None]) -> None:
    """Merge or add each of the messages `fork` to the repeated field `base`, by name."""
    by_name = {each.name: each for each in base}
    for each in fork:
        if each.name in by_name:
            merge(each, by_name[each.name])
        else:
            base.add().CopyFrom(each)


def _merge_message(fork: descriptor_pb2.DescriptorProto, base: descriptor_pb2.DescriptorProto, own: set[str]) -> None:
    """Add the fields of `fork`. own: the messages that are no part of BVLC Caffe, and so have no fixed numbers."""
    declared = {field.name: field for field in fork.field}
    fields = {field.name: field for field in base.field}
    movable = {name for name, field in fields.items() if base.name in own or field.number >= _FIRST_OWN}
    same = {name for name in movable if name in declared and _alike(fields[name], declared[name])}
    used = {field.number for name, field in fields.items() if name not in movable}
    for reserved in base.reserved_range:
        used.update(range(reserved.start, reserved.end))
    for name in same:
        fields[name].number = _free(declared[name].number, used)
    for name, field in declared.items():
        if name not in fields:
            new = base.field.add()
            new.CopyFrom(field)
            new.ClearField("oneof_index")
            new.number = _free(field.number, used)
    for name in movable - same:
        fields[name].number = _free(fields[name].number, used)
    _merge_all(fork.nested_type, base.nested_type, functools.partial(_merge_message, own=own))
    _merge_all(fork.enum_type, base.enum_type, _merge_enum)


def _alike(one: descriptor_pb2.FieldDescriptorProto, other: descriptor_pb2.FieldDescriptorProto) -> bool:
    return (one.type, one.label, one.type_name) == (other.type, other.label, other.type_name)


def _merge_enum(fork: descriptor_pb2.EnumDescriptorProto, base: descriptor_pb2.EnumDescriptorProto) -> None:
    names = {value.name for value in base.value}
    used = {value.number for value in base.value}
    for value in fork.value:
        if value.name not in names:
            base.value.add(name=value.name, number=_free(value.number, used))


def _free(number: int, used: set[int]) -> int:
    """`number`, or where it is taken the next free one from _FIRST_FREE on; marks it taken."""
    if number in used:
        number = next(n for n in range(_FIRST_FREE, _FIRST_FREE + len(used) + 1) if n not in used)
    used.add(number)
    return number
