"""Tiny YOLOv2, the detector in which DADS found its cut."""

from functools import partial

import flax.linen as nn
import jax

from eejax.models.flax_stage import to_float
from eejax.models.native import ConvLayer, MaxPool


class TinyYOLOv2(nn.Module):
    """Nine convolutions and six poolings, by ``yolov2-tiny-voc.cfg`` of Darknet.

    It takes images of any size that 32 divides: Darknet's is 416, that of DADS 288. Boxes are not
    decoded, since that is a few operations on the smallest tensor.

    Attributes:
      classes: kinds of objects.
      anchors: boxes of a cell.

    References:
      Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017. Hu, Bao, Wang and Liu, Dynamic
      Adaptive DNN Surgery for Inference Acceleration on the Edge, 2019.
    """

    classes: int = 20
    anchors: int = 5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, height, width, 3]`` to cells ``[batch, height / 32, width / 32]``.

        Each cell has ``anchors * (5 + classes)`` numbers.
        """
        leaky = partial(nn.leaky_relu, negative_slope=0.1)
        x = to_float(x)
        for i, features in enumerate((16, 32, 64, 128, 256, 512), 1):
            x = ConvLayer(features, activation=leaky, name=f"conv{i}")(x)
            last = i == 6
            x = MaxPool(2, 1 if last else 2, "SAME" if last else "VALID", name=f"pool{i}")(x)
        x = ConvLayer(1024, activation=leaky, name="conv7")(x)
        x = ConvLayer(1024, activation=leaky, name="conv8")(x)
        outputs = self.anchors * (5 + self.classes)
        return ConvLayer(outputs, 1, norm=None, activation=None, name="conv9")(x)
