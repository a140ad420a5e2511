"""Layers of the types in neurons_more and shaping_more that must be refused, and words of BVLC's messages."""

from __future__ import annotations

from . import text
from .refused_nets import IMAGE, OTHER, layer
from .refusing import Refusal, build, run
from .text import INPUT, LABEL, source

STEPS = source("data", 3, 2, 4) + source("cont", 3, 2)
HDF5 = 'hdf5_data_param { source: "DATA/%s" batch_size: 2 }'


def learned(name, *dims):
    """A Parameter layer named as its top."""
    return text.layer(
        name, "Parameter", "", name, "parameter_param { shape { %s } }" % " ".join("dim: %d" % n for n in dims)
    )


# what: (the net's text, words of the message)
NETS = {
    "absval_in_place": (INPUT + layer("AbsVal", "data", "data"), ("AbsVal Layer does not allow in-place computation",)),
    "exp_base": (INPUT + layer("Exp", more="exp_param { base: 0 }"), ("base must be strictly positive",)),
    "log_base": (INPUT + layer("Log", more="log_param { base: -2 }"), ("base must be strictly positive",)),
    "log_base_1": (INPUT + layer("Log", more="log_param { base: 1 }"), ("inf result: 1/log(base)",)),
    "clip_without_max": (INPUT + layer("Clip", more="clip_param { min: 0 }"), ("clip_param.max",)),
    "prelu_axes": (source("data", 4) + layer("PReLU"), ("Number of axes of bottom blob must be >=2",)),
    "prelu_blob": (
        INPUT + layer("PReLU", more="blobs { shape { dim: 2 } data: 1 data: 1 }"),
        ("Negative slope size is inconsistent with prototxt config",),
    ),
    "bias_shape": (INPUT + OTHER + layer("Bias", "data other", more="bias_param { axis: 0 }"), ("mismatch", "bias")),
    "bias_extends": (
        INPUT + layer("Bias", more="bias_param { axis: 1 num_axes: 2 }"),
        ("bias blob's shape extends past bottom[0]'s shape when applied starting with bottom[0] axis = 1",),
    ),
    "bias_num_axes": (INPUT + layer("Bias", more="bias_param { num_axes: -2 }"), ("num_axes must be non-negative",)),
    "argmax_top_k_0": (INPUT + layer("ArgMax", more="argmax_param { top_k: 0 }"), ("top k must not be less than 1",)),
    "argmax_top_k": (
        INPUT + layer("ArgMax", more="argmax_param { top_k: 4 }"),
        ("top_k must be less than or equal to the dimension of the flattened bottom blob per instance",),
    ),
    "argmax_axis_top_k": (
        INPUT + layer("ArgMax", more="argmax_param { axis: 0 top_k: 5 }"),
        ("top_k must be less than or equal to the dimension of the axis",),
    ),
    "reduction_axis": (INPUT + layer("Reduction", more="reduction_param { axis: 2 }"), ("axis 2 out of range",)),
    "tile_without_tiles": (INPUT + layer("Tile"), ("Number of tiles must be specified",)),
    "tile_0": (INPUT + layer("Tile", more="tile_param { tiles: 0 }"), ("Number of tiles must be positive",)),
    "crop_offsets": (
        IMAGE
        + source("small", 2, 3, 2, 2)
        + layer("Crop", "data small", more="crop_param { offset: 1 offset: 1 offset: 1 }"),
        ("number of offset values specified must be equal to the number of dimensions following axis",),
    ),
    "crop_out_of_bounds": (
        IMAGE + source("small", 2, 3, 2, 4) + layer("Crop", "data small", more="crop_param { offset: 2 }"),
        ("the crop for dimension 3 is out-of-bounds with size 4 and offset 2",),
    ),
    "batch_reindex_axes": (INPUT + source("index", 2, 2) + layer("BatchReindex", "data index"), ()),
    "filter_selector": (
        INPUT + source("selector", 4, 2) + layer("Filter", "data selector"),
        ("Selector blob dimensions must be singletons (1), except the first",),
    ),
    "filter_items": (
        INPUT + source("selector", 3) + layer("Filter", "data selector"),
        ("Each bottom should have the same 0th dimension as the selector blob",),
    ),
    "filter_tops": (INPUT + source("selector", 4) + layer("Filter", "data selector", "x y"), ()),
    "embed_num_output": (
        LABEL + layer("Embed", "label", more="embed_param { input_dim: 2 }"),
        ("EmbedLayer num_output must be positive",),
    ),
    "embed_input_dim": (
        LABEL + layer("Embed", "label", more="embed_param { num_output: 2 }"),
        ("EmbedLayer input_dim must be positive",),
    ),
    "deconvolution_group": (
        IMAGE + layer("Deconvolution", more="convolution_param { num_output: 2 kernel_size: 3 group: 2 }"),
        ("group",),
    ),
    "deconvolution_kernel": (
        IMAGE + layer("Deconvolution", more="convolution_param { num_output: 2 }"),
        ("kernel_size must be specified once, or once per spatial dimension",),
    ),
    "im2col_kernel": (IMAGE + layer("Im2col", more="convolution_param { kernel_size: 0 }"), ("must be nonzero",)),
    "im2col_axes": (INPUT + layer("Im2col", more="convolution_param { kernel_size: 1 }"), ()),
    "spp_axes": (INPUT + layer("SPP", more="spp_param { pyramid_height: 2 }"), ()),
    "spp_pad": (IMAGE + layer("SPP", more="spp_param { pyramid_height: 4 }"), ("pad",)),
    "hinge_batch": (INPUT + source("label", 3) + layer("HingeLoss", "data label"), ("same first dimension",)),
    "multinomial_labels": (INPUT + source("label", 4, 2) + layer("MultinomialLogisticLoss", "data label"), ()),
    "contrastive_channels": (
        INPUT + source("other", 4, 2) + source("similar", 4) + layer("ContrastiveLoss", "data other similar"),
        (),
    ),
    "contrastive_maps": (IMAGE + source("similar", 2) + layer("ContrastiveLoss", "data data similar"), ()),
    "infogain_source": (
        INPUT + LABEL + layer("InfogainLoss", "data label"),
        ("Infogain matrix source must be specified",),
    ),
    "infogain_normalize": (
        INPUT
        + LABEL
        + layer(
            "InfogainLoss", "data label", more='loss_param { normalize: true } infogain_loss_param { source: "x" }'
        ),
        ('normalize is deprecated. use "normalization"',),
    ),
    "infogain_matrix": (INPUT + LABEL + source("h", 2, 3) + layer("InfogainLoss", "data label h"), ()),
    "infogain_labels": (
        INPUT + source("label", 4, 2) + source("h", 3, 3) + layer("InfogainLoss", "data label h"),
        ("Number of labels must match number of predictions",),
    ),
    "lstm_without_cont": (
        STEPS + layer("LSTM", "data", more="recurrent_param { num_output: 2 }"),
        ("LSTM", "2 bottom"),
    ),
    "lstm_num_output": (STEPS + layer("LSTM", "data cont"), ("num_output must be positive",)),
    "lstm_cont_axes": (
        source("data", 3, 2, 4)
        + source("cont", 3, 2, 1)
        + layer("LSTM", "data cont", more="recurrent_param { num_output: 2 }"),
        ("bottom[1] must have exactly 2 axes -- (#timesteps, #streams)",),
    ),
    "lstm_axes": (
        source("data", 3) + source("cont", 3, 2) + layer("LSTM", "data cont", more="recurrent_param { num_output: 2 }"),
        ("bottom[0] must have at least 2 axes -- (#timesteps, #streams, ...)",),
    ),
    "lstm_no_values": (
        source("data", 3, 2)
        + source("cont", 3, 2)
        + layer("LSTM", "data cont", more="recurrent_param { num_output: 2 }"),
        ("axis 2 out of range for 2-D Blob with shape 3 2 (6)",),
    ),
    "lstm_exposed_bottoms": (
        STEPS + layer("LSTM", "data cont", "x y z", "recurrent_param { num_output: 2 expose_hidden: true }"),
        ("LSTM", "4 bottom"),
    ),
    "lstm_exposed_tops": (
        STEPS
        + source("h", 1, 2, 2)
        + source("c", 1, 2, 2)
        + layer("LSTM", "data cont h c", "x", "recurrent_param { num_output: 2 expose_hidden: true }"),
        ("LSTM", "3 top"),
    ),
    "rnn_state_shape": (
        STEPS
        + source("h", 1, 2, 3)
        + layer("RNN", "data cont h", "x y", "recurrent_param { num_output: 2 expose_hidden: true }"),
        ("shape mismatch - recur_input_blobs_[0]: 1 2 2 (4) vs. bottom[2]: 1 2 3 (6)",),
    ),
    "lstm_unit_shape": (
        source("c", 1, 2, 3) + source("x", 1, 2, 11) + source("cont", 1, 2) + layer("LSTMUnit", "c x cont", "p q"),
        (),
    ),
    "hdf5_no_list": (layer("HDF5Data", "", "data", HDF5 % "no.txt"), ("Failed to open source file",)),
    "hdf5_no_dataset": (layer("HDF5Data", "", "nothing", HDF5 % "hdf5.txt"), ("Failed to find HDF5 dataset nothing",)),
    "hdf5_list_of_others": (
        layer("HDF5Data", "", "data", HDF5 % "list.txt"),
        ("Failed opening HDF5 file: list_0.png",),
    ),
    "hdf5_transform": (
        layer("HDF5Data", "", "data", HDF5 % "hdf5.txt" + " transform_param { scale: 2 }"),
        ("HDF5Data does not transform data",),
    ),
    "hdf5_output_folder": (
        INPUT + layer("HDF5Output", "data data", "", 'hdf5_output_param { file_name: "DATA/no/out.h5" }'),
        ("Failed to open HDF5 file",),
    ),
    "window_no_file": (
        layer("WindowData", "", "x y", 'window_data_param { source: "DATA/no.txt" batch_size: 1 }'),
        ("Failed to open window file",),
    ),
    "window_empty": (
        layer("WindowData", "", "x y", 'window_data_param { source: "/dev/null" batch_size: 1 }'),
        ("Window file is empty",),
    ),
}


