"""PFLDyn: dynamic regularisation removes the bias between clients' and the server's optimum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.fine_tune import fine_tune
from eejax.cotrain.personal.maml import meta_gradient
from eejax.cotrain.personal.personal import Personal

PyTree = Any


class DynState(NamedTuple):
    """What the server keeps.

    Attributes:
      params: theta, the model that clients train from.
      h: mean of the clients' gradients lambda_k, over all clients.
      mean: mean of the models of the last round, which is the model to use.
    """

    params: PyTree
    h: PyTree
    mean: PyTree


class DynUpload(NamedTuple):
    """What a client sends: FedAvg and 4 bytes.

    Attributes:
      params: change of the model.
      present: 1; over the number of all clients its mean is the share that took part.
    """

    params: PyTree
    present: jax.Array


def pfldyn(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    alpha: float,
    inner_lr: float,
    inner_steps: int = 1,
    support: float = 0.5,
) -> Personal:
    """Makes PFLDyn with MAML as the way to personalise.

    L_k is the loss of client k after ``inner_steps`` steps of adaptation. From theta the client
    minimises ``L_k(w) - <lambda_k, w> + alpha/2 |w - theta|^2`` and renews
    ``lambda_k <- lambda_k - alpha (w_k - theta)``, which becomes its gradient of L_k there. The
    server takes ``theta = mean of the w_k - h / alpha``. If it converges, it does so to a point
    where the mean gradient of all L_k is zero, however many local steps are taken.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients, begun anew each round.
      alpha: weight of the regulariser, above 0.
      inner_lr: learning rate of the steps that adapt a model.
      inner_steps: how many there are.
      support: share of a batch that is the support set to adapt on; the rest is to judge by.

    Returns:
      The method; a client keeps its lambda_k, as large as the model.

    Raises:
      ValueError: ``alpha`` is not above 0.

    References:
      Acar et al., Debiasing Model Updates for Improving Personalized Federated Training, 2021;
      its regulariser: Acar et al., Federated Learning Based on Dynamic Regularization, 2021.

    Example:
      >>> algorithm = pfldyn(None, optax.sgd(0.1), alpha=0.5, inner_lr=0.1).algorithm
      >>> state = algorithm.init(jnp.array(0.0))
      >>> new = algorithm.server_update(state, DynUpload(jnp.array(1.0), jnp.array(1.0)))
      >>> float(new.mean), float(new.h), float(new.params)
      (1.0, -0.5, 2.0)
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, got {alpha!r}")
    personal_gradient = meta_gradient(grad_fn, inner_lr, inner_steps, support)

    def zeros(params):
        return jax.tree.map(jnp.zeros_like, params)

    def local_update(theta, lam, batches, key, tau=None):
        def regularised(w, batch, step_key):
            grads, metrics = personal_gradient(w, batch, step_key)
            regular = jax.tree.map(lambda g, m, w, t: g - m + alpha * (w - t), grads, lam, w, theta)
            return regular, metrics

        w, metrics = adapt(regularised, client_opt, theta, batches, key, tau)
        change = trees.sub(w, theta)
        lam = jax.tree.map(lambda m, d: m - alpha * d, lam, change)
        return DynUpload(change, jnp.ones(())), lam, metrics

    def server_update(state, mean):
        average = trees.add(state.params, mean.params)
        h = jax.tree.map(lambda h, d: h - alpha * mean.present * d, state.h, mean.params)
        return DynState(jax.tree.map(lambda w, h: w - h / alpha, average, h), h, average)

    algorithm = FederatedAlgorithm(
        # A copy: the engine gives up the buffers of each.
        init=lambda params: DynState(params, zeros(params), jax.tree.map(jnp.array, params)),
        client_init=zeros,
        local_update=local_update,
        server_update=server_update,
        broadcast=lambda state: state.params,
        upload=lambda params: DynUpload(params, jnp.zeros(())),
        weighting=DynUpload("uniform", "population"),
    )
    tuned = fine_tune(algorithm, grad_fn, optax.sgd(inner_lr))
    return tuned._replace(deploy=lambda state: state.mean)
