"""The layer graph of a `StagedModel`: one layer a stage, its exit included."""

from collections.abc import Mapping
from typing import Any

import jax

from eejax import trees
from eejax.core import Codec, StagedModel
from eejax.models.staged import owned, run_stage
from eejax.names import suggest
from eejax.partition.graph import Layer, LayerGraph, Tensor, check
from eejax.tiers.cost import work_of
from eejax.wire.identity import identity
from eejax.wire.size import abstract_nbytes

PyTree = Any

INPUT = "input"
"""Name of the tensor that is the raw input of a model."""


def from_staged(
    model: StagedModel,
    params: dict[str, PyTree],
    x: Any,
    codec: Codec | None = None,
    input_codec: Codec | None = None,
    *,
    sizes: Mapping[str, float] | None = None,
) -> LayerGraph:
    """Prices the stages of a model for one sample, without compiling or running them.

    FLOPs and bytes moved are those that `tiers.work_of` counts at batch 1, with its limits. A
    message is the input or the features of one sample, without a batch axis; the features of a
    stage bear the name of the stage, the raw input that of `INPUT`.

    Args:
      model: a staged model.
      params: its parameters, as arrays or abstract arrays.
      x: an example input ``[batch, ...]``, or its ``jax.ShapeDtypeStruct``, in the dtype in which
        it leaves the sensor: images as uint8 cost one byte a value.
      codec: how features travel; as they are if None.
      input_codec: how the raw input travels; as it is if None.
      sizes: bytes of one sample by tensor name, instead of those from shapes: for codecs whose size
        depends on the data, the mean of what was measured.

    Returns:
      A chain of as many layers as there are stages.

    Raises:
      ValueError: parameters are missing, a codec's size depends on the data and ``sizes`` lacks the
        tensor, or ``sizes`` has an unknown name or a wrong number.

    Example:
      >>> import jax.numpy as jnp
      >>> from eejax.core import Exit, Stage, StagedModel
      >>> dense = lambda params, x, train=False, key=None: jnp.matmul(x, params)
      >>> model = StagedModel(
      ...     (Stage("end", None, dense), Stage("cloud", None, dense)),
      ...     (Exit("cloud", Stage("answer", None, dense)),),
      ... )
      >>> params = {"end": jnp.ones((64, 8)), "cloud": jnp.ones((8, 8)), "answer": jnp.ones((8, 2))}
      >>> graph = from_staged(model, params, jnp.ones((32, 64)))
      >>> [(layer.name, layer.flops, layer.parameter_bytes) for layer in graph.layers]
      [('end', 1024.0, 2048), ('cloud', 160.0, 320)]
      >>> [(tensor.name, tensor.nbytes) for tensor in graph.tensors]
      [('input', 256), ('end', 32)]
    """
    names = (INPUT, *(stage.name for stage in model.stages[:-1]))
    sizes = dict(sizes or {})
    for name in sizes:
        if name not in names:
            raise ValueError(f"sizes: {name!r} is none of {', '.join(names)}{suggest(name, names)}")

    layers, tensors = [], []
    x = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    for i, stage in enumerate(model.stages):
        door = (codec if i else input_codec) or identity()
        nbytes = sizes[names[i]] if names[i] in sizes else _message_nbytes(names[i], door, x)
        tensors.append(Tensor(names[i], i - 1, (i,), nbytes))

        missing = [name for name in owned(model, i) if name not in params]
        if missing:
            raise ValueError(f"params lack {missing[0]!r}; they hold {', '.join(params)}")
        own = {name: params[name] for name in owned(model, i)}

        def run(own, x, i=i):
            return run_stage(model, i, own, x)

        layers.append(Layer(stage.name, *work_of(run, own, x), trees.nbytes(own)))
        x, _ = jax.eval_shape(run, own, x)
    return check(LayerGraph(tuple(layers), tuple(tensors), "stage with its exit"))


def _message_nbytes(name: str, codec: Codec, x: jax.ShapeDtypeStruct) -> int:
    try:
        return abstract_nbytes(codec, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    except TypeError as error:
        raise ValueError(
            f"the size of {name!r} on a link depends on the data ({error}); give the mean of "
            f"measured sizes as sizes={{{name!r}: bytes}}"
        ) from error
