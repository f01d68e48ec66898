"""VHL: clients share virtual samples, made of noise, and match features of real ones to theirs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax import trees
from eejax.cotrain.federated.local import GradFn
from eejax.tiers import Ledger, record

PyTree = Any


class Virtual(NamedTuple):
    """A virtual data set that holds nothing private and is the same at all clients.

    Attributes:
      x: ``[n, ...]``.
      y: int32 ``[n]``, in the classes of the real data.
    """

    x: jax.Array
    y: jax.Array


def gaussian_classes(
    key: jax.Array, shape: tuple[int, ...], classes: int, per_class: int, spread: float = 0.3
) -> Virtual:
    """Draws virtual samples: for each class a noise pattern, and noise about it.

    Args:
      key: of the draws.
      shape: of a sample.
      classes: number of classes.
      per_class: samples of each.
      spread: standard deviation about the pattern of the class, whose own values are N(0, 1);
        small ones make the classes easy to separate.

    Returns:
      ``classes * per_class`` samples, class by class.

    Example:
      >>> virtual = gaussian_classes(jax.random.key(0), (8, 8), classes=10, per_class=5)
      >>> virtual.x.shape, virtual.y[:6].tolist()
      ((50, 8, 8), [0, 0, 0, 0, 0, 1])
    """
    of_class, of_sample = jax.random.split(key)
    pattern = jax.random.normal(of_class, (classes, 1, *shape))
    x = pattern + spread * jax.random.normal(of_sample, (classes, per_class, *shape))
    y = jnp.repeat(jnp.arange(classes, dtype=jnp.int32), per_class)
    return Virtual(x.reshape(classes * per_class, *shape), y)


def vhl(
    apply: Callable[[PyTree, jax.Array], tuple[jax.Array, jax.Array]],
    virtual: Virtual,
    *,
    batch: int,
    alpha: float = 1.0,
    lam: float = 0.1,
    temperature: float = 0.1,
) -> GradFn:
    """Makes the gradient function of virtual homogeneity learning, for any federated algorithm.

    A client minimises ``CE(real) + alpha CE(virtual) + lam match(real, virtual)``: the virtual
    samples are a task that all clients have in common, and matching pulls the features of real
    samples to those of virtual ones of the same class, which are the same everywhere. In the paper
    the samples come from an untrained StyleGAN with noise of its own for each class, or are plain
    noise; here they are Gaussian (`gaussian_classes`), or what is given. The paper matches the
    features of each class by a contrastive loss over real and virtual samples; here real ones are
    contrasted with virtual ones (`match`), whose features are held fixed, in all local epochs.

    Args:
      apply: ``(params, x) -> (features [batch, width], logits [batch, classes])``.
      virtual: the virtual data set.
      batch: virtual samples of a step, drawn at random.
      alpha: weight of the loss on virtual samples, >= 0.
      lam: weight of the matching of features, >= 0; with ``alpha`` also 0 it is FedAvg.
      temperature: of the matching, > 0.

    Returns:
      A gradient function over batches ``{"x", "y"}``; it needs a key. Its metrics are ``"loss"`` on
      the real samples, ``"virtual"`` and ``"match"``.

    Raises:
      ValueError: a weight is negative, or the temperature not positive.

    References:
      Tang et al., Virtual Homogeneity Learning: Defending against Data Heterogeneity in Federated
      Learning, 2022.
    """
    if alpha < 0 or lam < 0 or temperature <= 0:
        raise ValueError(
            "alpha and lam must be >= 0 and temperature > 0; "
            f"got {alpha!r}, {lam!r} and {temperature!r}"
        )

    def loss(params, real, drawn):
        features, logits = apply(params, real["x"])
        virtual_features, virtual_logits = apply(params, drawn.x)
        terms = {
            "loss": _cross_entropy(logits, real["y"]),
            "virtual": _cross_entropy(virtual_logits, drawn.y),
            "match": match(
                features, real["y"], jax.lax.stop_gradient(virtual_features), drawn.y, temperature
            ),
        }
        return terms["loss"] + alpha * terms["virtual"] + lam * terms["match"], terms

    def grad_fn(params, real, key):
        chosen = jax.random.randint(key, (batch,), 0, len(virtual.y))
        drawn = Virtual(*(a[chosen] for a in virtual))
        return jax.grad(loss, has_aux=True)(params, real, drawn)

    return grad_fn


def match(
    features: jax.Array,
    labels: jax.Array,
    virtual_features: jax.Array,
    virtual_labels: jax.Array,
    temperature: float,
) -> jax.Array:
    """Measures how far features are from those of virtual samples of their class.

    The supervised contrastive loss with real samples as anchors: minus the mean logarithm of the
    softmax, over the virtual samples, of cosine similarity by temperature, at those of the class.

    Args:
      features: ``[n, width]``.
      labels: ``[n]``.
      virtual_features: ``[m, width]``.
      virtual_labels: ``[m]``.
      temperature: > 0.

    Returns:
      The mean over the samples whose class is among the virtual ones; 0 if there are none.

    References:
      Khosla et al., Supervised Contrastive Learning, 2020.

    Example:
      >>> x, y = jnp.eye(2), jnp.arange(2)
      >>> near, far = match(x, y, x, y, 0.1), match(x, y, x[::-1], y, 0.1)
      >>> round(float(near), 3), round(float(far), 3)
      (0.0, 10.0)
    """
    similarity = _unit(features) @ _unit(virtual_features).T / temperature
    same = (labels[:, None] == virtual_labels[None]).astype(similarity.dtype)
    positives = same.sum(1)
    each = -(same * jax.nn.log_softmax(similarity, 1)).sum(1) / jnp.maximum(positives, 1)
    return each.sum() / jnp.maximum((positives > 0).sum(), 1)


def price_virtual(virtual: Virtual, clients: int) -> Ledger:
    """Books the virtual samples, which every client gets once; or send a generator and a seed.

    Args:
      virtual: the virtual data set.
      clients: how many get it.

    Returns:
      Messages of kind ``"data"`` from the cloud to the clients.

    Example:
      >>> virtual = gaussian_classes(jax.random.key(0), (8, 8), classes=10, per_class=5)
      >>> price_virtual(virtual, clients=4)[0].nbytes  # 50 * (64 + 1) * 4
      13000
    """
    return record((), "cloud", "end", "data", "virtual samples", trees.nbytes(virtual), clients)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.sqrt(jnp.square(x).sum(1, keepdims=True) + 1e-12)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
