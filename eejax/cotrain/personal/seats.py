"""Models of all clients side by side at the server, for methods that compare or relate them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax import trees
from eejax.cotrain.federated.flat import Engine

PyTree = Any


class Seat(NamedTuple):
    """What a client keeps.

    Attributes:
      number: int32, its place in the stack of models; -1 until `seated` has told it.
      own: what else it keeps.
    """

    number: jax.Array
    own: PyTree


class StackUpload(NamedTuple):
    """The sum of such uploads is the stack of what each client sent.

    In the modelled system a client sends one model and the server files it by sender; that the
    simulation adds up stacks, empty but for one place, is not traffic. See `stack_nbytes`.

    Attributes:
      models: leaves ``[clients, ...]``, zero but at the place of the client.
      present: f32 ``[clients]``, 1 at the place of the client.
    """

    models: PyTree
    present: jax.Array


def seated(engine: Engine) -> Engine:
    """Makes an engine whose clients know their numbers, for methods that keep a `Seat`.

    A client that was not told uploads NaN, which engines count as ``rejected``.

    Args:
      engine: `flat` or `sampled`; not `hierfavg`, whose cloud takes means of the stacks of edges.

    Returns:
      The engine.
    """

    def init(params, rows):
        state = engine.init(params, rows)
        old = state.clients.state
        # A copy: the engine gives up the buffers of the state, and the rows are used again.
        number = jax.device_put(jnp.array(rows.ids), old.number.sharding)
        return state._replace(clients=state.clients._replace(state=old._replace(number=number)))

    return engine._replace(init=init)


def stack_models(params: PyTree, clients: int) -> PyTree:
    """Makes a stack in which every client has the same model.

    Args:
      params: the model.
      clients: number of all clients.

    Returns:
      Leaves ``[clients, ...]``.
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (clients, *jnp.shape(x))), params)


def at_seat(models: PyTree, number: jax.Array) -> PyTree:
    """Takes one client's model out of the stack.

    Args:
      models: leaves ``[clients, ...]``.
      number: place of the client.

    Returns:
      The model; NaN for a client without a number.
    """
    return jax.tree.map(lambda x: jnp.where(number >= 0, x[number], jnp.nan), models)


def stack_upload(params: PyTree, number: jax.Array, clients: int) -> StackUpload:
    """Files a client's model at its place.

    Args:
      params: the model.
      number: place of the client.
      clients: number of all clients.

    Returns:
      What is summed up; all NaN for a client without a number.

    Example:
      >>> stack_upload(jnp.array(3.0), jnp.array(1), clients=3).models.tolist()
      [0.0, 3.0, 0.0]
    """
    mine = jnp.arange(clients) == number

    def file(x):
        at = mine.reshape((clients,) + (1,) * jnp.ndim(x))
        return jnp.where(number >= 0, jnp.where(at, x[None], 0), jnp.nan)

    return StackUpload(jax.tree.map(file, params), mine.astype(jnp.float32))


def renew_stack(models: PyTree, mean: StackUpload) -> PyTree:
    """Puts the models of those who took part in the place of their old ones.

    Args:
      models: leaves ``[clients, ...]``.
      mean: of the uploads, each client counting alike.

    Returns:
      The new stack.

    Example:
      >>> mean = StackUpload(jnp.array([0.0, 1.5]), jnp.array([0.0, 0.5]))
      >>> renew_stack(jnp.array([7.0, 7.0]), mean).tolist()
      [7.0, 3.0]
    """

    def renew(old, new):
        share = mean.present.reshape((-1,) + (1,) * (new.ndim - 1))
        sent = jnp.where(share > 0, new / jnp.where(share > 0, share, 1), old)
        return jnp.where(jnp.isnan(new), new, sent)  # Of clients without a number: seen at once.

    return jax.tree.map(renew, models, mean.models)


def stack_nbytes(params: PyTree, clients: int) -> tuple[int, int]:
    """Counts what one client of such a method sends and receives in a round.

    Args:
      params: the model, arrays or abstract arrays.
      clients: number of all clients.

    Returns:
      Bytes up, one model; and bytes down, the models of all.

    Example:
      >>> stack_nbytes({"w": jnp.zeros(10)}, clients=8)
      (40, 320)
    """
    return trees.nbytes(params), clients * trees.nbytes(params)
