"""FedRep: clients first fit their heads to the shared body, then the body to their heads."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from eejax import trees
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.fedper import fedper
from eejax.cotrain.personal.partial import body_gradient, head_gradient, join_params
from eejax.cotrain.personal.personal import Personal


def fedrep(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    local: Sequence[str],
    head_passes: int = 1,
    server_opt: optax.GradientTransformation | None = None,
) -> Personal:
    """Makes FedRep.

    A round of a client is ``head_passes`` passes over its batches that change the head alone, and
    then one that changes the body alone, the new head being fixed. In the end clients fit their
    heads once more, to the last body, over the batches that `evaluator` gives them.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients, for head and body, begun anew each round.
      local: regexes over parameter paths that choose the head.
      head_passes: passes over the batches of a round for the head, at least 1; the paper takes 10.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The method; a client keeps its head, and there is no global model.

    Raises:
      ValueError: ``head_passes`` is below 1.

    References:
      Collins et al., Exploiting Shared Representations for Personalized Federated Learning, 2021;
      algorithm 1.

    Example:
      >>> def grad_fn(w, batch, key):  # Of (body + head - x)^2 / 2.
      ...     error = w["body"] + w["head"] - batch.mean()
      ...     return {"body": error, "head": error}, {}
      >>> algorithm = fedrep(grad_fn, optax.sgd(0.5), ["head"]).algorithm
      >>> upload, head, _ = algorithm.local_update(
      ...     {"body": jnp.array(0.0), "head": None}, {"body": None, "head": jnp.array(0.0)},
      ...     jnp.array([[4.0]]), None)
      >>> float(head["head"]), float(upload["body"])  # Head to 2, then body to 1.
      (2.0, 1.0)
    """
    if head_passes < 1:
        raise ValueError(f"head_passes must be at least 1, got {head_passes!r}")

    def fit_head(body, head, batches, key, tau):
        of_head = head_gradient(grad_fn, body, local)
        return adapt(of_head, client_opt, head, batches, key, tau)[0]

    def local_update(body, head, batches, key, tau=None):
        last = keys = None
        if key is not None:
            *keys, last = jax.random.split(key, head_passes + 1)
            keys = jnp.stack(keys)
        new_head, _ = jax.lax.scan(
            lambda h, pass_key: (fit_head(body, h, batches, pass_key, tau), None),
            head,
            keys,
            length=head_passes,
        )
        of_body = body_gradient(grad_fn, new_head, local)
        new_body, metrics = adapt(of_body, client_opt, body, batches, last, tau)
        return trees.sub(new_body, body), new_head, metrics

    def personalise(body, head, batches, key, tau=None):
        return join_params(body, fit_head(body, head, batches, key, tau))

    like = fedper(grad_fn, client_opt, local, server_opt)
    return Personal(like.algorithm._replace(local_update=local_update), personalise, model=None)
