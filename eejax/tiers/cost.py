"""Modelled latency and energy of a placed computation; nothing here is measured.

All functions are vectorised: fields of devices and links, FLOPs and bytes may be arrays that
broadcast, such as ``[nodes]`` against ``[cuts, 1]``.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from eejax.tiers.nodes import Device, Link

Estimator = Callable[[Device, Any, Any], Any]
"""``(device, flops, bytes_moved) -> seconds`` of one program, for one device or ``[nodes]``."""

Direction = Literal["up", "down"]


class Work(NamedTuple):
    """What one call of a program does.

    Attributes:
      flops: floating-point operations; a multiply-add counts as two.
      bytes_moved: bytes read from and written to memory.
    """

    flops: float
    bytes_moved: float


def roofline(device: Device, flops: Any, bytes_moved: Any) -> Any:
    """Models the time of one program by the roofline: the slower of compute and memory.

    ``max(flops / flops_per_s, bytes_moved / memory_bandwidth) + overhead_s``. No work at all is no
    launch and takes no time. Caches, and the efficiency of single operations, are left out.

    Args:
      device: one device, or many.
      flops: FLOPs of the program, >= 0.
      bytes_moved: bytes between memory and processor, >= 0.

    Returns:
      Modelled seconds, in the broadcast shape.

    Raises:
      ValueError: a number is negative or NaN.

    References:
      Williams, Waterman and Patterson, Roofline: An Insightful Visual Performance Model for
      Multicore Architectures, 2009.

    Example:
      >>> from eejax.tiers.presets import DEVICES
      >>> float(roofline(DEVICES["raspberry_pi_4"], flops=12e6, bytes_moved=1e6))
      0.0015
    """
    flops, bytes_moved = _amount("flops", flops), _amount("bytes_moved", bytes_moved)
    busy = np.maximum(flops / device.flops_per_s, bytes_moved / device.memory_bandwidth_bytes_per_s)
    return np.where(busy > 0, busy + device.overhead_s, 0.0)[()]


def transfer_seconds(link: Link, nbytes: Any, direction: Direction) -> Any:
    """Models the time from the first byte sent to the last byte received.

    ``rtt_s / 2 + 8 * nbytes / bandwidth_bps / (1 - loss)``: half a round trip, then the bits one
    after the other, each sent ``1 / (1 - loss)`` times on average. Nothing to send takes no time.
    Left out: jitter, which has no effect on the mean, connection set-up, and the wait before a lost
    packet is missed.

    Args:
      link: one link, or many.
      nbytes: bytes to carry, >= 0.
      direction: ``"up"`` to the parent or ``"down"`` from it.

    Returns:
      Modelled seconds, in the broadcast shape.

    Raises:
      ValueError: a number is negative or NaN, or the direction is unknown.

    Example:
      >>> from eejax.tiers.presets import LINKS
      >>> float(transfer_seconds(LINKS["lan"], 125_000, "up"))  # 0.25 ms, then 1 Mbit.
      0.00125
    """
    nbytes = _amount("nbytes", nbytes)
    bits_per_s = _by_direction(direction, link.bandwidth_up_bps, link.bandwidth_down_bps)
    seconds = np.divide(link.rtt_s, 2) + 8 * nbytes / bits_per_s / np.subtract(1, link.loss)
    return np.where(nbytes > 0, seconds, 0.0)[()]


def compute_joules(device: Device, seconds: Any, utilisation: Any = 1.0) -> Any:
    """Models the energy of a node: ``(idle_w + (busy_w - idle_w) * utilisation) * seconds``.

    Args:
      device: one device, or many.
      seconds: time, >= 0.
      utilisation: mean load in that time, in [0, 1]; 0 prices waiting.

    Returns:
      Modelled joules, in the broadcast shape.

    Raises:
      ValueError: a number is negative or NaN, or the utilisation above 1.

    References:
      Wiesner and Thamsen, LEAF: Simulating Large Energy-Aware Fog Computing Environments, 2021.

    Example:
      >>> from eejax.tiers.presets import DEVICES
      >>> float(compute_joules(DEVICES["edge_server"], seconds=2.0, utilisation=0.5))
      260.0
    """
    seconds, utilisation = _amount("seconds", seconds), _amount("utilisation", utilisation)
    if (utilisation > 1).any():
        raise ValueError(f"utilisation must be in [0, 1], got {utilisation.max():g}")
    power = device.idle_w + np.subtract(device.busy_w, device.idle_w) * utilisation
    return power * seconds


def transfer_joules(link: Link, nbytes: Any, direction: Direction) -> Any:
    """Models the energy of a transfer: ``nbytes * joules_per_byte / (1 - loss)``.

    Args:
      link: one link, or many.
      nbytes: bytes to carry, >= 0.
      direction: ``"up"`` to the parent or ``"down"`` from it.

    Returns:
      Modelled joules, in the broadcast shape. Which parts of the network they cover is up to the
      ``source`` of the link.

    Raises:
      ValueError: a number is negative or NaN, or the direction is unknown.
    """
    nbytes = _amount("nbytes", nbytes)
    joules = _by_direction(direction, link.joules_per_byte_up, link.joules_per_byte_down)
    return nbytes * joules / np.subtract(1, link.loss)


def work_of(fn: Callable[..., Any], *args: Any) -> Work:
    """Asks XLA what one call of a function costs, without compiling or running it.

    The count is taken before XLA optimises, so values between operations that will be fused count
    as memory traffic: ``bytes_moved`` is an upper estimate. A `jax.lax.scan` counts as often as it
    runs, other loops once, since nobody knows how often they do. ``exp``, ``tanh`` and the like are
    not in ``flops``, and a convolution counts no products with padding.

    Args:
      fn: a function that JAX can trace.
      *args: arrays or abstract arrays, as for ``jax.jit(fn).lower``.

    Returns:
      FLOPs and bytes of one call; zeros for a function that does nothing.

    Raises:
      RuntimeError: this backend of JAX gives no cost analysis.

    Example:
      >>> x = jax.ShapeDtypeStruct((32, 128), np.float32)
      >>> w = jax.ShapeDtypeStruct((128, 64), np.float32)
      >>> work_of(lambda x, w: x @ w, x, w)  # 2 * 32 * 128 * 64; 4 * (4096 + 8192 + 2048).
      Work(flops=524288.0, bytes_moved=57344.0)
    """
    return Work(*_count(jax.make_jaxpr(fn)(*args)).tolist())


def _count(traced: Any) -> np.ndarray:
    """Counts FLOPs and bytes of what was traced; XLA counts the body of a scan once."""
    total = _ask(traced)
    for scan in _scans(traced.jaxpr):
        body, length = scan.params["jaxpr"], scan.params["length"]
        copies = min(int(scan.params["unroll"]), length)
        total = total + length * _count(body) - copies * _ask(body)
    return total


def _ask(traced: Any) -> np.ndarray:
    args = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in traced.in_avals]
    analysis = jax.jit(jaxpr_as_fun(traced)).lower(*args).cost_analysis()
    if not isinstance(analysis, dict):
        raise RuntimeError(
            f"XLA gives no cost analysis on the backend {jax.default_backend()!r} (got "
            f"{analysis!r}); use JAX_PLATFORMS=cpu, whose count holds for other devices as well"
        )
    # XLA leaves out what is zero.
    return np.array([analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0)])


def _scans(jaxpr: Any) -> list[Any]:
    """Finds the outermost scans, also within calls, branches and other loops."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            found.append(equation)
            continue
        for inner in jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                found += _scans(getattr(inner, "jaxpr", inner))
    return found


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def _amount(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value, np.float64)
    wrong = ~(array >= 0)  # True for NaN, too.
    if wrong.any():
        raise ValueError(f"{name} must be >= 0, got {array[wrong].flat[0]:g}")
    return array


def _by_direction(direction: str, up: Any, down: Any) -> Any:
    if direction not in ("up", "down"):
        raise ValueError(f"direction must be 'up' or 'down', got {direction!r}")
    return up if direction == "up" else down
