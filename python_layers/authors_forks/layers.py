"""The layer types that dhn-caffe, hash-caffe and HashNet add to Caffe, as a plug-in of the embedded engine.

pyproject.toml declares them in the entry-point group `caffe.layer_types`; so the prototxts that the authors released
run unchanged on it. (BVLC Caffe cannot parse those files. On it, and on the engine alike, the Python layers of the
folder above do the same work: pairwise_loss, quantization_loss, multilabel_data.) The released layers exist as CUDA
code only: those forks train with zero loss and no gradient on a CPU. Here CPU and GPU compute the same: see losses.py.

`ImageData` with `label_dim`, a field of dhn-caffe and HashNet, is the engine's own.
"""

from __future__ import annotations

from caffe import glog
from caffe.layer import Layer, LossLayer
from caffe.layer_types.data import ImageDataLayer

from authors_forks import losses

# The fields of pairwise_param that tell which fork's layer a file means.
DHN_CAFFE = ("l_threshold", "q_threshold", "l_lambda", "q_gamma", "axis")
HASH_CAFFE = ("threshold",)
HASHNET = (
    "class_num",
    "l_threshold",
    "l_lambda",
    "sigmoid_param",
    "continous_similarity",
    "q_threshold",
    "q_gamma",
    "axis",
)
# The remedy where bottom[1] holds class numbers.
_LABEL_VECTORS = (
    "write list lines `path label_1 ... label_C` of 0 and 1, and label_dim: C in image_data_param (or "
    "label_num: C in multi_label_data_param)"
)


