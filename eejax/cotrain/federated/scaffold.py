"""SCAFFOLD: control variates correct the drift of clients whose data differ."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.local import GradFn, count_steps, take_steps

PyTree = Any


class ScaffoldState(NamedTuple):
    """What the server keeps, and all that it sends.

    Attributes:
      params: the global model x.
      control: the server's control variate c, the mean of those of all clients.
    """

    params: PyTree
    control: PyTree


class ScaffoldUpload(NamedTuple):
    """What a client sends: twice the bytes of FedAvg, on the way down too.

    Attributes:
      params: change of the model.
      control: change of the client's control variate c_i.
    """

    params: PyTree
    control: PyTree


def scaffold(
    grad_fn: GradFn, lr: float, server_lr: float = 1.0, option: Literal[1, 2] = 2
) -> FederatedAlgorithm:
    """Makes SCAFFOLD.

    Client i takes K steps ``y <- y - lr (g_i(y) - c_i + c)`` from the global model x, and renews
    its control variate: by option 1 to its gradient at x over the batches of the round, a second
    pass, by option 2 to ``c_i - c + (x - y) / (K lr)``. The server adds the mean change of the
    models, times ``server_lr``, and to c the sum of the changes of the c_i over the number of *all*
    clients. K is the number of steps that this client took, all are steps of plain SGD, and clients
    count alike, as in the paper: with any other rule c is no more the mean of the c_i, and what is
    left over drives clients of few classes away.

    Option 1 wants a smaller learning rate than option 2: its c_i is a gradient from before the
    local steps, too large for a client that soon fits its few classes, and followed all the same.

    Args:
      grad_fn: gradient of the loss on one batch.
      lr: learning rate of the clients.
      server_lr: learning rate of the server.
      option: 1 or 2, how control variates are renewed.

    Returns:
      The algorithm; a client keeps its c_i, as large as the model.

    Raises:
      ValueError: ``option`` is not 1 or 2.

    References:
      Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, 2020;
      algorithm 1.

    Example:
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> algorithm = scaffold(grad_fn, lr=0.5)
      >>> sent = algorithm.broadcast(algorithm.init(jnp.array(0.0)))
      >>> batches = jnp.array([[4.0], [4.0]])
      >>> upload, own, _ = algorithm.local_update(sent, jnp.array(0.0), batches, None)
      >>> float(upload.params), float(own)  # 0 -> 2 -> 3; the mean gradient was -3.
      (3.0, -3.0)
    """
    if option not in (1, 2):
        raise ValueError(f"option must be 1 or 2, got {option!r}")

    def zeros(params):
        return jax.tree.map(jnp.zeros_like, params)

    def local_update(broadcast, c_i, batches, key, tau=None):
        x, c = broadcast
        correction = trees.sub(c, c_i)

        def step(y, batch, step_key):
            grads, metrics = grad_fn(y, batch, step_key)
            return jax.tree.map(lambda y, g, d: y - lr * (g + d), y, grads, correction), metrics

        def add_gradient(total, batch, step_key):
            return trees.add(total, grad_fn(x, batch, step_key)[0]), {}

        y, metrics = take_steps(step, x, batches, key, tau)
        steps = count_steps(batches, tau)
        if option == 1:
            total, _ = take_steps(add_gradient, zeros(x), batches, key, tau)
            new = jax.tree.map(lambda g: g / steps, total)
        else:
            new = jax.tree.map(lambda a, b, d: (a - b) / (steps * lr) - d, x, y, correction)
        return ScaffoldUpload(trees.sub(y, x), trees.sub(new, c_i)), new, metrics

    def server_update(state, mean):
        params = jax.tree.map(lambda x, d: x + server_lr * d, state.params, mean.params)
        return ScaffoldState(params, trees.add(state.control, mean.control))

    return FederatedAlgorithm(
        init=lambda params: ScaffoldState(params, zeros(params)),
        client_init=zeros,
        local_update=local_update,
        server_update=server_update,
        broadcast=lambda state: state,
        upload=lambda params: ScaffoldUpload(params, params),
        weighting=ScaffoldUpload("uniform", "population"),
        by_steps=True,
    )
