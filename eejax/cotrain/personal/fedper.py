"""FedPer: the body of the model is averaged, the heads stay at the clients."""

from collections.abc import Sequence

import optax

from eejax import trees
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.partial import join_params, split_params
from eejax.cotrain.personal.personal import Personal


def fedper(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    local: Sequence[str],
    server_opt: optax.GradientTransformation | None = None,
) -> Personal:
    """Makes FedPer.

    A client joins the body it was sent to the head it kept, trains both at the same time, keeps the
    head and uploads the change of the body. Heads never cross a link.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients, begun anew each round.
      local: regexes over parameter paths that choose the head; FedAvg if there are none.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The method; a client keeps its head, and there is no global model.

    References:
      Arivazhagan et al., Federated Learning with Personalization Layers, 2019; algorithms 1 and 2.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"body": jnp.zeros(2), "head": jnp.ones(3)}
      >>> algorithm = fedper(None, optax.sgd(0.1), local=["head"]).algorithm
      >>> trees.size(algorithm.upload(params)), trees.size(algorithm.client_init(params))
      (2, 3)
    """
    server = fedavg(grad_fn, client_opt, server_opt)

    def local_update(body, head, batches, key, tau=None):
        w, metrics = adapt(grad_fn, client_opt, join_params(body, head), batches, key, tau)
        new_body, new_head = split_params(w, local)
        return trees.sub(new_body, body), new_head, metrics

    def personalise(body, head, batches, key, tau=None):
        del batches, key, tau
        return join_params(body, head)

    algorithm = server._replace(
        init=lambda params: server.init(split_params(params, local)[0]),
        client_init=lambda params: split_params(params, local)[1],
        local_update=local_update,
        upload=lambda params: split_params(params, local)[0],
    )
    return Personal(algorithm, personalise, model=None)
