"""What a run of user-level differential privacy has spent, and what noise a budget needs."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from eejax.names import suggest

Draw = Literal["poisson", "fixed size without replacement"]
Relation = Literal["add or remove one", "replace one"]


class Sampling(NamedTuple):
    """Who takes part in a round, and what neighbouring data sets are.

    Attributes:
      sampler: ``"poisson"``: each client on its own with probability ``cohort / clients``; or
        ``"fixed size without replacement"``: every subset of ``cohort`` clients alike.
      relation: neighbours differ by the presence of one client (``"add or remove one"``), or one
        client has other data (``"replace one"``), which counts about twice.
      clients: number of all clients.
      cohort: clients of a round, in expectation where the number varies.
    """

    sampler: Draw
    relation: Relation
    clients: int
    cohort: float

    @property
    def rate(self) -> float:
        """Probability q of a client to take part in a round."""
        return self.cohort / self.clients


class PrivacySpent(NamedTuple):
    """What must be kept with the model to go on counting: arrays, so checkpoints hold them.

    Attributes:
      rounds: int32, releases until now.
      noise_multiplier: f32, standard deviation of the noise on the sum, over the clipping bound.
      rate: f32, probability of a client to take part.
    """

    rounds: jax.Array
    noise_multiplier: jax.Array
    rate: jax.Array


def sampling(sampler: Draw, relation: Relation, *, clients: int, cohort: float) -> Sampling:
    """States how clients are drawn, which the account depends on.

    Args:
      sampler: see `Sampling`.
      relation: see `Sampling`.
      clients: number of all clients.
      cohort: clients of a round, more than 0 and at most all; expected number with ``"poisson"``.

    Returns:
      The statement.

    Raises:
      ValueError: a name is unknown, the cohort is out of range, or no account exists.

    Example:
      >>> sampling("poisson", "add or remove one", clients=1000, cohort=100).rate
      0.1
    """
    for name, value, known in (("sampler", sampler, Draw), ("relation", relation, Relation)):
        if value not in get_args(known):
            names = get_args(known)
            raise ValueError(
                f"{name} {value!r} is none of {', '.join(names)}{suggest(str(value), names)}"
            )
    if not 0 < cohort <= clients:
        raise ValueError(f"cohort must be in (0, clients = {clients}], got {cohort!r}")
    if sampler != "poisson":
        if cohort != int(cohort):
            raise ValueError(f"cohort of {sampler} must be whole, got {cohort!r}")
        if relation != "replace one":
            raise ValueError(
                f"with {sampler} the number of clients is fixed, so relation must be 'replace one'"
            )
    return Sampling(sampler, relation, clients, cohort)


def epsilon(spent: PrivacySpent, how: Sampling, delta: float) -> float:
    """Accounts for all rounds until now.

    Poisson sampling, and rounds that all clients take part in, are composed by privacy loss
    distributions. For a fixed size without replacement, where these are not known, by Renyi
    divergences, a bound that is not tight.

    It holds for what the noise covers, the model of the server: metrics of training are not
    private. Cohorts of `cotrain.federated.samplers.poisson` have room for almost all sizes; the
    probability that one overflows, times the rounds and ``1 + exp(epsilon)``, adds to delta.

    Args:
      spent: rounds, noise and rate.
      how: the sampler that the rounds ran with; see `check_sampler`.
      delta: in (0, 1), below one over the number of clients.

    Returns:
      epsilon; infinite without noise.

    Raises:
      ValueError: ``delta`` is out of range, or the rate of the run is not that of ``how``.
      ModuleNotFoundError: dp-accounting is not installed.

    References:
      Koskela, Jalko and Honkela, Computing Tight Differential Privacy Guarantees Using FFT, 2020.
      Doroshenko et al., Connect the Dots: Tighter Discrete Approximations of Privacy Loss
      Distributions, 2022. Without replacement: Wang, Balle and Kasiviswanathan, Subsampled Renyi
      Differential Privacy and Analytical Moments Accountant, 2019.

    Example:
      >>> everybody = sampling("poisson", "add or remove one", clients=100, cohort=100)
      >>> round(epsilon(PrivacySpent(1, 1.0, everybody.rate), everybody, delta=1e-5), 3)
      4.377
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), got {delta!r}")
    if not np.isclose(float(spent.rate), how.rate, rtol=1e-5):
        raise ValueError(
            f"the run took clients with rate {float(spent.rate):.6g}, not {how.rate:.6g} of {how}"
        )
    rounds, sigma = int(spent.rounds), float(spent.noise_multiplier)
    if rounds == 0 or sigma == 0:
        return 0.0 if rounds == 0 else float("inf")
    fresh, event = _accounting(_dp_accounting(), how, rounds)
    accountant = fresh()
    accountant.compose(event(sigma))
    return float(accountant.get_epsilon(delta))


