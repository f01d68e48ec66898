"""SkewScout: communicate as seldom as the skew allows, which models measure that travel."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated import Engine, FederatedState, Rows

PyTree = Any


class Kept(NamedTuple):
    """What clients keep under `keep_models`.

    Attributes:
      own: what the algorithm keeps.
      model: the client's model as it was before averaging.
    """

    own: PyTree
    model: PyTree


def keep_models(algorithm: FederatedAlgorithm) -> FederatedAlgorithm:
    """Makes clients keep the model that they trained, so that it can travel.

    Args:
      algorithm: one that broadcasts a model and uploads its change, as `fedavg` and `fedprox` do.

    Returns:
      The same algorithm, whose clients keep `Kept`.
    """

    def client_init(params):
        return Kept(algorithm.client_init(params), params)

    def local_update(broadcast, state, batches, key, **tau):
        upload, own, metrics = algorithm.local_update(broadcast, state.own, batches, key, **tau)
        return upload, Kept(own, trees.add(broadcast, upload)), metrics

    return algorithm._replace(client_init=client_init, local_update=local_update)


def travel(
    correct: Callable[[PyTree, PyTree], jax.Array], models: PyTree, rows: Rows, data: PyTree
) -> jax.Array:
    """Measures the accuracy that models lose at another client: model travelling.

    The model of each client goes to the next one that has samples, in order of the rows, and is
    tried on the training samples of both.

    Args:
      correct: ``(params, samples) -> [n]``, 1 or True where the answer is right.
      models: models of the clients before averaging, ``[edges, ends, ...]``.
      rows: the clients.
      data: arrays ``[n, ...]``, all samples.

    Returns:
      Mean over the clients of accuracy at home minus accuracy away; 0 if nobody is away from home.
    """
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (models, rows.table, rows.counts))
    models, table, counts = flat
    order = jnp.argsort(counts == 0, stable=True)  # Clients with samples first.
    some = (counts > 0).sum()
    place = jnp.arange(len(counts))
    models, table, counts = jax.tree.map(lambda x: x[order], (models, table, counts))
    away = jnp.where(place + 1 < some, place + 1, 0)

    def accuracy(model, row, count):
        right = correct(model, jax.tree.map(lambda a: a[row], data)).astype(jnp.float32)
        return jnp.where(jnp.arange(len(row)) < count, right, 0).sum() / jnp.maximum(count, 1)

    def loss(xs):
        model, row, count, other = xs
        return accuracy(model, row, count) - accuracy(model, table[other], counts[other])

    losses = jax.lax.map(loss, (models, table, counts, away))
    return jnp.where(place < some, losses, 0).sum() / jnp.maximum(some, 1)


def objective(
    accuracy_loss: float,
    cost: float,
    *,
    tolerance: float = 0.05,
    lambda_al: float = 50.0,
    lambda_c: float = 1.0,
) -> float:
    """Weighs accuracy against communication; the least is best.

    Args:
      accuracy_loss: from `travel`, AL.
      cost: bytes sent over bytes of sending the model in every step, C / CM.
      tolerance: accuracy loss that costs nothing, sigma_AL.
      lambda_al: weight of the accuracy loss beyond it.
      lambda_c: weight of the communication.

    Returns:
      ``lambda_al max(0, AL - sigma_AL) + lambda_c C / CM``.

    Example:
      >>> objective(0.04, cost=0.2), round(objective(0.10, cost=0.1), 3)
      (0.2, 2.6)
    """
    return lambda_al * max(0.0, accuracy_loss - tolerance) + lambda_c * cost


class Climb(NamedTuple):
    """State of the search.

    Attributes:
      place: position of the present setting.
      seen: the last objective of each setting; NaN where it was not tried, or is forgotten.
      age: steps since then.
    """

    place: int
    seen: tuple[float, ...]
    age: tuple[int, ...]


def start_climb(settings: int, place: int = 0) -> Climb:
    """Begins a search.

    Args:
      settings: how many there are.
      place: position of the first one to use.

    Returns:
      The state.

    Example:
      >>> start_climb(2)
      Climb(place=0, seen=(nan, nan), age=(0, 0))
    """
    return Climb(place, (float("nan"),) * settings, (0,) * settings)


def climb(state: Climb, value: float, memory: int = 5) -> Climb:
    """Takes a step of hill climbing over an ordered list of settings.

    Old values are forgotten, and such neighbours tried again: the accuracy that models lose changes
    as they learn.

    Args:
      state: where the search is.
      value: objective just measured at the present setting.
      memory: steps for which a value is remembered.

    Returns:
      The state at the setting to use next: the best neighbour whose last value was lower; else one
      that was never tried, that with less communication first; else the present one.

    Example:
      >>> state = start_climb(3, place=1)
      >>> for value in (5.0, 9.0, 5.0, 4.0, 4.0):
      ...     state = climb(state, value)
      ...     print(state.place, end=" ")
      2 1 0 0 0
    """
    age = [0 if i == state.place else a + 1 for i, a in enumerate(state.age)]
    seen = [v if a <= memory else float("nan") for v, a in zip(state.seen, age)]
    seen[state.place] = float(value)
    around = [i for i in (state.place + 1, state.place - 1) if 0 <= i < len(seen)]
    new = [i for i in around if np.isnan(seen[i])]
    known = [i for i in around if seen[i] < value]
    place = min(known, key=seen.__getitem__) if known else (new or [state.place])[0]
    return Climb(place, tuple(seen), tuple(age))


class Period(NamedTuple):
    """What happened between two decisions.

    Attributes:
      theta: local steps between two averages.
      accuracy_loss: of models that travelled at its end.
      objective: what they and the communication cost.
      nbytes: sent by all clients and to them, models that travelled included.
    """

    theta: int
    accuracy_loss: float
    objective: float
    nbytes: int


def skewscout(
    engine_of: Callable[[int], Engine],
    thetas: Sequence[int],
    correct: Callable[[PyTree, PyTree], jax.Array],
    *,
    steps: int,
    start: int = 0,
    tolerance: float = 0.05,
    lambda_al: float = 50.0,
    lambda_c: float = 1.0,
    memory: int = 5,
) -> Callable[..., tuple[FederatedState, tuple[Period, ...]]]:
    """Makes FedAvg choose by itself how many local steps lie between two averages.

    The paper: every so many steps a model travels to another client, the accuracy that it loses
    there tells how skewed the data are as seen through the present setting theta, and hill climbing
    over settings minimises `objective`. It tunes the threshold of Gaia, the local steps of FedAvg
    or the sparsity of deep gradient compression, on training accuracy. This is the variant for
    FedAvg, whose C / CM is 1 / theta; every client's model travels to one other.

    Args:
      engine_of: ``(theta) -> engine`` with ``steps=theta`` and clients that `keep_models`; called
        once for each setting that is tried.
      thetas: local steps to choose from, ascending, all divisors of ``steps``.
      correct: ``(params, samples) -> [n]``, 1 or True where the answer is right.
      steps: local steps between two decisions.
      start: position in ``thetas`` to begin with.
      tolerance: see `objective`.
      lambda_al: see `objective`.
      lambda_c: see `objective`.
      memory: see `climb`.

    Returns:
      ``run(params, rows, data, key, periods) -> (state, periods)``.

    Raises:
      ValueError: thetas do not ascend, or do not divide ``steps``, or there is none at ``start``.

    References:
      Hsieh, Phanishayee, Mutlu and Gibbons, The Non-IID Data Quagmire of Decentralized Machine
      Learning, 2020.
    """
    ascending = all(a < b for a, b in itertools.pairwise(thetas))
    if not ascending or any(theta < 1 or steps % theta for theta in thetas):
        raise ValueError(f"thetas must ascend and divide steps={steps!r}, got {thetas!r}")
    if not 0 <= start < len(thetas):
        raise ValueError(f"start must be a position in {len(thetas)} thetas, got {start!r}")
    engines: dict[int, Engine] = {}
    measure = jax.jit(lambda models, rows, data: travel(correct, models, rows, data))

    def run(params, rows, data, key, periods):
        state, search = None, start_climb(len(thetas), start)
        clients, model = int((np.asarray(rows.counts) > 0).sum()), trees.nbytes(params)
        history = []
        for _ in range(periods):
            theta = thetas[search.place]
            if theta not in engines:
                engines[theta] = engine_of(theta)
            engine = engines[theta]
            state = engine.init(params, rows) if state is None else state
            state, _ = engine.run(state, rows, data, key, rounds=steps // theta)
            lost = float(measure(state.clients.state.model, rows, data))
            value = objective(
                lost, 1 / theta, tolerance=tolerance, lambda_al=lambda_al, lambda_c=lambda_c
            )
            nbytes = clients * model * (2 * (steps // theta) + 1)
            history.append(Period(theta, lost, value, nbytes))
            search = climb(search, value, memory)
        return state, tuple(history)

    return run
