"""User-level differential privacy: any federated algorithm, clipped clients, a noisy mean."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax.core import FederatedAlgorithm
from eejax.protect.accountant import PrivacySpent, Sampling
from eejax.protect.clip import check_bound, clip_by_norm
from eejax.protect.gaussian_noise import add_noise

PyTree = Any


class AdaptiveClip(NamedTuple):
    """A clipping bound that follows a quantile of the norms, itself found privately.

    Attributes:
      quantile: gamma, share of the clients that the bound should not cut.
      learning_rate: eta_C, step of the logarithm of the bound.
      initial: S_0, the first bound.
      bit_noise: sigma_b, deviation of the noise on the number of uncut clients; a twentieth of the
        cohort is the paper's choice.
    """

    quantile: float = 0.5
    learning_rate: float = 0.2
    initial: float = 0.1
    bit_noise: float = 5.0


class PrivateState(NamedTuple):
    """What the server keeps.

    Attributes:
      inner: state of the algorithm.
      bound: f32, the clipping bound S.
      spent: rounds, noise and rate until now.
    """

    inner: PyTree
    bound: jax.Array
    spent: PrivacySpent

    @property
    def params(self) -> PyTree:
        """The global model."""
        return self.inner.params


def user_level_dp(
    algorithm: FederatedAlgorithm,
    how: Sampling,
    key: jax.Array,
    *,
    noise_multiplier: float,
    bound: float | AdaptiveClip,
) -> FederatedAlgorithm:
    """Makes DP-FedAvg of any algorithm: its global model hides whether a client took part.

    Every client cuts its whole upload to the norm S. The server divides the sum by the *expected*
    size of a cohort, so that one client moves it by at most ``S / cohort``, and adds normal noise
    of deviation ``noise_multiplier * S / cohort`` to every element. Clients count alike.

    ``how`` must be what the engine simulates; ask `check_sampler`. ``how.clients`` counts the
    clients that have samples. Rounds whose cohort is empty are noised and counted as all others. A
    lossy codec of the uploads may lengthen them: put `clip` first in
    its chain, which cuts again on decoding (with a fixed bound only). The server must be trusted
    with single uploads, or see only sums (`secagg`).

    The noise multiplier of a run that is resumed is the one in its state, not a new one. With an
    `AdaptiveClip`, it covers both the mean and the count of uncut clients, and what clients receive
    is ``(broadcast, S)``.

    Args:
      algorithm: a federated algorithm.
      how: sampler and neighbouring relation.
      key: key of the noise; rounds fold their number in.
      noise_multiplier: sigma, see `calibrate`; 0 only clips.
      bound: clipping bound S.

    Returns:
      The algorithm. Its server state holds `PrivacySpent`; its metrics have the share of clients
      that were ``clipped``, which is not private.

    Raises:
      ValueError: a number is out of range; in ``local_update``, a leaf of the upload is not
        floating.

    References:
      McMahan et al., Learning Differentially Private Recurrent Language Models, 2018. Adaptive
      clipping: Andrew et al., Differentially Private Learning with Adaptive Clipping, 2021.

    Example:
      >>> import optax
      >>> from eejax.cotrain.federated import fedavg
      >>> from eejax.protect.accountant import sampling
      >>> plain = fedavg(lambda w, batch, key: (w - batch.mean(), {}), optax.sgd(0.5))
      >>> how = sampling("poisson", "add or remove one", clients=1000, cohort=100)
      >>> private = user_level_dp(plain, how, jax.random.key(0), noise_multiplier=1.0, bound=0.3)
      >>> state = private.init(jnp.array(0.0))
      >>> batches = jnp.array([[4.0]])  # Alone it would go to 2.
      >>> upload, _, _ = private.local_update(private.broadcast(state), (), batches, None)
      >>> state = private.server_update(state, 0.1 * upload)  # One in ten took part.
      >>> round(float(upload), 3), int(state.spent.rounds), round(float(state.params), 1)
      (0.3, 1, 0.3)
    """
    adaptive = bound if isinstance(bound, AdaptiveClip) else None
    check_bound(adaptive.initial if adaptive else bound)
    if not 0 <= noise_multiplier < float("inf"):
        raise ValueError(f"noise_multiplier must be at least 0, got {noise_multiplier!r}")
    if adaptive and not 2 * adaptive.bit_noise > noise_multiplier:
        raise ValueError(
            "bit_noise must be above noise_multiplier / 2, or the count alone spends the budget; "
            f"got bit_noise={adaptive.bit_noise!r} and noise_multiplier={noise_multiplier!r}"
        )

    def init(params):
        first = jnp.float32(adaptive.initial if adaptive else bound)
        numbers = jnp.int32(0), jnp.float32(noise_multiplier), jnp.float32(how.rate)
        return PrivateState(algorithm.init(params), first, PrivacySpent(*numbers))

    def broadcast(state):
        inner = algorithm.broadcast(state.inner)
        return (inner, state.bound) if adaptive else inner

    def local_update(broadcast, client_state, batches, key, **tau):
        inner, most = broadcast if adaptive else (broadcast, bound)
        sent, client_state, metrics = algorithm.local_update(
            inner, client_state, batches, key, **tau
        )
        for x in jax.tree.leaves(sent):
            if not jnp.issubdtype(x.dtype, jnp.floating):
                raise ValueError(f"noise needs uploads of floating leaves, got {x.dtype}")
        sent, norm = clip_by_norm(sent, most)
        cut = ~(norm <= most)
        metrics = metrics | {"clipped": cut.astype(jnp.float32)}
        # Of -1/2 or 1/2 one client moves the sum by half as much as of 0 or 1.
        return ((sent, 0.5 - cut) if adaptive else sent), client_state, metrics

    def server_update(state, mean):
        # The mean is over all clients, the estimate over the expected size of a cohort.
        mean = jax.tree.map(lambda x: (x / how.rate).astype(x.dtype), mean)
        sigma, most = state.spent.noise_multiplier, state.bound
        mean_key, bit_key = jax.random.split(jax.random.fold_in(key, state.spent.rounds))
        if adaptive:
            mean, bit = mean
            bit = add_noise(bit, adaptive.bit_noise / how.cohort, bit_key) + 0.5
            most = most * jnp.exp(-adaptive.learning_rate * (bit - adaptive.quantile))
            # What is left of sigma when the count has taken its part.
            sigma = sigma / jnp.sqrt(1 - (sigma / (2 * adaptive.bit_noise)) ** 2)
        mean = add_noise(mean, sigma * state.bound / how.cohort, mean_key)
        spent = state.spent._replace(rounds=state.spent.rounds + 1)
        return PrivateState(algorithm.server_update(state.inner, mean), most, spent)

    def upload(params):
        inner = algorithm.upload(params)
        return (inner, jnp.float32(0)) if adaptive else inner

    return FederatedAlgorithm(
        init, algorithm.client_init, local_update, server_update, broadcast, upload, "population",
        every_round=True, by_steps=algorithm.by_steps,
    )  # fmt: skip
