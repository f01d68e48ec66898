"""What stands before the first round: the model, its task, and the modelled system."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eejax import models, tiers
from eejax.core import StagedModel
from eejax.experiment.runs.federated.config import Federated
from eejax.experiment.runs.federated.methods import Task
from eejax.experiment.runs.federated.samples import Samples
from eejax.names import suggest

PyTree = Any


class Model(NamedTuple):
    """A classifier.

    Attributes:
      init: ``(key) -> params``.
      logits: ``(params, x [batch, ...]) -> [batch, classes]``.
      head: regex of the paths of the last layer's parameters.
    """

    init: Callable[[jax.Array], PyTree]
    logits: Callable[[PyTree, jax.Array], jax.Array]
    head: str


def key_of(seed: int, purpose: str) -> jax.Array:
    """Gives the key of a purpose, which depends on the seed and its name alone."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


def make_model(text: str, samples: Samples) -> Model:
    """Makes a classifier.

    Args:
      text: ``logistic``, ``mlp:WIDTH,...``, ``cnn:CHANNELS,...`` or ``lenet``.
      samples: what it classifies.

    Returns:
      The model.

    Raises:
      ValueError: the name is unknown, its argument is missing or wrong, or samples are too small.
    """
    name, _, given = text.partition(":")
    x = samples.arrays["x"][:1]
    try:
        widths = tuple(int(part) for part in given.split(",")) if given else ()
        match name, widths:
            case "logistic", ():
                return _logistic(x[0].size, samples.classes)
            case "mlp", (_, *_):
                return _staged(models.staged_mlp(samples.classes, widths), x)
            case "cnn", (_, *_):
                return _staged(models.branchy_cnn(samples.classes, widths), x)
            case "lenet", ():
                return _staged(models.lenet(samples.classes), x)
    except ValueError as error:
        raise ValueError(f"model {text!r}: {error}") from error
    known = ("logistic", "mlp:WIDTH,...", "cnn:CHANNELS,...", "lenet")
    raise ValueError(f"model {text!r} is none of {' '.join(known)}{suggest(name, known)}")


def make_task(config: Federated, model: Model) -> Task:
    """Makes the loss that clients descend."""

    def grad_fn(params, batch, key):
        del key

        def loss(params):
            logits = model.logits(params, batch["x"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        return grads, {"loss": value}

    return Task(grad_fn, config.momentum, model.head)


def make_topology(config: Federated, seed: int) -> tiers.Topology:
    """Builds the modelled system, with its slow clients.

    Args:
      config: the fields.
      seed: of the choice of slow clients.

    Returns:
      A topology with an end device for each client.

    Raises:
      ValueError: a field is wrong; names it.
    """
    system, clients = config.system, config.data.clients
    if system.file is None:
        topology = tiers.three_tier(
            clients,
            system.edges,
            end_devices=system.end_devices,
            end_edge=system.end_edge,
            edge_cloud=system.edge_cloud,
        )
    else:
        topology = tiers.from_toml(system.file)
    ends, *above = topology.tiers
    if ends.nodes != clients or not above:
        raise ValueError(
            f"system.file: the lowest of at least two tiers must have {clients} nodes, one for "
            f"each client; it has {ends.nodes}"
        )
    order = np.random.default_rng([seed, 1]).permutation(clients)
    times = np.ones(clients)
    times[order[: round(system.slow * clients)]] = system.slowdown
    devices = dataclasses.replace(
        ends.devices,
        flops_per_s=ends.devices.flops_per_s / times,
        memory_bandwidth_bytes_per_s=ends.devices.memory_bandwidth_bytes_per_s / times,
        overhead_s=ends.devices.overhead_s * times,
    )
    links = dataclasses.replace(
        ends.links,
        bandwidth_up_bps=ends.links.bandwidth_up_bps / times,
        bandwidth_down_bps=ends.links.bandwidth_down_bps / times,
        rtt_s=ends.links.rtt_s * times,
    )
    return tiers.Topology((dataclasses.replace(ends, devices=devices, links=links), *above))


def read_trace(config: Federated) -> np.ndarray | None:
    """Reads who is there in which round.

    Args:
      config: the fields.

    Returns:
      bool ``[rounds, clients]`` for all rounds of the config; None without a trace.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a table of 0 and 1 with a column for each client.
    """
    path, clients = config.system.trace, config.data.clients
    if path is None:
        return None
    with open(path) as file:
        lines = [line.split(",") for line in file.read().split()]
    if not lines or any(len(line) != clients or set(line) - {"0", "1"} for line in lines):
        raise ValueError(
            f"system.trace: {path} must hold lines of {clients} numbers, one for each client, each "
            "0 or 1 and separated by commas"
        )
    there = np.array(lines) == "1"
    return there[np.arange(config.rounds) % len(there)]


def _logistic(features: int, classes: int) -> Model:
    def init(key):
        del key
        return {"w": jnp.zeros((features, classes)), "b": jnp.zeros(classes)}

    def logits(params, x):
        return x.reshape(x.shape[0], -1) @ params["w"] + params["b"][None]

    return Model(init, logits, "w|b")


def _staged(model: StagedModel, x: np.ndarray) -> Model:
    model = StagedModel(model.stages, model.exits[-1:])
    jax.eval_shape(lambda key: models.init(model, key, x), jax.random.key(0))  # Do images fit?
    return Model(
        lambda key: models.init(model, key, x),
        lambda params, x: models.all_logits(model, params, x)[-1],
        rf"^{model.exits[-1].head.name}/",
    )
