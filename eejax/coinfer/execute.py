"""Early exits that really run: stage by stage, only who stays goes on, and bytes are counted.

A sample gets the same bits whatever samples it runs with, and whether execution is compacted or
masked: both run the same programs, one a stage, always on the same number of rows. A program of
another size, or one for all stages, may differ in the last bits, as XLA computes in another order
and fuses over the borders of stages; a codec that rounds makes last bits visible.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax.coinfer.hindsight import at_exit
from eejax.core import Codec, ExitRule, StagedModel
from eejax.models.staged import exit_after, owned, run_stage
from eejax.wire import abstract_nbytes, abstract_payload

PyTree = Any


class Outcome(NamedTuple):
    """What came of ``n`` samples, in NumPy arrays.

    Attributes:
      logits: ``[n, classes]``, the answer of the exit where the sample left.
      exit_index: ``[n]``, that exit.
      scores: ``[exits, n]`` float32, NaN for exits that the sample did not reach.
      reached: ``[stages]``, samples that reached each stage.
      executed: ``[stages]``, rows that each stage ran, with padding.
      sent_nbytes: ``[stages]``, exact bytes that crossed the link into each stage, one message a
        sample; the first is the raw input. 0 where there is no link.
    """

    logits: np.ndarray
    exit_index: np.ndarray
    scores: np.ndarray
    reached: np.ndarray
    executed: np.ndarray
    sent_nbytes: np.ndarray


def make_compacted(
    model: StagedModel,
    rule: ExitRule,
    codecs: Sequence[Codec | None] | None = None,
    *,
    input_codec: Codec | None = None,
    batch: int = 32,
) -> Callable[[PyTree, Any], Outcome]:
    """Makes the execution in which a sample that has left costs nothing more.

    One compiled program a stage, as its node would run it, from decoding to the exit. The survivors
    of an exit wait before the next stage until ``batch`` of them are together, as a server batches
    its requests; what is left at the end is padded by repeating samples. So memory is bounded, and
    a stage runs less than ``batch`` rows too many. A second executor of the same model, codecs,
    batch and ``rule.decide`` shares the programs: new thresholds compile nothing.

    Args:
      model: a staged model.
      rule: who leaves; at the last exit everyone must.
      codecs: one for each boundary between stages, None where both are on one node; by default all
        are. Every sample is a message of its own, encoded with a fresh state and no key. A codec
        that runs on the host, such as `deflate`, takes a Python loop.
      input_codec: the same for raw input, if the first stage is not where the data are.
      batch: rows of every program, so ``run`` on no more samples than this saves a stage only if
        all have left; 1 is how a device serves single requests.

    Returns:
      ``run(params, x [n, ...]) -> Outcome`` for any n >= 1.

    Raises:
      ValueError: ``codecs`` has a wrong length, or ``batch`` is below 1; in ``run``, there are no
        samples, or the rule keeps some at the last exit.

    References:
      Teerapittayanon, McDanel and Kung, BranchyNet: Fast Inference via Early Exiting from Deep
      Neural Networks, 2016.

    Example:
      >>> from eejax.coinfer.normalised_entropy import normalised_entropy
      >>> from eejax.core import Exit, Stage
      >>> from eejax.wire import identity
      >>> def piece(name, scale):
      ...     return Stage(name, lambda key, x: {}, lambda params, x, **_: scale * x)
      >>> end, cloud = piece("end", 1), piece("cloud", 2)
      >>> exits = Exit("end", piece("exit1", 1)), Exit("cloud", piece("exit2", 1))
      >>> params = {"end": {}, "cloud": {}, "exit1": {}, "exit2": {}}
      >>> rule = normalised_entropy([0.1])
      >>> run = make_compacted(StagedModel((end, cloud), exits), rule, [identity()], batch=2)
      >>> outcome = run(params, np.array([[9, 0], [1, 0], [0, 9]], np.float32))
      >>> outcome.exit_index.tolist(), outcome.reached.tolist(), outcome.sent_nbytes.tolist()
      ([0, 1, 0], [3, 1], [0, 8])
    """
    run = _make_run(model, rule, codecs, input_codec, batch, compact=True)
    return lambda params, x: _selected(model, *run(params, x))


def make_masked(
    model: StagedModel,
    rule: ExitRule,
    codecs: Sequence[Codec | None] | None = None,
    *,
    input_codec: Codec | None = None,
    batch: int = 32,
) -> Callable[[PyTree, Any], Outcome]:
    """Makes the execution in which all samples run all stages, and answers are selected afterwards.

    Args:
      model: a staged model.
      rule: who leaves; at the last exit everyone must.
      codecs: as for `make_compacted`.
      input_codec: likewise.
      batch: likewise.

    Returns:
      ``run(params, x [n, ...]) -> Outcome``, equal to the bit to that of `make_compacted` but for
      ``executed``. ``reached`` and ``sent_nbytes`` are what they would be if a sample that has left
      went no further.

    Raises:
      ValueError: as for `make_compacted`.
    """
    run = _make_run(model, rule, codecs, input_codec, batch, compact=False)
    return lambda params, x: _selected(model, *run(params, x))


def make_full(
    model: StagedModel,
    rule: ExitRule,
    codecs: Sequence[Codec | None] | None = None,
    *,
    input_codec: Codec | None = None,
    batch: int = 32,
) -> Callable[[PyTree, Any], tuple[np.ndarray, np.ndarray]]:
    """Makes the execution in which every exit answers and scores every sample, as to `calibrate`.

    Args:
      model: a staged model.
      rule: gives the scores; whether samples would leave has no effect here.
      codecs: as for `make_compacted`; what they lose shows in answers and scores.
      input_codec: likewise.
      batch: likewise.

    Returns:
      ``run(params, x [n, ...]) -> (logits [exits, n, classes], scores [exits, n])``.

    Raises:
      ValueError: as for `make_compacted`.
    """
    run = _make_run(model, rule, codecs, input_codec, batch, compact=False)

    def run_full(params, x):
        logits, _, scores, _, _ = run(params, x)
        return logits, scores

    return run_full


def _make_run(model, rule, codecs, input_codec, batch, *, compact):
    links, state = _links(model, codecs, input_codec, batch), rule.init()
    stages, exits = range(len(model.stages)), len(model.exits)
    on_host = [_on_host(codec) for codec in links]
    static = [
        {"model": model, "index": k, "codec": None if host else codec, "decide": rule.decide}
        for k, (codec, host) in enumerate(zip(links, on_host))
    ]

    def run(params, x):
        if not len(x):
            raise ValueError("x has no samples")
        n, x = len(x), np.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype))
        own = [{name: params[name] for name in owned(model, k)} for k in stages]
        # All stages are traced before one runs, so that errors do not depend on who goes how far.
        h = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
        for k in stages:
            h, answer, _ = _run_stage.eval_shape(own[k], state, h, **static[k])
        logits = np.zeros((exits, n, answer[0].shape[1]), answer[0].dtype)
        leave, scores = np.zeros((exits, n), bool), np.full((exits, n), np.nan, np.float32)
        nbytes, executed = np.zeros((len(stages), n), np.int64), np.zeros(len(stages), np.int64)

        ids, rows = {k: np.arange(0) for k in stages}, {0: x}
        ids[0] = np.arange(n)
        while waits := [k for k in stages if len(ids[k])]:
            # The furthest full batch goes first, so that little waits; at the end, from the front.
            k = max((k for k in waits if len(ids[k]) >= batch), default=waits[0])
            (who, ids[k]), (h, rows[k]) = np.split(ids[k], [batch]), np.split(rows[k], [batch])
            if on_host[k]:
                h, nbytes[k, who] = _over_host_link(links[k], h)
            h, answer, message = _run_stage(own[k], state, _padded(h, batch), **static[k])
            executed[k] += batch
            if not on_host[k]:
                nbytes[k, who] = message
            goes_on = np.ones(len(who), bool)
            if answer is not None:
                exit, answer = _exit_number(model, k), [np.asarray(a)[: len(who)] for a in answer]
                logits[exit, who], leave[exit, who], scores[exit, who] = answer
                if compact:
                    goes_on = ~leave[exit, who]
            if k < stages[-1]:
                h = np.asarray(h)[: len(who)][goes_on]
                rows[k + 1] = np.concatenate([rows[k + 1], h]) if k + 1 in rows else h
                ids[k + 1] = np.append(ids[k + 1], who[goes_on])
        return logits, leave, scores, nbytes, executed

    return run


def _selected(model, logits, leave, scores, nbytes, executed):
    if not leave.any(0).all():
        raise ValueError(
            "the rule keeps samples at the last exit, where everyone must leave; thresholds are "
            "one for each exit but the last"
        )
    exit_index = leave.argmax(0)
    order = [stage.name for stage in model.stages]
    last_stage = np.array([order.index(exit.after) for exit in model.exits])[exit_index]
    reached = np.arange(len(order))[:, None] <= last_stage
    answered = np.arange(len(scores))[:, None] <= exit_index
    return Outcome(
        logits=at_exit(logits, exit_index),
        exit_index=exit_index,
        scores=np.where(answered, scores, np.float32(np.nan)),
        reached=reached.sum(1),
        executed=executed,
        sent_nbytes=(nbytes * reached).sum(1),
    )


@functools.partial(jax.jit, static_argnames=("model", "index", "codec", "decide"))
def _run_stage(params, state, x, *, model, index, codec, decide):
    """Runs what one node does with a batch: decode, stage, exit."""
    message = 0
    if codec is not None:
        like = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        message = abstract_nbytes(codec, like)
        x = jax.vmap(lambda h: codec.decode(codec.encode(codec.init(like), h, None)[1]))(x)
    features, logits = run_stage(model, index, params, x)
    if logits is None:
        return features, None, message
    leave, score = decide(state, logits, features, _exit_number(model, index))
    return features, (logits, leave, score), message


def _exit_number(model, index):
    return model.exits.index(exit_after(model, index))


def _links(model, codecs, input_codec, batch):
    boundaries = len(model.stages) - 1
    codecs = (None,) * boundaries if codecs is None else tuple(codecs)
    if len(codecs) != boundaries:
        raise ValueError(
            f"codecs must have {boundaries} entries, one for each boundary between stages; "
            f"got {len(codecs)}"
        )
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    return (input_codec, *codecs)


def _on_host(codec):
    # The contract has no flag; a codec that runs on the host says so under tracing.
    try:
        if codec is not None:
            abstract_payload(codec, jax.ShapeDtypeStruct((8,), np.float32))
    except TypeError:
        return True
    return False


def _over_host_link(codec, x):
    like = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    payloads = [codec.encode(codec.init(like), h, None)[1] for h in x]
    return np.stack([codec.decode(p) for p in payloads]), [codec.nbytes(p) for p in payloads]


def _padded(x, batch):
    return x if len(x) == batch else x[np.arange(batch) % len(x)]
