"""What all trainings of a run share, and what one training starts from."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax import protect, tiers, trees
from eejax.core import Codec
from eejax.cotrain.federated import Epochs
from eejax.cotrain.personal import Personal
from eejax.cotrain.skew import data_sharing
from eejax.experiment.runs.federated import bill
from eejax.experiment.runs.federated.adversaries import attack_of, labels_of
from eejax.experiment.runs.federated.checks import check_config, check_method
from eejax.experiment.runs.federated.config import Federated
from eejax.experiment.runs.federated.methods import Algorithm, Method, Shared, Task, parse_method
from eejax.experiment.runs.federated.protection import Private, private_of, secure_bytes
from eejax.experiment.runs.federated.samples import (
    Samples,
    Split,
    feature_skew_of,
    load_samples,
    pack_wide,
    see,
    split_samples,
)
from eejax.experiment.runs.federated.setting import (
    Model,
    key_of,
    make_model,
    make_task,
    make_topology,
    read_trace,
)

PyTree = Any


class Lab(NamedTuple):
    """What all trainings of a run share.

    Attributes:
      config: the fields.
      algorithms: by name.
      methods: in the order of the config.
      samples: all samples.
      model: what is trained.
      task: what algorithms are made for.
      splits: by partition, seed and whether training samples are held out to choose by.
      programs: compiled programs and counted work, used again by other seeds, partitions and
        learning rates.
    """

    config: Federated
    algorithms: Mapping[str, Algorithm]
    methods: tuple[Method, ...]
    samples: Samples
    model: Model
    task: Task
    splits: dict[tuple[str, int, bool], Split]
    programs: dict[tuple, Any]

    def made(self, method: Method, lr: Any) -> Shared | Personal:
        """Makes what a method trains; ``lr`` may be traced."""
        return self.algorithms[method.algorithm](self.task, lr, **method.options)


class Cell(NamedTuple):
    """One training.

    Attributes:
      partition: how samples are spread.
      method: what trains.
      seed: of everything.
      validate: whether it is judged by training samples that were held out.
    """

    partition: str
    method: Method
    seed: int
    validate: bool = False


class Start(NamedTuple):
    """What one training starts from.

    Attributes:
      cell: what it is.
      split: who trains and tests on what.
      topology: the system.
      params: the first model.
      key: of the training.
      codec: of uploads.
      local: local steps or epochs of a round.
      sizes: of a turn.
      turn: how long a turn of each client takes.
      faults: what goes wrong.
      arrays: all samples, with the labels that clients train on.
      there: who is there in each round, bool ``[rounds, clients]``; everybody if None.
      private: user-level privacy; None where there is none.
    """

    cell: Cell
    split: Split
    topology: tiers.Topology
    params: PyTree
    key: jax.Array
    codec: Codec
    local: int | Epochs
    sizes: bill.Sizes
    turn: tiers.Turnaround
    faults: tiers.Faults
    arrays: dict[str, np.ndarray]
    there: np.ndarray | None
    private: Private | None


def open_lab(config: Federated, algorithms: Mapping[str, Algorithm]) -> Lab:
    """Checks the config, loads the data and deals them.

    Args:
      config: the fields.
      algorithms: by name.

    Returns:
      What trainings share.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a field is wrong; names it.
    """
    check_config(config)
    attack_of(config, config.seeds[0])
    methods = tuple(parse_method(text, algorithms) for text in config.methods)
    for method in methods:
        check_method(config, method)
    protect.codec_from_name(config.codec)
    read_trace(config)
    if config.data.features:
        feature_skew_of(config, config.seeds[0])
    make_topology(config, 0)
    samples = load_samples(config)
    model = make_model(config.model, samples)
    parts = {
        (partition, seed, validate): split_samples(config, samples, partition, seed, validate)
        for partition in config.data.partitions
        for seed in config.seeds
        for validate in ((False, True) if config.rates and seed == config.seeds[0] else (False,))
    }
    train, test = (max(max(map(len, found[i])) for found in parts.values()) for i in (0, 1))
    splits = {
        name: Split(pack_wide(found[0], train), pack_wide(found[1], test), found[2])
        for name, found in parts.items()
    }
    return Lab(config, algorithms, methods, samples, model, make_task(config, model), splits, {})


def start_of(lab: Lab, cell: Cell) -> Start:
    """Prepares one training.

    Args:
      lab: from `open_lab`.
      cell: what to train.

    Returns:
      What it starts from.
    """
    config, method = lab.config, cell.method
    split = lab.splits[cell.partition, cell.seed, cell.validate]
    topology, system = make_topology(config, cell.seed), config.system
    params = lab.model.init(key_of(cell.seed, "init"))
    codec = protect.codec_from_name(config.codec)
    algorithm = lab.made(method, config.learning_rate).algorithm
    if share := method.settings.get("share", 0):
        train = data_sharing(split.train, split.shared, share, cell.seed)
        split = split._replace(train=train)
    counts = split.train.counts
    steps, local = np.full(len(counts), config.steps), config.steps
    if config.epochs:
        steps = config.epochs * -(-counts // config.batch)
        stragglers = 0.0 if method.engine == "central" else config.stragglers
        local = Epochs(config.epochs, stragglers, bool(method.settings.get("drop", 0)))
    work = once(lab, (method.text, "work"), lambda: _work_of_step(lab, algorithm, params))
    sizes = bill.sizes_of(algorithm, params, codec, work, steps)
    if method.settings.get("secure"):
        elements = trees.size(jax.eval_shape(algorithm.upload, params))
        up, down = secure_bytes(method, len(counts), elements)
        sizes = sizes._replace(up=up, down=sizes.down + down)
    private = once(
        lab, (method.text, "privacy", tuple(counts > 0)), lambda: private_of(config, method, counts)
    )
    return Start(
        cell, split, topology, params, key_of(cell.seed, "train"), codec, local, sizes,
        tiers.turnaround(topology, sizes.work, sizes.steps, sizes.down, sizes.up),
        tiers.Faults(system.jitter, system.dropout, system.duplicate),
        _arrays(lab, cell), None if method.engine == "central" else read_trace(config), private,
    )  # fmt: skip


def once(lab: Lab, name: tuple, make: Callable[[], Any]) -> Any:
    """Makes a program the first time it is asked for; its name holds all that it depends on."""
    if name not in lab.programs:
        lab.programs[name] = make()
    return lab.programs[name]


def _arrays(lab: Lab, cell: Cell) -> dict[str, np.ndarray]:
    """Makes the samples as the clients see and label them."""
    config, samples = lab.config, lab.samples
    name = cell.partition, cell.seed, cell.validate
    split, labels = lab.splits[name], samples.arrays["y"]
    images = once(
        lab, ("images", *name), lambda: see(config, samples.arrays["x"], split, cell.seed)
    )
    if cell.method.engine != "central":  # The upper bound: without attackers.
        labels = labels_of(config, split, labels, samples.classes, cell.seed)
    return {"x": images, "y": labels}


def _work_of_step(lab: Lab, algorithm: Any, params: PyTree) -> tiers.Work:
    """Asks what a local update of one step costs."""
    batches = {
        name: jax.ShapeDtypeStruct((1, lab.config.batch, *x.shape[1:]), x.dtype)
        for name, x in lab.samples.arrays.items()
    }
    sent = jax.eval_shape(lambda p: algorithm.broadcast(algorithm.init(p)), params)
    own = jax.eval_shape(algorithm.client_init, params)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return tiers.work_of(algorithm.local_update, sent, own, batches, key)
