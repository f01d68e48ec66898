"""What a parallel run learns: the model of a config, its batches, and how well it does."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax import data
from eejax.cotrain.hybrid import Layered, mlp_model, text_model, vit_model
from eejax.cotrain.tensor import Shape, patchify
from eejax.data.text import VOCABULARY, entropy_bits, next_byte_batch, python_documentation
from eejax.experiment.runs.parallel.config import Parallel, Perceptron, Transformer
from eejax.experiment.tables import Table

TEXT = "python_documentation"

Batch = dict[str, Any]
"""``inputs [tokens, ...]`` and ``labels [labels]``."""


class Task(NamedTuple):
    """What is learnt, and how results are worded.

    Attributes:
      model: what is trained.
      name: what to call it.
      about: one sentence on the task.
      train: ``(step) ->`` batch of that step.
      held: batches of held-out data.
      unit: what is counted a second: ``"tokens"`` or ``"images"``.
      tokens: tokens of one of these.
      scale: of losses in nats, for people.
      measure: what the scaled loss is.
      metrics: ``(held-out loss in nats, accuracy) ->`` further results by name.
      table: ``(metrics) ->`` results beside simple baselines.
    """

    model: Layered
    name: str
    about: str
    train: Callable[[int], Batch]
    held: list[Batch]
    unit: str
    tokens: int
    scale: float
    measure: str
    metrics: Callable[[float, float], dict[str, float]]
    table: Callable[[dict[str, float]], Table]


def model_of(config: Parallel) -> Layered:
    """Builds the model of a config.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a field is wrong; names it.
    """
    sizes = config.model
    if isinstance(sizes, Transformer):
        if config.data != TEXT:
            raise ValueError(f"data must be {TEXT!r} for a Transformer, got {config.data!r}")
        return text_model(VOCABULARY, Shape(**vars(sizes), causal=True))
    info = data.load(config.data, "test[:1]").info
    height, width, channels = info.image_shape
    if sizes.classes < len(info.classes):
        raise ValueError(f"classes must be at least {len(info.classes)}, got {sizes.classes}")
    if isinstance(sizes, Perceptron):
        return mlp_model(_round_up(height * width * channels), **vars(sizes))
    heads, patch = sizes.heads, sizes.patch
    if height % patch or width % patch:
        raise ValueError(f"patch must divide {height} and {width}, got {patch}")
    seq = height // patch * (width // patch)
    shape = Shape(sizes.hidden, sizes.intermediate, heads, heads, seq, sizes.layers, causal=False)
    return vit_model(_round_up(patch * patch * channels), sizes.classes, shape)


def task_of(config: Parallel) -> Task:
    """Loads what a config trains on.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a field is wrong; names it.
    """
    return (_text if isinstance(config.model, Transformer) else _images)(config, model_of(config))


def _text(config: Parallel, model: Layered) -> Task:
    text, held = (python_documentation(split) for split in ("train", "test"))

    def batch(source, seed, step):
        return next_byte_batch(source, seed, step, config.sequences, model.seq)

    def table(metrics):
        return Table(
            "Bits per byte of held-out text; the best that models of few bytes could do beside it.",
            ["model", "bits per byte"],
            [
                ["this decoder", metrics["test_bits_per_byte"]],
                ["uniform", 8.0],
                ["frequency of bytes", entropy_bits(held)],
                ["frequency of bytes given the one before", entropy_bits(held, 1)],
            ],
            0,
        )

    return Task(
        model=model,
        name="language model",
        about="Next byte of Python's own documentation.",
        train=lambda step: batch(text, config.seed, step),
        held=[batch(held, -1 + 2**31, i) for i in range(4)],
        unit="tokens",
        tokens=1,
        scale=1 / math.log(2),
        measure="bits per byte",
        metrics=lambda loss, _: {"test_bits_per_byte": loss / math.log(2)},
        table=table,
    )


def _images(config: Parallel, model: Layered, most: int = 500) -> Task:
    pool, test = (data.load(config.data, split) for split in ("train", "test"))
    key, n = jax.random.key(config.seed), len(pool.labels)

    @jax.jit
    def chosen(step):
        return data.batch_indices(key, n, step, config.sequences, n)

    def batch(source, index):
        # Dark is 0, or all patches of the background would hide their positions.
        images = source.images[index] / np.float32(255)
        if isinstance(config.model, Perceptron):
            inputs = images.reshape(len(images), -1)
        else:
            inputs = patchify(images, config.model.patch)
        unused = model.token.shape[0] - inputs.shape[1]
        return {"inputs": np.pad(inputs, ((0, 0), (0, unused))), "labels": source.labels[index]}

    def table(metrics):
        likely = np.bincount(pool.labels).argmax()
        return Table(
            f"Accuracy on the {len(test.labels):,} test images of {config.data}.",
            ["model", "accuracy"],
            [
                [f"this {name}", f"{100 * metrics['test_accuracy']:.2f} %"],
                ["always the most frequent class", f"{100 * np.mean(test.labels == likely):.2f} %"],
            ],
            0,
        )

    name = "perceptron" if isinstance(config.model, Perceptron) else "vision transformer"
    parts = np.array_split(np.arange(len(test.labels)), -(-len(test.labels) // most))
    return Task(
        model=model,
        name=name,
        about=f"Classes of the {n:,} training images of {config.data}.",
        train=lambda step: batch(pool, np.asarray(chosen(step))),
        held=[batch(test, part) for part in parts],
        unit="images",
        tokens=model.seq,
        scale=1.0,
        measure="nats per image",
        metrics=lambda _, accuracy: {"test_accuracy": accuracy},
        table=table,
    )


def _round_up(pixels: int, multiple: int = 8) -> int:
    """Adds pixels that are always 0, so that layouts can split them."""
    return -(-pixels // multiple) * multiple
