"""What stands before the first step: the system, who has which samples, the model."""

import zlib
from typing import NamedTuple

import jax
import numpy as np

from eejax import data, models, tiers
from eejax.core import Codec, StagedModel
from eejax.coupdate import NewData
from eejax.experiment.runs.lifecycle.config import Lifecycle, System
from eejax.wire import from_name

Samples = dict[str, np.ndarray]
"""``{"x": uint8 [n, height, width, channels], "y": int32 [n]}``."""


class Setting(NamedTuple):
    """What never changes during a run.

    Attributes:
      config: the fields.
      topology: the modelled system of the tiers end, edge and cloud.
      model: the three-exit CNN.
      classes: names of the classes.
      past: what the devices had before the drift.
      new: what they get after it, drifted, to learn from.
      new_validation: some more of these, which the operator gets to choose thresholds by.
      validation: in the cloud, to choose thresholds by.
      memory: in the cloud, to replay.
      test: the old world.
      drifted: the same samples in the new world.
      counts: past samples of each device and class, ``[ends, classes]``.
      feature_codec: what features pass on their way up.
    """

    config: Lifecycle
    topology: tiers.Topology
    model: StagedModel
    classes: tuple[str, ...]
    past: NewData
    new: NewData
    new_validation: Samples
    validation: Samples
    memory: Samples
    test: Samples
    drifted: Samples
    counts: np.ndarray
    feature_codec: Codec

    def key(self, purpose: str) -> jax.Array:
        """Gives the key of a purpose, which depends on the seed and its name alone."""
        return jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(purpose.encode()))

    @property
    def ends(self) -> int:
        """Number of end devices."""
        return self.topology.tiers[0].nodes


def make_setting(config: Lifecycle) -> Setting:
    """Loads and splits the data, and builds system and model.

    Args:
      config: the fields.

    Returns:
      The setting.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a field is out of range; names it.
    """
    topology = _topology(config.system)
    ends = topology.tiers[0].nodes
    pool = data.load(config.data.name, f"train{config.data.train}", config.data.directory)
    test = data.load(config.data.name, f"test{config.data.test}", config.data.directory)
    change = data.drift_from_name(config.drift.kind, config.drift.severity, config.seed)
    classes = len(pool.info.classes)

    def samples(source: data.DataSource, indices: np.ndarray, drifted: bool = False) -> Samples:
        images = source.images[indices]
        return {"x": change(images) if drifted else images, "y": source.labels[indices]}

    held = config.data.validation + config.data.memory
    if len(pool.labels) < held + 4 * ends:
        raise ValueError(
            f"data: {len(pool.labels)} training samples do not suffice for validation "
            f"{config.data.validation}, memory {config.data.memory} and {ends} devices"
        )
    order = np.random.default_rng(config.seed).permutation(len(pool.labels))
    cloud, devices = order[:held], order[held:]
    partition = data.partitioner_from_name(config.data.partition)
    parts = [devices[part] for part in partition(pool.labels[devices], ends, config.seed)]
    cuts = [_new_of(len(part), config.data.new_share) for part in parts]
    past = [part[: len(part) - cut] for part, cut in zip(parts, cuts)]
    new = [part[len(part) - cut :] for part, cut in zip(parts, cuts)]
    learnt = [row[: len(row) - len(row) // 4] for row in new]
    checked = np.concatenate([row[len(row) - len(row) // 4 :] for row in new])

    def fleet(rows: list[np.ndarray], drifted: bool) -> NewData:
        ends_of_rows = np.cumsum([len(row) for row in rows])[:-1]
        where = np.split(np.arange(sum(map(len, rows))), ends_of_rows)
        return NewData(samples(pool, np.concatenate(rows), drifted), data.pack(where))

    everything = np.arange(len(test.labels))
    return Setting(
        config=config,
        topology=topology,
        model=models.branchy_cnn(classes, tuple(config.widths)),
        classes=pool.info.classes,
        past=fleet(past, drifted=False),
        new=fleet(learnt, drifted=True),
        new_validation=samples(pool, checked, drifted=True),
        validation=samples(pool, cloud[: config.data.validation]),
        memory=samples(pool, cloud[config.data.validation :]),
        test=samples(test, everything),
        drifted=samples(test, everything, drifted=True),
        counts=data.label_distribution(pool.labels, past, classes),
        feature_codec=from_name(config.coinfer.codec),
    )


def _new_of(count: int, share: float) -> int:
    if not 0 < share < 1:
        raise ValueError(f"data.new_share must be in (0, 1), got {share!r}")
    return min(max(1, round(share * count)), count - 1)


def _topology(system: System) -> tiers.Topology:
    if system.file is not None:
        topology = tiers.from_toml(system.file)
    else:
        topology = tiers.three_tier(
            system.ends,
            system.edges,
            end_devices=system.end_devices,
            end_edge=system.end_edge,
            edge_cloud=system.edge_cloud,
        )
    if topology.names != ("end", "edge", "cloud"):
        raise ValueError(
            f"system.file: the tiers must be end, edge and cloud, got {', '.join(topology.names)}"
        )
    return topology