class PairwiseLoss(LossLayer):
    """The pairwise cross-entropy loss, in the form of the fork whose bottoms and fields the layer has:

    - 4 bottoms: HashNet (`losses.hashnet`). q_threshold and q_gamma may be written, as its released nets do, and
      have no effect.
    - 2 bottoms and one of l_threshold, q_threshold, l_lambda, q_gamma, axis: dhn-caffe, with the quantization loss in
      it (`losses.dhn_caffe`).
    - 2 bottoms and threshold: hash-caffe (`losses.hash_caffe_pairwise`).

    2 bottoms and no field is refused: dhn-caffe would add the quantization loss and hash-caffe would not. So are fields
    of different forms, and an axis other than 1, with which the released code reads outside its buffers.
    Labels that can only be a mistake are refused too: class numbers (with them, and with vectors of one label, no pair
    is similar to dhn-caffe and HashNet, and hash-caffe takes all classes but 0 for one), and rows that mix -1 with
    other labels.

    bottom[0]: codes (B, K), receive a gradient; bottom[1]: their labels (B, C). HashNet: bottom[2] and bottom[3], the
    same for a second batch of B; bottom[2] receives a gradient too. top[0]: the loss, a scalar.

    As released, the gradient does not depend on top[0].diff: dhn-caffe and HashNet take no notice of loss_weight,
    hash-caffe multiplies by it. dhn-caffe logs "L loss:" and "Q loss:" in each forward, HashNet the former: before
    l_lambda and q_gamma switch them off.
    """

    bottom_count = (2, 4)
    no_gradient = no_force_backward = (1, 3)

    def setup(self, bottom, top):
        self.check(
            len(bottom) != 3,
            "PairwiseLoss Layer takes 2 bottom blobs (codes, labels), or 4 (two such pairs, HashNet); found 3.",
        )
        self.param = self.layer_param.pairwise_param
        written = [field.name for field, _ in self.param.ListFields()]
        forms = (
            [("HashNet (4 bottoms)", self._hashnet, HASHNET)]
            if len(bottom) == 4
            else [("dhn-caffe", self._dhn_caffe, DHN_CAFFE), ("hash-caffe", self._hash_caffe, HASH_CAFFE)]
        )
        fitting = [form for name, form, fields in forms if set(written) <= set(fields)]
        expected = " or ".join(f"{name}: {', '.join(fields)}" for name, _, fields in forms)
        self.check(
            len(fitting) > 0,
            f"pairwise_param holds fields of different forks or for another number of "
            f"bottoms; expected those of {expected}; found {', '.join(written)}",
        )
        self.check(
            len(fitting) == 1,
            "an empty pairwise_param with 2 bottoms can mean dhn-caffe's layer (with "
            "quantization loss) or hash-caffe's (without); write l_threshold: -1 for the "
            "first, threshold: -1 for the second",
        )
        self.check(
            self.param.axis == 1, f"pairwise_param.axis must be 1, the first axis of a code; found {self.param.axis}"
        )
        self.form = fitting[0]

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        _check_codes(self, bottom[0])
        if len(bottom) == 4:
            shapes = [blob.shape_string() for blob in bottom]
            self.check(
                bottom[0].shape == bottom[2].shape and bottom[1].shape == bottom[3].shape,
                f"HashNet's two batches need codes of one shape and labels of one shape; "
                f"found {shapes[0]} and {shapes[2]}, {shapes[1]} and {shapes[3]}",
            )
        labels = bottom[1]
        self.check(
            len(labels.shape) > 1,
            f"expected label vectors (B, C) in bottom[1], found class numbers (B,): "
            f"{labels.shape_string()}; {_LABEL_VECTORS}",
        )
        self.check(
            labels.count > labels.shape[0] or self.form == self._hash_caffe or self.param.l_lambda <= 0,
            f"expected label vectors (B, C) of 2 labels or more in bottom[1], found {labels.shape_string()}: "
            f"images that share all C labels are an unknown pair here, so with C = 1 no pair is similar; "
            f"{_LABEL_VECTORS}",
        )

    def forward(self, bottom, top):
        arrays = [blob.data.reshape(blob.shape[0], -1) for blob in bottom]
        for index in range(1, len(arrays), 2):
            self._check_labels(arrays[index], f"bottom[{index}]")
        loss, self.gradients = self.form(*arrays)
        top[0].data[...] = loss

    def backward(self, top, propagate_down, bottom):
        for index in self.no_gradient:
            self.check(
                not any(propagate_down[index : index + 1]),
                f"cannot backpropagate to label inputs (bottom {index}); write propagate_down: false for it",
            )
        for blob, wanted, gradient in zip(bottom[::2], propagate_down[::2], self.gradients):
            if wanted:
                blob.diff[...] = gradient.reshape(blob.shape)

    def _check_labels(self, labels, name):
        """Refuse labels (B, C) that can only be a mistake. All others mean what the released code makes of them."""
        if self.form == self._hash_caffe and labels.shape[1] == 1 and not (labels <= 1).all():
            self.check(
                False,
                f"expected label vectors (B, C) in {name}, found class numbers up to {labels.max():g}; "
                f"{_LABEL_VECTORS}",
            )
        mixed = (labels < 0).any(axis=1) & ~(labels == -1).all(axis=1)
        if mixed.any():
            self.check(
                False,
                f"{name}, row {int(mixed.argmax())}: expected 0 and 1, or -1 throughout; found -1 among "
                f"other labels. Write 0 where an image does not carry a label",
            )

    def _dhn_caffe(self, codes, labels):
        param = self.param
        pairwise, quantization, gradient = losses.dhn_caffe(
            codes, labels, param.l_threshold, param.q_threshold, param.l_lambda, param.q_gamma
        )
        glog.info("pairwise_loss_layer.cu:89", f"L loss:{pairwise:g}")
        glog.info("pairwise_loss_layer.cu:100", f"Q loss:{quantization:g}")
        return pairwise * (param.l_lambda > 0) + quantization * (param.q_gamma > 0), [gradient]

    def _hash_caffe(self, codes, labels):
        loss, gradient = losses.hash_caffe_pairwise(codes, labels, self.param.threshold)
        return loss, [_loss_weight(self) * gradient]

    def _hashnet(self, codes, labels, second, second_labels):
        param = self.param
        loss, *gradients = losses.hashnet(
            codes,
            labels,
            second,
            second_labels,
            param.class_num,
            param.l_threshold,
            param.l_lambda,
            param.sigmoid_param,
            param.continous_similarity,
        )
        glog.info("pairwise_loss_layer.cu:121", f"L loss:{loss:g}")
        return loss * (param.l_lambda > 0), gradients


