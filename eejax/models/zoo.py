"""Published networks, by name, for partitioners: nothing of them exists until it is traced.

================ ============ ====== =============== ==========================================
name             parameters   GMAC   input           form
================ ============ ====== =============== ==========================================
alexnet           61,100,840  0.714  224 x 224 x 3   one tower, as torchvision
bert_base        109,482,240  11.25  128 tokens      without case; embeddings, encoder, pooler
densenet121        7,978,856  2.834  224 x 224 x 3   as torchvision
googlenet          6,624,904  1.498  224 x 224 x 3   as torchvision, without auxiliary heads
mobilenet_v2       3,504,872  0.301  224 x 224 x 3   width 1.0, as torchvision
resnet18          11,689,512  1.814  224 x 224 x 3   as torchvision
resnet34          21,797,672  3.664  224 x 224 x 3   as torchvision
resnet50          25,557,032  4.089  224 x 224 x 3   as torchvision, strides in 3 x 3 convolutions
squeezenet1_1      1,235,496  0.349  224 x 224 x 3   version 1.1, as torchvision
tiny_yolov2       15,861,773  3.485  416 x 416 x 3   Darknet's for Pascal VOC
vgg16            138,357,544  15.47  224 x 224 x 3   configuration D, as torchvision
vgg19            143,667,240  19.632 224 x 224 x 3   configuration E, as torchvision
vit_b_16          86,567,656  17.564 224 x 224 x 3   as torchvision
vit_ti_16          5,717,416         224 x 224 x 3   DeiT-Ti without distillation, as timm
================ ============ ====== =============== ==========================================

GMAC are published billions of multiply-adds of convolutions and matrix products, which torchvision
calls GFLOPS, and Darknet and the source for BERT count as two FLOPs each; tests hold the traced
graphs to them. Parameters are those that training moves; the running averages of batch
normalisation are kept and counted apart.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from eejax.models.alexnet import AlexNet
from eejax.models.bert_encoder import BERT
from eejax.models.densenet import DenseNet
from eejax.models.googlenet import GoogLeNet
from eejax.models.mobilenet_v2 import MobileNetV2
from eejax.models.resnet import ResNet
from eejax.models.squeezenet import SqueezeNet
from eejax.models.tiny_yolov2 import TinyYOLOv2
from eejax.models.vgg import VGG
from eejax.models.vit_encoder import ViT
from eejax.names import suggest

PyTree = Any


class ZooModel(NamedTuple):
    """A published network, ready to be traced.

    Attributes:
      name: by which `model` finds it.
      apply: ``(variables, x) -> y``, inference; images may be uint8 or floats in [-1, 1].
      init: ``(key, x) -> variables``: ``"params"``, and ``"batch_stats"`` where there are running
        averages; ``x`` may be abstract. Under ``jax.eval_shape`` no number is drawn.
      example: abstract input, one sample of the published size, as float32 or int32. Raw images
        are uint8, with a quarter of the bytes: ``example.update(dtype="uint8")``.
      published_parameters: their number.
      published_macs: multiply-adds of one sample, as published; None where no source is at hand.
      source: of both.
    """

    name: str
    apply: Callable[[PyTree, Any], jax.Array]
    init: Callable[[jax.Array, Any], PyTree]
    example: jax.ShapeDtypeStruct
    published_parameters: int
    published_macs: float | None
    source: str


class _Row(NamedTuple):
    make: Callable[[], nn.Module]
    example: jax.ShapeDtypeStruct
    parameters: int
    macs: float | None
    source: str


def _images(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, 3), "float32")


_TORCHVISION = "torchvision, num_params and GFLOPS of the weights IMAGENET1K_V1"
_MODELS: dict[str, _Row] = {
    "alexnet": _Row(AlexNet, _images(224), 61_100_840, 0.714e9, _TORCHVISION),
    "bert_base": _Row(
        BERT,
        jax.ShapeDtypeStruct((1, 128), "int32"),
        109_482_240,
        11.25e9,
        "BertModel of bert-base-uncased; half the 22.5 GFLOP of Sun et al., MobileBERT, 2020",
    ),
    "densenet121": _Row(DenseNet, _images(224), 7_978_856, 2.834e9, _TORCHVISION),
    "googlenet": _Row(GoogLeNet, _images(224), 6_624_904, 1.498e9, _TORCHVISION),
    "mobilenet_v2": _Row(MobileNetV2, _images(224), 3_504_872, 0.301e9, _TORCHVISION),
    "resnet18": _Row(lambda: ResNet((2, 2, 2, 2)), _images(224), 11_689_512, 1.814e9, _TORCHVISION),
    "resnet34": _Row(lambda: ResNet((3, 4, 6, 3)), _images(224), 21_797_672, 3.664e9, _TORCHVISION),
    "resnet50": _Row(
        lambda: ResNet((3, 4, 6, 3), bottleneck=True),
        _images(224),
        25_557_032,
        4.089e9,
        _TORCHVISION,
    ),
    "squeezenet1_1": _Row(SqueezeNet, _images(224), 1_235_496, 0.349e9, _TORCHVISION),
    "tiny_yolov2": _Row(
        TinyYOLOv2,
        _images(416),
        15_861_773,
        3.485e9,
        "Darknet: 6.97 GFLOP, and tiny-yolo-voc.weights of 63,471,556 bytes, which are a header of "
        "16 and 4 for each parameter and each of 6,112 running averages",
    ),
    "vgg16": _Row(lambda: VGG((2, 2, 3, 3, 3)), _images(224), 138_357_544, 15.47e9, _TORCHVISION),
    "vgg19": _Row(lambda: VGG((2, 2, 4, 4, 4)), _images(224), 143_667_240, 19.632e9, _TORCHVISION),
    "vit_b_16": _Row(lambda: ViT(768, 12), _images(224), 86_567_656, 17.564e9, _TORCHVISION),
    "vit_ti_16": _Row(
        lambda: ViT(192, 3), _images(224), 5_717_416, None, "timm, vit_tiny_patch16_224"
    ),
}

NAMES: tuple[str, ...] = tuple(_MODELS)
"""Names of all networks."""


def model(name: str) -> ZooModel:
    """Finds a published network.

    Args:
      name: one of `NAMES`.

    Returns:
      The network; nothing is computed.

    Raises:
      ValueError: there is none of that name.

    Example:
      >>> net = model("squeezenet1_1")
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), net.example)
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      1235496
      >>> jax.eval_shape(net.apply, variables, net.example).shape
      (1, 1000)
      >>> model("resnet-18")
      Traceback (most recent call last):
      ValueError: model must be one of alexnet, ..., got 'resnet-18'; did you mean 'resnet18'?
    """
    if name not in _MODELS:
        raise ValueError(
            f"model must be one of {', '.join(NAMES)}, got {name!r}{suggest(name, NAMES)}"
        )
    row = _MODELS[name]
    module = row.make()

    def init(key: jax.Array, x: Any) -> PyTree:
        return module.lazy_init(key, jax.eval_shape(lambda x: x, x))

    return ZooModel(name, module.apply, init, row.example, row.parameters, row.macs, row.source)
