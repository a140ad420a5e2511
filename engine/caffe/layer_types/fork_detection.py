"""Layers of the object detectors' forks: ROIPooling and SmoothL1Loss (Fast R-CNN), Permute and Normalize (SSD)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe import fillers
from caffe.blob import Blob
from caffe.data import upload
from caffe.layer import Layer, LossLayer, register

_AT_ONCE = 1 << 22  # values that ROIPooling looks at in one step


@register("ROIPooling")
class ROIPooling(Layer):
    """The maximum over each of pooled_h x pooled_w bins of each region (Girshick, Fast R-CNN, arXiv:1504.08083).

    bottom[0]: features (N, C, H, W). bottom[1]: regions (R, 5): item, x1, y1, x2, y2, the corners included, in
    coordinates that spatial_scale maps to the features'. top: (R, C, pooled_h, pooled_w); an empty bin gives 0. The
    gradient goes to the maxima, the first of equal ones; regions receive 0.

    How large the bins are is found on the host: regions that a GPU computed are waited for.
    """

    bottom_count = (2, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.roi_pooling_param
        self.check(param.pooled_h > 0, f"pooled_h must be > 0; found {param.pooled_h}")
        self.check(param.pooled_w > 0, f"pooled_w must be > 0; found {param.pooled_w}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, features, regions = self.layer_param.roi_pooling_param, bottom[0], bottom[1]
        self.check(features.num_axes == 4, f"features must have 4 axes; found shape {features.shape_string()}")
        width = regions.count // max(regions.shape[0], 1) if regions.num_axes else 0
        self.check(
            regions.num_axes > 1 and width == 5,
            f"regions must have 5 values each, item, x1, y1, x2, y2; found shape {regions.shape_string()}",
        )
        top[0].reshape(regions.shape[0], features.shape[1], param.pooled_h, param.pooled_w)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._regions = bottom[1].data_on_host().reshape(-1, 5).clone()
        super().forward(bottom, top)

    def compute(self, features: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        regions, where = self._regions, features.device
        count, channels, height, width = features.shape
        wrong = ~((regions[:, 0] >= 0) & (regions[:, 0] < count))  # not a number too
        if wrong.any():
            place = int(wrong.nonzero()[0])
            item = regions[place, 0].item()
            self.check(False, f"region {place} is of item {item:g}, expected an item of the batch, 0 to {count - 1}")
        param = self.layer_param.roi_pooling_param
        corners = regions[:, 1:] * param.spatial_scale
        self.check(
            bool((corners.abs() < 1 << 31).all()),
            f"the regions' corners times spatial_scale, {param.spatial_scale:g}, must be numbers of 32 bits",
        )
        shape = (len(regions), channels, param.pooled_h, param.pooled_w)
        if not len(regions):
            return features.new_zeros(shape)
        y, no_rows = _bins(corners[:, (1, 3)], param.pooled_h, height)
        x, no_columns = _bins(corners[:, (0, 2)], param.pooled_w, width)
        empty = (no_rows[:, :, None] | no_columns[:, None, :])[:, None]  # (R, 1, pooled_h, pooled_w)
        items, y, x, empty = (upload.copy(each, where) for each in (regions[:, 0].long(), y, x, empty))
        each = channels * y[0].numel() * x[0].numel()
        step = max(1, _AT_ONCE // each)
        with torch.no_grad():
            pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (N * H * W, C)
            places = torch.cat([
                _maxima(pixels, items[at : at + step], height * width, width,
                        y[at : at + step], x[at : at + step])
                for at in range(0, len(regions), step)
            ])  # fmt: skip
        return features.reshape(-1).gather(0, places.view(-1)).view(shape).masked_fill(empty, 0)


def _maxima(
    pixels: torch.Tensor, items: torch.Tensor, plane: int, width: int, y: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """The place of each bin's maximum, the first of equal ones, in the flattened features: (R, C, bins).

    pixels: (N * H * W, C). items: (R,), the item of each region. plane: H * W. y, x: the rows and the columns of the
    bins, (R, pooled, most of a bin).
    """
    channels = pixels.shape[1]
    place = (y[:, :, None, :, None] * width + x[:, None, :, None, :]).flatten(3).flatten(1, 2)  # (R, bins, pixels)
    row = place + items[:, None, None] * plane
    best = pixels[row[:, :, 0]]  # (R, bins, C)
    which = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for k in range(1, place.shape[2]):  # many times faster than argmax, which torch does value by value
        value = pixels[row[:, :, k]]
        which.masked_fill_(value > best, k)
        best = torch.maximum(best, value)
    best = place.gather(2, which.long())
    first = items[:, None] * channels + torch.arange(channels, device=items.device)  # (R, C)
    return best.transpose(1, 2) + first[:, :, None] * plane


def _bins(ends: torch.Tensor, bins: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each region and bin along one axis: (its pixels (R, bins, most), whether it is empty (R, bins)).

    A bin with fewer pixels than the largest has its first one again. ends: (R, 2), the region's first and last pixel,
    to be rounded, halves away from 0 as C does.
    """
    ends = torch.where(ends < 0, torch.ceil(ends - 0.5), torch.floor(ends + 0.5))
    length = (ends[:, 1] - ends[:, 0] + 1).clamp(min=1)
    width = (length / bins)[:, None]
    steps = torch.arange(bins, device=ends.device, dtype=ends.dtype)
    start = (torch.floor(steps * width) + ends[:, :1]).clamp(0, size).long()
    stop = (torch.ceil((steps + 1) * width) + ends[:, :1]).clamp(0, size).long()
    most = max(int((stop - start).max()), 1)
    pixels = start[:, :, None] + torch.arange(most, device=ends.device)
    pixels = pixels.where(pixels < stop[:, :, None], start[:, :, None])
    return pixels.clamp(max=size - 1), stop <= start


