"""Measures layers, prefixes and this machine: the profiles and devices that pricing starts from."""

import dataclasses
import json
import os
import platform
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eejax import trees
from eejax.core import StagedModel
from eejax.models.staged import owned, run_stage
from eejax.partition.graph import Layer, LayerGraph, Tensor, check
from eejax.partition.profile import Profile, to_profile
from eejax.partition.staged import INPUT, from_staged
from eejax.tiers.cost import work_of
from eejax.tiers.nodes import Device

PyTree = Any

Chain = Mapping[str, tuple[Callable[[PyTree, Any], Any], PyTree]]
"""``{name: (apply, params)}`` in the order in which they run, each ``apply(params, x) -> y``."""

_SIDE = 1024  # Of the square matrices whose product is timed.
_SWEEP = 2**24  # float32 values that are read and written: 64 MiB, more than caches hold.


def time_calls(
    calls: Sequence[Callable[[], Any]], *, repeats: int = 20, warmup: int = 3
) -> np.ndarray:
    """Times calls in turns, so that a slow moment of the machine meets all of them.

    Args:
      calls: functions without arguments; what they give is waited for.
      repeats: timed rounds.
      warmup: rounds before, in which programs compile and caches fill.

    Returns:
      Seconds ``[repeats, calls]``.

    Raises:
      ValueError: a number is out of range.

    Example:
      >>> time_calls([lambda: jnp.zeros(4)], repeats=5).shape
      (5, 1)
    """
    for name, value, least in (("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < least:
            raise ValueError(f"{name} must be >= {least}, got {value}")
    seconds = np.empty((repeats, len(calls)))
    for round_ in range(-warmup, repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            if round_ >= 0:
                seconds[round_, i] = time.perf_counter() - start
    return seconds


def profile_chain(
    chain: Chain, x: Any, *, device: str = "this machine", repeats: int = 20, warmup: int = 3
) -> dict[str, Any]:
    """Measures each layer of a chain alone, on this machine.

    Args:
      chain: the layers; each reads what the one before made.
      x: one sample ``[1, ...]``, in the dtype in which it leaves the sensor.
      device: name of the device in the profile.
      repeats: timed rounds, of which the median counts.
      warmup: rounds before.

    Returns:
      A profile, as `from_profile` reads it.

    Raises:
      ValueError: the chain is empty, or a number is out of range.

    Example:
      >>> chain = {"double": (lambda w, x: w * x, jnp.ones(())), "sum": (lambda _, x: x.sum(), ())}
      >>> profile = profile_chain(chain, jnp.ones((1, 4)), repeats=3)
      >>> [(row["name"], row["parameter_bytes"]) for row in profile["layers"]]
      [('double', 4), ('sum', 0)]
    """
    layers, tensors = [], []
    names = [INPUT, *chain]
    value = x
    for i, (name, (apply, params)) in enumerate(chain.items()):
        tensors.append(Tensor(names[i], i - 1, (i,), trees.nbytes(value)))
        layers.append(Layer(name, *work_of(apply, params, value), trees.nbytes(params)))
        value = jax.eval_shape(apply, params, value)
    graph = check(LayerGraph(tuple(layers), tuple(tensors), "function of a chain"))
    return _profile(graph, chain, x, device, repeats, warmup)


def profile_staged(
    model: StagedModel,
    params: dict[str, PyTree],
    x: Any,
    *,
    device: str = "this machine",
    repeats: int = 20,
    warmup: int = 3,
) -> dict[str, Any]:
    """Measures each stage of a model, with its exit, for one sample on this machine.

    Args:
      model: a staged model.
      params: its parameters.
      x: inputs ``[batch, ...]``, of which the first is taken, in the dtype of the sensor.
      device: name of the device in the profile.
      repeats: timed rounds, of which the median counts.
      warmup: rounds before.

    Returns:
      A profile, as `from_profile` reads it, of the graph that `from_staged` gives.

    Raises:
      ValueError: parameters are missing, or a number is out of range.
    """
    graph = from_staged(model, params, x)
    return _profile(graph, chain_of(model, params), x[:1], device, repeats, warmup)


def chain_of(model: StagedModel, params: dict[str, PyTree]) -> Chain:
    """Takes a staged model as a chain of features; the exits run with their stages.

    Args:
      model: a staged model.
      params: its parameters.

    Returns:
      One function a stage, ``(own params, x) -> (features, logits or None)``; a chain whose next
      function reads the features.
    """

    def stage(i: int) -> Callable[[PyTree, Any], Any]:
        def apply(own, x):
            return run_stage(model, i, own, x[0] if isinstance(x, tuple) else x)

        return apply

    return {
        row.name: (stage(i), {name: params[name] for name in owned(model, i)})
        for i, row in enumerate(model.stages)
    }


def prefix_times(chain: Chain, x: Any, *, repeats: int = 20, warmup: int = 3) -> np.ndarray:
    """Measures ``T(1, i)``: the layers 1 to ``i`` of a chain as one program, for each ``i``.

    Args:
      chain: the layers, as for `profile_chain` or from `chain_of`.
      x: one sample ``[1, ...]``.
      repeats: timed rounds.
      warmup: rounds before.

    Returns:
      Seconds ``[repeats, layers]``, for `estimate.prefix_seconds`.

    Raises:
      ValueError: a number is out of range.
    """
    applies = [apply for apply, _ in chain.values()]
    params = [own for _, own in chain.values()]

    def prefix(count: int) -> Callable[[], Any]:
        @jax.jit
        def run(params, x):
            for apply, own in zip(applies[:count], params):
                x = apply(own, x)
            return x

        return lambda: run(params[:count], x)

    return time_calls([prefix(i + 1) for i in range(len(chain))], repeats=repeats, warmup=warmup)


def measure_device(name: str, *, idle_w: float, busy_w: float, repeats: int = 10) -> Device:
    """Measures the compute, memory bandwidth and launch overhead of this machine.

    FLOP/s are from the median time of a product of 1024 x 1024 float32 matrices, bytes/s from that
    of an addition to 64 MiB of float32 in place, and the overhead from that of one to a single
    number. Layers stay below such numbers: `estimate.fit_device` fits them to a profile.

    Args:
      name: of the device.
      idle_w: power at rest in watts, which is not measured.
      busy_w: power under full load in watts, which is not measured.
      repeats: timed rounds.

    Returns:
      The device, whose source tells the processor.

    Raises:
      ValueError: a number is out of range.
    """
    square, number = jnp.ones((_SIDE, _SIDE)), jnp.ones(())
    product, add = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    # In place: pages of a fresh result would cost more than the sweep itself.
    in_place, held = jax.jit(lambda x: x + 1, donate_argnums=0), [jnp.ones(_SWEEP)]

    def sweep() -> jax.Array:
        held[0] = in_place(held[0])
        return held[0]

    work = time_calls([lambda: product(square, square), sweep], repeats=repeats)
    product_s, sweep_s = np.median(work, 0).tolist()
    launch_s = float(np.median(time_calls([lambda: add(number)], repeats=10 * repeats)))
    return Device(
        name=name,
        flops_per_s=2 * _SIDE**3 / product_s,
        memory_bandwidth_bytes_per_s=2 * 4 * _SWEEP / sweep_s,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        idle_w=idle_w,
        busy_w=busy_w,
        overhead_s=launch_s,
        source=f"{measured_on()}; power as given",
    )


def measured_on() -> str:
    """Tells the processor and the number of its cores, as the source of measurements.

    Returns:
      Such as ``"measured on <processor>, 4 cores, cpu backend"``.
    """
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"measured on {processor}, {os.cpu_count()} cores, {jax.default_backend()} backend"


def write_device(device: Device, path: str | os.PathLike) -> None:
    """Writes a device as a TOML or JSON file; its fields also fit a topology file.

    Args:
      device: a single device.
      path: ends in ``.toml`` or ``.json``.

    Raises:
      ValueError: the path ends otherwise, or the device stands for many nodes.
    """
    if np.ndim(device.name):
        raise ValueError("device must be a single one, not many nodes")
    fields = {
        name: value if isinstance(value, str) else float(value)
        for name, value in ((f.name, getattr(device, f.name)) for f in dataclasses.fields(device))
    }
    if _suffix(path) == ".json":
        text = json.dumps(fields, indent=2) + "\n"
    else:  # A JSON string or number is one of TOML, too.
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    Path(path).write_text(text, encoding="utf-8")


def read_device(path: str | os.PathLike) -> Device:
    """Reads a device that `write_device` wrote.

    Args:
      path: ends in ``.toml`` or ``.json``.

    Returns:
      The device.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the path ends otherwise, or a field is unknown, missing or wrong.
    """
    parse = json.loads if _suffix(path) == ".json" else tomllib.loads
    try:
        return Device(**parse(Path(path).read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:  # Parsers and fields; a TypeError names the field.
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _suffix(path: str | os.PathLike) -> str:
    suffix = Path(path).suffix
    if suffix not in (".toml", ".json"):
        raise ValueError(f"path of a device must end in .toml or .json, got {os.fspath(path)!r}")
    return suffix


def _profile(
    graph: LayerGraph, chain: Chain, x: Any, device: str, repeats: int, warmup: int
) -> dict[str, Any]:
    calls = []
    for apply, params in chain.values():
        run = jax.jit(apply)
        calls.append(lambda run=run, params=params, x=x: run(params, x))
        x = run(params, x)
    seconds = np.median(time_calls(calls, repeats=repeats, warmup=warmup), 0)
    source = f"{measured_on()}, median of {repeats} runs of one sample"
    return to_profile(Profile(graph, {device: seconds}, source))
