"""How much every client trains in a round, when that is counted in epochs and not in steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Epochs(NamedTuple):
    """Local training by epochs: a client of ``n`` samples takes ``epochs * ceil(n / batch)`` steps.

    Clients that cannot keep up do partial work: a number of epochs drawn from 1 to ``epochs``.

    Attributes:
      epochs: of a round, at least 1.
      stragglers: probability that a client is one, drawn anew for each client and round.
      drop: whether what stragglers did is thrown away, as a server with a deadline does.

    References:
      Partial work: Li et al., Federated Optimization in Heterogeneous Networks, 2020.
    """

    epochs: int
    stragglers: float = 0.0
    drop: bool = False


def check_steps(steps: int | Epochs) -> None:
    """Refuses impossible amounts of local training.

    Args:
      steps: local steps of a round, or `Epochs`.

    Raises:
      ValueError: steps or epochs are below 1, or ``stragglers`` is no probability.
    """
    if span(steps) < 1:
        name = "epochs" if isinstance(steps, Epochs) else "steps"
        raise ValueError(f"{name} must be at least 1, got {span(steps)!r}")
    if isinstance(steps, Epochs) and not 0 <= steps.stragglers <= 1:
        raise ValueError(f"stragglers must be a probability, got {steps.stragglers!r}")


def span(steps: int | Epochs) -> int:
    """Tells by how much a round moves the count of steps, or of epochs.

    Args:
      steps: local steps of a round, or `Epochs`.

    Returns:
      Steps or epochs of a round.
    """
    return steps.epochs if isinstance(steps, Epochs) else steps


def most_steps(steps: int | Epochs, n_max: int, batch: int) -> int:
    """Counts the steps of the client that takes most.

    Args:
      steps: local steps of a round, or `Epochs`.
      n_max: samples of the largest client.
      batch: samples of a step.

    Returns:
      A number known before anything is compiled.

    Example:
      >>> most_steps(5, n_max=100, batch=10), most_steps(Epochs(2), n_max=101, batch=10)
      (5, 22)
    """
    return steps.epochs * -(-n_max // batch) if isinstance(steps, Epochs) else steps


def own_steps(
    work: Epochs, count: jax.Array, start: jax.Array, batch: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Tells where a client begins and how far it goes.

    Args:
      work: the epochs of a round.
      count: samples of the client.
      start: epochs before this round; each round begins a new one, even after partial work.
      batch: samples of a step.
      key: of the client and the round.

    Returns:
      Steps before this round had all work been whole, and ``tau``, the steps of this one; 0 for a
      client without samples or one that is dropped.

    Example:
      >>> begin, tau = own_steps(Epochs(2), jnp.array(25), jnp.array(4), 10, jax.random.key(0))
      >>> int(begin), int(tau)
      (12, 6)
    """
    epoch = -(-count // batch)
    done = work.epochs
    if work.stragglers > 0:
        who, how_far = jax.random.split(key)
        late = jax.random.bernoulli(who, work.stragglers)
        partial = 0 if work.drop else jax.random.randint(how_far, (), 1, work.epochs + 1)
        done = jnp.where(late, partial, work.epochs)
    return start * epoch, done * epoch
