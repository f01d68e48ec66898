"""FAug: clients upload seeds, the server fits a generator, and clients fill up their classes."""

from typing import Any, NamedTuple

import numpy as np

from eejax import trees
from eejax.data import ClientIndex, pack
from eejax.tiers import Ledger, record

PyTree = Any


class Generator(NamedTuple):
    """A Gaussian for each class in the principal components of the seeds; f32, what clients get.

    Attributes:
      mean: ``[d]``, of all seeds.
      basis: ``[components, d]``, orthonormal.
      centre: ``[classes, components]``; NaN for classes without a seed.
      factor: ``[classes, components, components]``, Cholesky factors of the covariances.
      low: least value of any seed, [].
      high: greatest one, [].
    """

    mean: np.ndarray
    basis: np.ndarray
    centre: np.ndarray
    factor: np.ndarray
    low: np.ndarray
    high: np.ndarray


def draw_seeds(index: ClientIndex, labels: Any, seeds: int, seed: int) -> ClientIndex:
    """Chooses what every client uploads: up to so many samples of each of its classes.

    Args:
      index: the clients' samples.
      labels: ``[n]``.
      seeds: samples of each class and client at most.
      seed: of `numpy.random.default_rng`.

    Returns:
      Positions of the uploaded samples by client.

    Example:
      >>> draw_seeds(pack([[0, 1, 2], [3]]), [0, 0, 1, 1], seeds=1, seed=0).counts
      array([2, 1], dtype=int32)
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    uploads = []
    for row, count in zip(np.asarray(index.table), np.asarray(index.counts)):
        own = rng.permutation(row[:count])
        chosen = [own[labels[own] == label][:seeds] for label in np.unique(labels[own])]
        uploads.append(np.concatenate([*chosen, np.zeros(0, np.int64)]).astype(np.int64))
    return pack(uploads)


def fit_generator(
    x: Any, labels: Any, classes: int, components: int = 20, shrinkage: float = 0.5
) -> Generator:
    """Fits the server's generator to the seeds.

    The covariance of a class has few seeds to go by, and is drawn towards that within all classes.

    Args:
      x: seeds ``[n, ...]``, floats.
      labels: ``[n]``.
      classes: number of classes.
      components: principal components, at most ``n - 1`` and the width of a sample.
      shrinkage: weight of the covariance within all classes, in [0, 1].

    Returns:
      The generator.

    Raises:
      ValueError: there are fewer than two seeds, or ``shrinkage`` is out of range.

    Example:
      >>> x = np.array([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0], [4.0, 3.0]])
      >>> generator = fit_generator(x, [0, 0, 1, 1], classes=2, components=2)
      >>> (generator.centre @ generator.basis + generator.mean).round(3).tolist()
      [[0.0, 2.0], [4.0, 2.0]]
    """
    x, labels = np.asarray(x, np.float64), np.asarray(labels)
    x = x.reshape(len(x), -1)
    if len(x) < 2 or not 0 <= shrinkage <= 1:
        raise ValueError(
            f"two seeds are needed and shrinkage in [0, 1]; got {len(x)} and {shrinkage!r}"
        )
    mean = x.mean(0)
    basis = np.linalg.svd(x - mean, full_matrices=False)[2][: min(components, len(x) - 1)]
    z, k = (x - mean) @ basis.T, len(basis)
    members = [z[labels == c] for c in range(classes)]
    centre = np.stack([m.mean(0) if len(m) else np.full(k, np.nan) for m in members])
    within = z - centre[labels]
    pooled = within.T @ within / len(z)
    tiny = 1e-9 * max(np.trace(pooled), 1e-9) * np.eye(k)
    factors = []
    for m, mu in zip(members, centre):
        own = (m - mu).T @ (m - mu) / len(m) if len(m) else pooled
        factors.append(np.linalg.cholesky((1 - shrinkage) * own + shrinkage * pooled + tiny))
    parts = (mean, basis, centre, np.stack(factors), x.min(), x.max())
    return Generator(*(np.asarray(part, np.float32) for part in parts))


def generate(generator: Generator, labels: Any, rng: np.random.Generator) -> np.ndarray:
    """Draws a sample for each label.

    Args:
      generator: from `fit_generator`.
      labels: ``[n]``, of classes that have seeds.
      rng: of the draws.

    Returns:
      f32 ``[n, d]``, within the range of the seeds.
    """
    labels = np.asarray(labels, np.int64)
    noise = rng.normal(size=(len(labels), len(generator.basis))).astype(np.float32)
    z = generator.centre[labels] + np.einsum("nij,nj->ni", generator.factor[labels], noise)
    return np.clip(z @ generator.basis + generator.mean, generator.low, generator.high)


def faug(
    data: dict[str, Any],
    index: ClientIndex,
    generator: Generator,
    seed: int,
    level: float = 1.0,
) -> tuple[dict[str, np.ndarray], ClientIndex]:
    """Lets every client generate the classes that it lacks, until its data are IID by label.

    The paper: a client finds the classes that it lacks, uploads a few seed samples of them (and of
    others, to hide which), the server oversamples the seeds, trains a conditional GAN on them and
    sends the generator back; clients generate until they have as many samples of each class.
    Here the seeds are of every class that a client has (`draw_seeds`), since a client of two
    classes has none of the others. There is no oversampling by image search, and the generator is
    a Gaussian for each class over principal components (`fit_generator`), not a GAN: a few tens of
    seeds determine it and it is fitted in milliseconds, but it blurs what is not near-linear.

    Args:
      data: ``{"x": [n, ...], "y": [n]}``, ``x`` in the units that the generator was fitted in.
      index: the clients' samples.
      generator: what the server sent.
      seed: of `numpy.random.default_rng`; every client has a stream of its own.
      level: classes are filled up to this share of the client's largest one, in [0, 1]; with 0
        nothing is generated, which is FedAvg.

    Returns:
      The data with the generated samples behind, and the index over both.

    Raises:
      ValueError: ``level`` is out of range.

    References:
      Jeong et al., Communication-Efficient On-Device Machine Learning: Federated Distillation and
      Augmentation under Non-IID Private Data, 2018.

    Example:
      >>> x = np.array([[0.0], [1.0], [9.0], [8.0]], np.float32)
      >>> data = {"x": x, "y": np.array([0, 0, 1, 1])}
      >>> generator = fit_generator(data["x"], data["y"], classes=2)
      >>> grown, index = faug(data, pack([[0, 1], [2, 3]]), generator, seed=0)
      >>> grown["y"][index.table].tolist()
      [[0, 0, 1, 1], [1, 1, 0, 0]]
    """
    if not 0 <= level <= 1:
        raise ValueError(f"level must be in [0, 1], got {level!r}")
    x, y = np.asarray(data["x"]), np.asarray(data["y"])
    known = np.isfinite(generator.centre).all(1)
    xs, ys, parts, n = [x], [y], [], len(y)
    for client, (row, count) in enumerate(zip(np.asarray(index.table), np.asarray(index.counts))):
        have = np.bincount(y[row[:count]], minlength=len(known))
        lack = np.where(known, np.maximum(round(level * have.max()) - have, 0), 0)
        labels = np.repeat(np.arange(len(known)), lack)
        made = generate(generator, labels, np.random.default_rng((seed, client)))
        xs.append(made.reshape(len(labels), *x.shape[1:]).astype(x.dtype))
        ys.append(labels.astype(y.dtype))
        parts.append(np.append(row[:count], n + np.arange(len(labels))))
        n += len(labels)
    return {**data, "x": np.concatenate(xs), "y": np.concatenate(ys)}, pack(parts)


def price_faug(uploads: ClientIndex, generator: Generator, data: PyTree) -> Ledger:
    """Books what travels before training begins.

    Args:
      uploads: seeds of each client, from `draw_seeds`.
      generator: what every client gets.
      data: ``{"x": [n, ...], "y": [n]}``.

    Returns:
      Raw seeds from end to cloud, of kind ``"data"``, a message a sample; and the generator down.

    Example:
      >>> data = {"x": np.zeros((9, 16), np.uint8), "y": np.zeros(9, np.int32)}
      >>> uploads = pack([[0, 1], [2]])
      >>> generator = fit_generator(np.eye(3), [0, 1, 1], classes=2)
      >>> [(t.kind, t.nbytes, t.count) for t in price_faug(uploads, generator, data)]
      [('data', 20, 3), ('information', 92, 2)]
    """
    sample = trees.nbytes({name: data[name] for name in ("x", "y")}) // len(data["y"])
    ledger = record((), "end", "cloud", "data", "seeds", sample, int(uploads.counts.sum()))
    size = trees.nbytes(generator)
    return record(ledger, "cloud", "end", "information", "generator", size, len(uploads.counts))