def reindexed(value):
    def use(net, folder):
        net.blobs["index"].data[...] = value
        net.forward()

    return use


def backward(net, folder):
    for blobs in net.params.values():
        blobs[0].data[...] = 1
    net.forward()
    net.backward()


def twice(net, folder):
    net.forward()
    net.forward()


REINDEX = INPUT + source("index", 2) + layer("BatchReindex", "data index")
ACTIONS = {
    "batch_reindex_negative": (run(REINDEX, reindexed(-1)), ("Index specified for reindex layer was negative",)),
    "batch_reindex_beyond": (
        run(REINDEX, reindexed(4)),
        ("Index specified for reindex layer was greater than batch size",),
    ),
    "batch_reindex_backward": (
        run(
            learned("data", 4, 3) + learned("index", 2) + layer("BatchReindex", "data index", more="loss_weight: 1"),
            backward,
        ),
        (),
    ),
    "embed_backward": (
        run(
            learned("data", 4)
            + layer("Embed", "data", more="loss_weight: 1 embed_param { num_output: 2 input_dim: 2 }"),
            backward,
        ),
        (),
    ),
    "argmax_backward": (run(learned("data", 4, 3) + layer("ArgMax", more="loss_weight: 1"), backward), ()),
    "threshold_backward": (run(learned("data", 4, 3) + layer("Threshold", more="loss_weight: 1"), backward), ()),
    "hdf5_output_twice": (
        run(
            INPUT + LABEL + layer("HDF5Output", "data label", "", 'hdf5_output_param { file_name: "DATA/twice.h5" }'),
            twice,
        ),
        ("Failed to make float dataset data",),
    ),
    "hdf5_output_batch": (
        run(
            INPUT
            + source("label", 3)
            + layer("HDF5Output", "data label", "", 'hdf5_output_param { file_name: "DATA/b.h5" }'),
            twice,
        ),
        (),
    ),
}

CASES = [Refusal("LayerRefusal/" + what, words, build(net)) for what, (net, words) in NETS.items()]
CASES += [Refusal("LayerRefusal/" + what, words, action) for what, (action, words) in ACTIONS.items()]