@register("SmoothL1Loss")
class SmoothL1Loss(LossLayer):
    """sum of w_out * f(w_in * (a - b)) / N, f(x) = (sigma x)^2 / 2 where |x| < 1 / sigma^2, else |x| - 1 / (2 sigma^2).

    bottom[0], bottom[1]: predictions and targets (N, ...), both receive a gradient. bottom[2], bottom[3], optional:
    w_in and w_out of the same shape (py-faster-rcnn; Fast R-CNN and SSD have w_in only), which receive 0.
    """

    bottom_count = (2, 4)
    no_gradient = no_force_backward = ()

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for index, blob in enumerate(bottom):
            self.check(
                blob.num_axes > 0 and blob.count == bottom[0].count and blob.shape[:1] == bottom[0].shape[:1],
                f"bottom {index} must be of bottom 0's shape {bottom[0].shape_string()}; found {blob.shape_string()}",
            )
        self.check(self.layer_param.smooth_l1_loss_param.sigma > 0, "sigma must be above 0")
        top[0].reshape()

    def compute(self, predictions: torch.Tensor, targets: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        factors = [weight.detach().view_as(predictions) for weight in weights]
        square = self.layer_param.smooth_l1_loss_param.sigma**2
        x = predictions - targets.view_as(predictions)
        x = x * factors[0] if factors else x
        size = x.abs()
        errors = torch.where(size < 1 / square, 0.5 * square * x * x, size - 0.5 / square)
        errors = errors * factors[1] if len(factors) > 1 else errors
        return errors.sum() / predictions.shape[0]


@register("Permute")
class Permute(Layer):
    """The bottom with its axes in the order `order`; the axes it does not name follow in theirs."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        order = list(self.layer_param.permute_param.order)
        axes = bottom[0].num_axes
        self.check(
            all(axis < axes for axis in order), f"order should be less than the input dimension {axes}; found {order}"
        )
        self.check(len(set(order)) == len(order), f"there are duplicate orders; found {order}")
        self.order = order + [axis for axis in range(axes) if axis not in order]

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(
            bottom[0].num_axes == len(self.order), f"the bottom's number of axes changed to {bottom[0].num_axes}"
        )
        top[0].reshape(*(bottom[0].shape[axis] for axis in self.order))

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.order).contiguous()


@register("Normalize")
class Normalize(Layer):
    """scale * x / sqrt(sum x^2 + eps), the sum over all values of an item, or, across_spatial false, over the channels
    of each place (ParseNet, arXiv:1506.04579). blobs[0]: the scale, one value (a blob without axes), or (C,)."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.norm_param
        self.check(bottom[0].num_axes >= 2, f"Number of axes of bottom blob must be >=2; "
                                            f"found {bottom[0].shape_string()}")  # fmt: skip
        shape = () if param.channel_shared else (bottom[0].shape[1],)
        if not self.blobs:
            self.blobs.add_blob(*shape)
            if param.HasField("scale_filler"):
                fillers.fill(self.blobs[0], param.scale_filler)
            else:
                self.blobs[0].data[...] = 1
        found = self.blobs[0]
        self.check(
            found.shape == shape or (param.channel_shared and found.count == 1),
            f"expected a scale of shape {shape}; found {found.shape_string()}",
        )

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.norm_param
        axes = tuple(range(1, x.dim())) if param.across_spatial else (1,)
        norm = (x.square().sum(axes, keepdim=True) + param.eps).sqrt()
        scale = self.params[0]
        if not param.channel_shared:
            scale = scale.view(-1, *[1] * (x.dim() - 2))
        return x / norm * scale