def calibrate(how: Sampling, rounds: int, epsilon: float, delta: float) -> float:
    """Finds the least noise that keeps a budget.

    Args:
      how: who takes part in a round.
      rounds: of the whole run.
      epsilon: above 0.
      delta: in (0, 1).

    Returns:
      The noise multiplier sigma: the noise on the sum is normal with ``sigma * clipping bound``.

    Raises:
      ValueError: a number is out of range.
      ModuleNotFoundError: dp-accounting is not installed.
    """
    if rounds < 1 or not epsilon > 0 or not 0 < delta < 1:
        raise ValueError(
            "rounds must be at least 1, epsilon above 0 and delta in (0, 1), got "
            f"rounds={rounds!r}, epsilon={epsilon!r} and delta={delta!r}"
        )
    dp_accounting = _dp_accounting()
    fresh, event = _accounting(dp_accounting, how, rounds)
    # The search begins at its lower end, where Renyi divergences would divide by no noise.
    bracket = dp_accounting.LowerEndpointAndGuess(0.01, 1.0)
    return dp_accounting.calibrate_dp_mechanism(
        fresh,
        lambda sigma: event(sigma) if sigma > 0.01 else dp_accounting.NonPrivateDpEvent(),
        epsilon, delta, bracket, tol=1e-4,
    )  # fmt: skip


def check_sampler(how: Sampling, sampler: Callable[..., Any], draws: int = 256) -> None:
    """Refuses to account for a sampler that is not the one that draws.

    Draws cohorts and compares, within six standard deviations, whether their sizes vary as stated
    and all clients come alike often. A test by samples: small differences escape it.

    Args:
      how: what is accounted for.
      sampler: ``(key, round, counts [clients]) -> (clients, present)``, as in
        `cotrain.federated.samplers`.
      draws: how many cohorts to draw.

    Raises:
      ValueError: the sampler draws otherwise.
    """
    n, q = how.clients, how.rate
    keys = jax.random.split(jax.random.key(0), draws)
    counts = jnp.ones(n, jnp.int32)
    drawn = jax.jit(jax.vmap(sampler, (0, 0, None)))(keys, jnp.arange(draws), counts)
    clients, there = (np.asarray(x) for x in drawn)
    sizes = there.sum(1)
    often = np.bincount(clients[there], minlength=n)
    if how.sampler != "poisson":
        if (sizes != how.cohort).any():
            raise ValueError(
                f"accounted is {how.sampler} of {how.cohort} clients, but cohorts have "
                f"{sizes.min()} to {sizes.max()}"
            )
    else:
        variance = n * q * (1 - q)
        # Of the variance of a sum of independent draws, which is near normal.
        spread = np.sqrt((2 * variance**2 + variance) / draws)
        off = abs(sizes.mean() - n * q) > 6 * np.sqrt(variance / draws)
        if off or abs(sizes.var() - variance) > 6 * spread:
            raise ValueError(
                f"accounted is poisson with cohorts of {n * q:g} +- {variance**0.5:.3g} clients, "
                f"but cohorts have {sizes.mean():g} +- {sizes.std():.3g}"
            )
    if q < 1:
        expected = draws * q * (1 - q)
        statistic = ((often - draws * q) ** 2).sum() / expected
        spread = np.sqrt(n * (2 + 1 / expected))
        if statistic - n > 6 * spread:
            raise ValueError(
                f"accounted is {how.sampler}, by which all clients come alike often, but of "
                f"{draws} rounds one client takes part in {often.min()} and one in {often.max()}"
            )


def _accounting(dp_accounting, how: Sampling, rounds: int):
    """An empty accountant, and the event of a run as a function of the noise multiplier."""
    add, replace = (
        dp_accounting.NeighboringRelation[r] for r in ("ADD_OR_REMOVE_ONE", "REPLACE_ONE")
    )
    relation = add if how.relation == "add or remove one" else replace
    gaussian = dp_accounting.GaussianDpEvent
    if how.sampler == "poisson" or how.cohort == how.clients:
        from dp_accounting.pld import PLDAccountant

        def event(sigma):
            once = dp_accounting.PoissonSampledDpEvent(how.rate, gaussian(sigma))
            return dp_accounting.SelfComposedDpEvent(once, rounds)

        return lambda: PLDAccountant(relation), event

    from dp_accounting.rdp import RdpAccountant

    def event(sigma):
        # This accountant measures noise by what replacing one changes, twice the bound.
        once = dp_accounting.SampledWithoutReplacementDpEvent(
            how.clients, int(how.cohort), gaussian(sigma / 2)
        )
        return dp_accounting.SelfComposedDpEvent(once, rounds)

    return lambda: RdpAccountant(neighboring_relation=relation), event


def _dp_accounting():
    try:
        import dp_accounting
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "accounts of privacy need dp-accounting: pip install 'eejax[privacy]'"
        ) from error
    return dp_accounting
