"""Execution: compacted equals masked to the bit, and every byte and row is accounted for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.coinfer import eta, leave_at, make_compacted, make_full, make_masked, normalised_entropy
from eejax.core import Codec, Exit, ExitRule, Stage
from eejax.models.staged import all_logits, init, run_stage, staged
from eejax.wire import abstract_nbytes, affine, cast, chain, deflate, identity, topk

CODECS = {
    "none": None,
    "identity": (identity(),) * 3,
    "int8": (affine(8), None, affine(4)),
    "sparse": (topk(0.5), cast(jnp.bfloat16), chain(topk(0.25), affine(8))),
    "host": (deflate(), None, chain(affine(8), deflate())),
}
NEVER, SOME, ALWAYS = (-1.0, -1.0), (0.05, 0.02), (1.0, 1.0)


def assert_same(a, b, fields):
    for field in fields:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)


@pytest.mark.parametrize("codecs", CODECS)
@pytest.mark.parametrize("thresholds", [NEVER, SOME, ALWAYS], ids=["never", "some", "always"])
@pytest.mark.parametrize("n", [1, 8, 50])
def test_compacted_is_masked_to_the_bit(codecs, thresholds, n, tiny):
    model, params, x = tiny
    rule = normalised_entropy(thresholds)
    compacted = make_compacted(model, rule, CODECS[codecs], batch=8)(params, x[:n])
    masked = make_masked(model, rule, CODECS[codecs], batch=8)(params, x[:n])
    assert_same(compacted, masked, ["logits", "exit_index", "scores", "reached", "sent_nbytes"])
    assert compacted.executed.tolist() == (-(-compacted.reached // 8) * 8).tolist()
    assert masked.executed.tolist() == [-(-n // 8) * 8] * 4


@pytest.mark.parametrize("batch", [1, 3, 50, 64])
def test_compacted_is_masked_for_any_batch_and_a_sample_ignores_its_company(batch, tiny):
    model, params, x = tiny
    rule = normalised_entropy(SOME)
    run = make_compacted(model, rule, batch=batch)
    outcome = run(params, x)
    assert len(set(outcome.exit_index.tolist())) == 3
    assert_same(
        outcome,
        make_masked(model, rule, batch=batch)(params, x),
        ["logits", "exit_index", "scores", "reached"],
    )
    for i in (0, 17, 49):
        alone = run(params, x[i : i + 1])
        np.testing.assert_array_equal(alone.logits[0], outcome.logits[i])
        np.testing.assert_array_equal(alone.scores[:, 0], outcome.scores[:, i])


def test_outcome_is_a_selection_from_all_logits(tiny):
    model, params, x = tiny
    outcome = make_compacted(model, normalised_entropy(SOME), batch=8)(params, jnp.asarray(x))
    logits = np.asarray(all_logits(model, params, x))
    index = leave_at(eta(jnp.asarray(logits)), SOME)
    np.testing.assert_array_equal(outcome.exit_index, index)
    np.testing.assert_allclose(outcome.logits, logits[index, np.arange(50)], atol=1e-5)
    # Stages 2 and 3 (gateway, edge) stand before exit 2.
    assert outcome.reached.tolist() == [50, (index > 0).sum(), (index > 0).sum(), (index > 1).sum()]
    for exit in range(3):
        here = index >= exit
        np.testing.assert_allclose(outcome.scores[exit, here], eta(logits[exit, here]), atol=1e-6)
        assert np.isnan(outcome.scores[exit, ~here]).all()


def test_a_multiply_and_an_add_on_two_sides_of_a_border_are_not_fused():
    """In one program, XLA on CPU contracts them to one rounding, in spite of barriers."""

    def piece(name, fn):
        return Stage(name, lambda key, x: {}, lambda params, x, **_: fn(x))

    stages = piece("end", lambda x: x * 1.1), piece("cloud", lambda x: x + 0.7)
    exits = Exit("end", piece("exit1", lambda x: x)), Exit("cloud", piece("exit2", lambda x: x))
    model, rule = staged(stages, exits), normalised_entropy([0.8])
    x = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    params = init(model, jax.random.key(0), x)
    compacted, masked = (make(model, rule)(params, x) for make in (make_compacted, make_masked))
    assert set(compacted.exit_index.tolist()) == {0, 1}
    assert_same(compacted, masked, ["logits", "scores"])


@pytest.mark.parametrize("codecs", ["identity", "zlib"])
def test_lossless_codecs_change_no_bit(codecs, tiny):
    model, params, x = tiny
    chosen = {"identity": identity(), "zlib": deflate()}[codecs]
    rule = normalised_entropy(SOME)
    plain = make_compacted(model, rule, batch=8)(params, x)
    coded = make_compacted(model, rule, [chosen] * 3, input_codec=chosen, batch=8)(params, x)
    assert_same(plain, coded, ["logits", "exit_index", "scores", "reached", "executed"])
    assert plain.sent_nbytes.tolist() == [0, 0, 0, 0]


def test_bytes_are_those_of_the_survivors_over_the_links_that_exist(tiny):
    model, params, x = tiny
    codecs = (affine(8), None, identity())
    rule = normalised_entropy(SOME)
    outcome = make_compacted(model, rule, codecs, input_codec=identity(), batch=8)(params, x)
    like = jax.ShapeDtypeStruct((16,), np.float32)
    assert abstract_nbytes(affine(8), like) == 16 + 5
    expected = [50 * 3 * 4, outcome.reached[1] * 21, 0, outcome.reached[3] * 12 * 4]
    assert outcome.sent_nbytes.tolist() == expected
    assert 0 < outcome.reached[3] < outcome.reached[1] < 50


@pytest.mark.parametrize("make", [make_compacted, make_masked])
def test_bytes_of_host_codecs_are_real_and_of_survivors_only(make, tiny):
    """A codec that sends positive features only, so the size of a message depends on the sample."""
    model, params, x = tiny
    sizes = []

    def encode(state, tree, key):
        values = np.maximum(np.asarray(tree), 0)
        sizes.append(2 + 4 * np.count_nonzero(values))
        return state, {"mask": np.packbits(values > 0), "values": values[values > 0]}

    def decode(payload):
        values = np.zeros(16, np.float32)
        values[np.unpackbits(payload["mask"]) > 0] = payload["values"]
        return values

    codec = Codec(lambda tree: (), encode, decode, trees.nbytes)
    outcome = make(model, normalised_entropy(SOME), [codec, None, None], batch=8)(params, x)
    survives = outcome.exit_index > 0
    assert 0 < survives.sum() < 50
    assert len(set(sizes)) > 1
    if make is make_compacted:
        assert len(sizes) == survives.sum()
        assert outcome.sent_nbytes[1] == sum(sizes)
    else:
        assert outcome.sent_nbytes[1] == np.array(sizes)[survives].sum()


def test_every_sample_is_a_message_with_a_range_of_its_own(tiny):
    model, params, x = tiny
    codec, rule = affine(4), normalised_entropy(NEVER)
    outcome = make_compacted(model, rule, [codec, None, None], batch=8)(params, x)
    features, _ = run_stage(model, 0, params, x)
    singly = [codec.decode(codec.encode((), h, None)[1]) for h in features]
    h = jnp.stack(singly)
    for k in (1, 2, 3):
        h, logits = run_stage(model, k, params, h)
    np.testing.assert_allclose(outcome.logits, logits, atol=1e-5)
    exact = make_compacted(model, rule, batch=8)(params, x)
    assert np.abs(outcome.logits - exact.logits).max() > 0.01


def test_one_compilation_a_stage_whatever_the_survivors_and_the_thresholds(counted):
    model, traced = counted
    x = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    params = init(model, jax.random.key(0), x)
    traced.clear()
    codecs = CODECS["int8"]
    make_compacted(model, normalised_entropy(NEVER), codecs, batch=8)(params, x)
    stages = ["end", "gateway", "edge", "cloud"]
    assert [shape for name, shape in traced if name == "end"] == [(8, 3)]
    assert [name for name, _ in traced if name in stages] == stages
    traced.clear()
    for thresholds in (NEVER, SOME, (0.2, 0.9)):
        for make in (make_compacted, make_masked, make_full):
            for n in (1, 13, 40):
                make(model, normalised_entropy(thresholds), codecs, batch=8)(params, x[:n])
    assert traced == []


def test_a_model_with_its_last_exit_alone_is_the_full_model(tiny):
    model, params, x = tiny
    final = staged(model.stages, model.exits[-1:])
    logits, scores = make_full(final, normalised_entropy(()), batch=8)(params, x)
    assert (logits.shape, scores.shape) == ((1, 50, 10), (1, 50))
    everywhere, _ = make_full(model, normalised_entropy(NEVER), batch=8)(params, x)
    np.testing.assert_array_equal(logits[0], everywhere[-1])


def test_raw_input_goes_on_as_the_bytes_it_is():
    flatten = Stage("s", lambda key, x: {}, lambda p, x, **_: x.reshape(len(x), -1) / 255)
    head = Stage("h", lambda key, x: {}, lambda p, x, **_: x)
    model = staged((flatten,), (Exit("s", head),))
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1)).astype(np.uint8)
    run = make_compacted(model, normalised_entropy(()), input_codec=identity(), batch=2)
    outcome = run({"s": {}, "h": {}}, images)
    np.testing.assert_allclose(outcome.logits, images.reshape(5, 16) / 255, atol=1e-6)
    assert outcome.sent_nbytes.tolist() == [5 * 16]
    assert outcome.executed.tolist() == [6]


def test_a_rule_sees_features_and_the_exit_index(tiny):
    model, params, x = tiny
    widths = []

    def decide(state, logits, features, exit):
        widths.append((exit, features.shape[1]))
        return jnp.full(len(logits), exit == state), logits[:, 0]

    rule = ExitRule(lambda: 1, lambda state, *args: decide(1, *args))
    outcome = make_compacted(model, rule, batch=8)(params, x)
    assert widths == [(0, 16), (1, 12), (2, 5)]
    assert (outcome.exit_index == 1).all()
    assert outcome.executed.tolist() == [56, 56, 56, 0]


@pytest.mark.parametrize("make", [make_compacted, make_masked, make_full])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codecs": [None]}, "codecs must have 3 entries, one for each boundary.*; got 1"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(make, options, message, tiny):
    with pytest.raises(ValueError, match=message):
        make(tiny[0], normalised_entropy(NEVER), **options)


@pytest.mark.parametrize("make", [make_compacted, make_masked])
def test_what_cannot_run_is_refused(make, tiny):
    model, params, x = tiny
    with pytest.raises(ValueError, match="x has no samples"):
        make(model, normalised_entropy(NEVER))(params, x[:0])
    with pytest.raises(ValueError, match="keeps samples at the last exit"):
        make(model, normalised_entropy([-1, -1, -1]))(params, x)
    # Though nobody gets to the exit that it has no threshold for.
    with pytest.raises(ValueError, match="thresholds has 1 entries"):
        make(model, normalised_entropy([1]))(params, x)
    codecs = [affine(8, stochastic=True), None, None]
    with pytest.raises(ValueError, match="needs a key"):
        make(model, normalised_entropy(NEVER), codecs)(params, x)
