"""FedFomo: each client mixes the models of others by how much they would help it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.local import GradFn, take_steps
from eejax.cotrain.personal.adapt import adapt, split_batch
from eejax.cotrain.personal.personal import Personal
from eejax.cotrain.personal.seats import (
    Seat,
    StackUpload,
    renew_stack,
    stack_models,
    stack_upload,
)

PyTree = Any


def fedfomo(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    clients: int,
    validation: float = 0.2,
) -> Personal:
    """Makes first-order model optimisation.

    The server keeps the last model of every client and sends them all. Client i moves its model to
    ``theta_i + sum_n w_n (theta_n - theta_i)`` before it trains, with ``w_n`` the positive part of
    ``(L_i(theta_i) - L_i(theta_n)) / |theta_n - theta_i|``, normalised to sum to 1, and L_i its
    loss on its validation samples; nothing moves if no model is better than its own. Validation
    samples are cut from each batch and not trained on.

    In each round a client receives ``clients`` models, sends one (see `stack_nbytes`) and judges
    all: for few clients, as between companies. The paper's choice of whose models to download,
    which saves traffic and forgoes some gain, is left out: everyone receives all.

    Args:
      grad_fn: gradient of the loss on one batch; its metrics must hold the loss as ``"loss"``.
      client_opt: optimiser of the clients, begun anew each round.
      clients: number of all clients.
      validation: share of a batch that is for validation.

    Returns:
      The method; a client keeps its model, and there is no global one. Wrap its engine in `seated`.

    References:
      Zhang et al., Personalized Federated Learning with First Order Model Optimization, 2021;
      equations 5 to 7.

    Example:
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {"loss": ((w - batch) ** 2).mean() / 2}
      >>> algorithm = fedfomo(grad_fn, optax.sgd(0.0), clients=3, validation=0.5).algorithm
      >>> models = jnp.array([0.0, 1.0, -1.0])  # Of these the second helps, the third harms.
      >>> _, seat, _ = algorithm.local_update(
      ...     models, Seat(jnp.array(0), jnp.array(0.0)), jnp.array([[4.0, 4.0]]), None)
      >>> float(seat.own)
      1.0
    """

    def validation_loss(params, batches, key, tau):
        def step(carry, batch, step_key):
            # The gradient is not used, so it is not computed.
            return carry, {"loss": grad_fn(params, batch, step_key)[1]["loss"]}

        return take_steps(step, (), batches, key, tau)[1]["loss"]

    def local_update(models, seat, batches, key, tau=None):
        number, own = seat
        train, held = jax.vmap(lambda b: split_batch(b, 1 - validation, validation))(batches)
        apart = jax.tree.map(lambda n, o: n - o[None], models, own)
        squares = jax.tree.map(lambda d: (d**2).reshape(clients, -1).sum(1), apart)
        distance = jnp.sqrt(sum(jax.tree.leaves(squares)))
        losses = jax.lax.map(lambda theta: validation_loss(theta, held, key, tau), models)
        gain = jnp.maximum(validation_loss(own, held, key, tau) - losses, 0)
        weights = jnp.where(distance > 0, gain / jnp.where(distance > 0, distance, 1), 0)
        weights = weights / jnp.where(weights.sum() > 0, weights.sum(), 1)
        mixed = trees.add(own, trees.weighted_sum(weights, apart))
        new, metrics = adapt(grad_fn, client_opt, mixed, train, key, tau)
        return stack_upload(new, number, clients), Seat(number, new), metrics

    def personalise(models, seat, batches, key, tau=None):
        del models, batches, key, tau
        return seat.own

    algorithm = FederatedAlgorithm(
        init=lambda params: stack_models(params, clients),
        client_init=lambda params: Seat(jnp.array(-1, jnp.int32), params),
        local_update=local_update,
        server_update=renew_stack,
        broadcast=lambda models: models,
        upload=lambda params: StackUpload(stack_models(params, clients), jnp.zeros(clients)),
        weighting="uniform",
    )
    return Personal(algorithm, personalise, model=None)