class QuantizationLoss(LossLayer):
    """hash-caffe's quantization loss, `losses.hash_caffe_quantization`, with `quantization_param { threshold }`.

    bottom[0]: codes (B, K), receive a gradient. top[0]: the loss, a scalar. The gradient is multiplied by the layer's
    loss_weight, not by top[0].diff, and is K times that of the printed mean, both as released.
    """

    bottom_count = (1, 1)
    no_gradient = no_force_backward = ()

    def reshape(self, bottom, top):
        _check_codes(self, bottom[0])
        top[0].reshape()

    def forward(self, bottom, top):
        codes = bottom[0].data.reshape(bottom[0].shape[0], -1)
        threshold = self.layer_param.quantization_param.threshold
        top[0].data[...], self.gradient = losses.hash_caffe_quantization(codes, threshold)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = (_loss_weight(self) * self.gradient).reshape(bottom[0].shape)


def _check_codes(layer: LossLayer, codes) -> None:
    """Refuse a bottom[0] that is one number without axes, or has no values."""
    layer.check(
        codes.num_axes > 0 and codes.count > 0, f"expected codes (B, K) in bottom[0], found {codes.shape_string()}"
    )


def _loss_weight(layer: LossLayer) -> float:
    """The weight of the layer's loss, as its prototxt says it; 1 without."""
    weights = layer.layer_param.loss_weight
    return weights[0] if len(weights) else 1.0


class MultiLabelData(ImageDataLayer):
    """hash-caffe's ImageData for list files with lines of `path label_1 ... label_L`, L = label_num.

    multi_label_data_param { source batch_size rand_skip shuffle new_height new_width is_color root_folder label_num },
    each as in image_data_param; transform_param as in every data layer. Tops: images (B, channels, height, width) and
    labels (B, L).
    """

    def open(self, transformer):
        return self.open_list(transformer, self.layer_param.multi_label_data_param, "label_num")


class ScaleTanH(Layer):
    """HashNet's tanh(scale x), the scale growing in training: scale_tanh_param { init_scale step_size gamma power }.

    A counter grows by one with each reshape: once at set-up and once for each forward. When it is a multiple of
    step_size, scale = init_scale (1 + gamma counter)^power. Each net, training or test, has its own counter. A snapshot
    of HashNet's Caffe does not hold it: resumed from one, the scale starts again at init_scale.

    gamma without power is refused: it would have no effect here, and multiplied the scale at each step in the older
    layer of dhn-caffe, which no released net uses. Bottom and top: (B, ...); may be in place.
    """

    same_count = True

    def setup(self, bottom, top):
        self.param = self.layer_param.scale_tanh_param
        self.check(self.param.step_size > 0, "scale_tanh_param.step_size must be 1 or more; found 0")
        self.check(
            self.param.HasField("power") or not self.param.HasField("gamma"),
            "scale_tanh_param: gamma has no effect without power (HashNet's layer); write both, or neither",
        )
        self.counter = 0

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.counter += 1

    @property
    def scale(self):
        counter = self.counter - self.counter % self.param.step_size
        return self.param.init_scale * (1 + self.param.gamma * counter) ** self.param.power

    def snapshot_state(self):
        return b"%d" % self.counter

    def restore_state(self, state):
        self.counter = int(state)

    def compute(self, x):
        return (x * self.scale).tanh()


class Entropy(Layer):
    """dhn-caffe's layer of this name is refused: no released net uses it, so nothing says what it should train to."""

    bottom_count = (0, None)
    top_count = (0, None)

    def setup(self, bottom, top):
        self.check(
            False,
            "Entropy, a layer of dhn-caffe, is not supported: no net that the authors released uses it. "
            "Remove the layer from the prototxt",
        )
