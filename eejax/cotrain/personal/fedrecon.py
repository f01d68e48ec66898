"""FedRecon: partially local models without state; heads are reconstructed in every round."""

from collections.abc import Sequence
from typing import Any

import jax
import optax

from eejax import trees
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt, split_batch
from eejax.cotrain.personal.partial import (
    body_gradient,
    head_gradient,
    join_params,
    split_params,
)
from eejax.cotrain.personal.personal import Personal
from eejax.tiers import cast_varying

PyTree = Any


def fedrecon(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    recon_opt: optax.GradientTransformation,
    local: Sequence[str],
    initial: PyTree,
    support: float = 0.5,
    server_opt: optax.GradientTransformation | None = None,
) -> Personal:
    """Makes federated reconstruction.

    A client sets its local weights to their initial values, fits them to its support set with the
    shared weights fixed, then takes steps with the shared weights on its query set with the local
    ones fixed, uploads the change of the shared weights and forgets the local ones. So clients that
    were never seen are served as all others, and nothing is kept where memory is short. Support and
    query sets are cut from each batch.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the shared weights at the clients.
      recon_opt: optimiser of the reconstruction.
      local: regexes over parameter paths that choose the local weights.
      initial: a model whose local weights every reconstruction begins from; a part of the program,
        so it is not sent.
      support: share of a batch that is the support set.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The method; its clients keep no state. With nothing local it is FedAvg on the query sets.

    References:
      Singhal et al., Federated Reconstruction: Partially Local Federated Learning, 2021;
      algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (body + head - x)^2 / 2.
      ...     error = w["body"] + w["head"] - batch.mean()
      ...     return {"body": error, "head": error}, {}
      >>> start = {"body": jnp.array(0.0), "head": jnp.array(0.0)}
      >>> method = fedrecon(grad_fn, optax.sgd(0.5), optax.sgd(0.5), ["head"], start)
      >>> sent = method.algorithm.upload(start)
      >>> upload, _, _ = method.algorithm.local_update(sent, (), jnp.array([[4.0, 4.0]]), None)
      >>> float(upload["body"])  # Head to 2, then body to 1.
      1.0
    """
    server = fedavg(grad_fn, client_opt, server_opt)

    def reconstruct(body, batches, key, tau):
        varying = tuple(jax.typeof(jax.tree.leaves(batches)[0]).manual_axis_type.varying)
        head = cast_varying(split_params(initial, local)[1], varying)
        return adapt(head_gradient(grad_fn, body, local), recon_opt, head, batches, key, tau)[0]

    def local_update(body, client_state, batches, key, tau=None):
        keys = (None, None) if key is None else jax.random.split(key)
        support_set, query_set = jax.vmap(lambda b: split_batch(b, support, 1 - support))(batches)
        head = reconstruct(body, support_set, keys[0], tau)
        of_body = body_gradient(grad_fn, head, local)
        new, metrics = adapt(of_body, client_opt, body, query_set, keys[1], tau)
        return trees.sub(new, body), client_state, metrics

    def personalise(body, client_state, batches, key, tau=None):
        del client_state
        return join_params(body, reconstruct(body, batches, key, tau))

    # Support and query sets are cut out of the batches.
    algorithm = server._replace(
        by_steps=False,
        init=lambda params: server.init(split_params(params, local)[0]),
        local_update=local_update,
        upload=lambda params: split_params(params, local)[0],
    )
    return Personal(algorithm, personalise, model=None)
