"""The three ways of updating: who learns from what, who is left alone, and what is sent."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import trees
from eejax.coinfer import normalised_entropy
from eejax.core import Exit, Stage
from eejax.coupdate import (
    Deployment,
    Distillation,
    NewData,
    Recipe,
    centralised,
    collaborative,
    from_data,
    local,
)
from eejax.coupdate.collaborative import hardest
from eejax.coupdate.fleet import as_paths, pieces
from eejax.data import pack
from eejax.models import init, staged
from eejax.tiers import three_tier, total_bytes
from eejax.wire import cast, identity

CLASSES, WIDTH, PIXELS = 3, 6, 8
NEW, PAST = (5, 4, 7), (6, 6, 6)
RECIPE = Recipe(optax.sgd(0.1), steps=4, batch=4, replay=2)
KEY = jax.random.key(3)


def dense(name, width, activation=jax.nn.relu):
    def init(key, x):
        fan = x.shape[-1]
        return {"kernel": jax.random.normal(key, (fan, width)) / fan**0.5, "bias": jnp.zeros(width)}

    def apply(params, x, *, train=False, key=None):
        x = jnp.asarray(x, jnp.float32) / (255 if x.dtype == jnp.uint8 else 1)
        return activation(x @ params["kernel"] + params["bias"][None])

    return Stage(name, init, apply)


MODEL = staged(
    tuple(dense(f"stage{i}", WIDTH) for i in (1, 2, 3)),
    tuple(Exit(f"stage{i}", dense(f"exit{i}", CLASSES, lambda x: x)) for i in (1, 2, 3)),
)
TOPOLOGY = three_tier(ends=3, edges=2)  # Devices 0 and 1 at the first edge, 2 at the second.
DEPLOYMENT = Deployment(MODEL, TOPOLOGY, (0, 1, 2), identity())
PARAMS = init(MODEL, jax.random.key(0), np.zeros((1, PIXELS), np.uint8))
RULE = normalised_entropy([-1.0, -1.0])  # Nobody leaves early.


def make_data(sizes, seed):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    samples = {
        "x": rng.integers(0, 256, (n, PIXELS)).astype(np.uint8),
        "y": rng.integers(0, CLASSES, n).astype(np.int32),
    }
    return NewData(samples, pack(np.split(np.arange(n), np.cumsum(sizes)[:-1])))


def make_memory():
    return from_data(jax.tree.map(jnp.asarray, make_data((8,), 9).samples), 8, KEY)


def make_distillation(steps=3):
    return Distillation(RECIPE._replace(steps=steps, replay=0), 2.0, 0.5, cast(jnp.float16))


def row(paths, end):
    return jax.tree.map(lambda x: x[end], paths)


def teach(share=0.5, distillation=None, new=None, deployment=DEPLOYMENT):
    return collaborative(
        deployment, PARAMS, make_data(NEW, 1) if new is None else new, make_data(PAST, 2),
        make_memory(), RECIPE, distillation or make_distillation(), share, KEY,
    )  # fmt: skip


def test_pieces_follow_the_assignment():
    cut = pieces(DEPLOYMENT._replace(assignment=(0, 0, 2)))
    assert [(p.tier, p.first_exit, p.names) for p in cut] == [
        (0, 0, ("stage1", "exit1", "stage2", "exit2")),
        (2, 2, ("stage3", "exit3")),
    ]


def test_a_tier_that_cannot_answer_cannot_learn():
    headless = MODEL._replace(exits=MODEL.exits[1:])
    with pytest.raises(ValueError, match="stage 'stage1', the last on tier 'end', has no exit"):
        pieces(DEPLOYMENT._replace(model=headless))


def test_centralised_trains_once_and_sends_everyone_the_same():
    new = make_data(NEW, 1)
    update = centralised(DEPLOYMENT, PARAMS, new, make_memory(), RECIPE, KEY)
    for end in range(3):
        chex.assert_trees_all_equal(row(update.paths, end), row(update.paths, 0))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), row(update.paths, 0), PARAMS)
    assert all(moved[name]["kernel"] for name in PARAMS)
    # 16 samples of 8 pixels and a label over two links.
    assert total_bytes(update.ledger, kind="data") == 2 * 16 * (PIXELS + 1)
    end = trees.nbytes({n: PARAMS[n] for n in ("stage1", "exit1")})
    edge = trees.nbytes({n: PARAMS[n] for n in ("stage2", "exit2")})
    assert total_bytes(update.ledger, "edge", "end") == 3 * end
    assert total_bytes(update.ledger, "cloud", "edge") == 2 * (end + edge)
    assert total_bytes(update.ledger, kind="knowledge") == 3 * end + 2 * (end + edge)


def test_a_codec_shrinks_what_goes_down_and_leaves_what_stays():
    deployment = DEPLOYMENT._replace(codec=cast(jnp.bfloat16))
    new = make_data(NEW, 1)
    exact = centralised(DEPLOYMENT, PARAMS, new, make_memory(), RECIPE, KEY)
    coarse = centralised(deployment, PARAMS, new, make_memory(), RECIPE, KEY)
    assert 2 * total_bytes(coarse.ledger, kind="knowledge") == total_bytes(
        exact.ledger, kind="knowledge"
    )
    kernel = coarse.paths["stage1"]["kernel"]
    chex.assert_trees_all_equal(kernel, kernel.astype(jnp.bfloat16).astype(jnp.float32))
    chex.assert_trees_all_equal(coarse.paths["stage3"], exact.paths["stage3"])


def test_local_nodes_know_nothing_of_each_other():
    new, past = make_data(NEW, 1), make_data(PAST, 2)
    update = local(DEPLOYMENT, PARAMS, new, past, RECIPE, RULE, KEY)
    other = {name: x.copy() for name, x in new.samples.items()}
    other["x"][new.index.table[2, : NEW[2]]] ^= 255  # The third device sees something else.
    changed = local(DEPLOYMENT, PARAMS, NewData(other, new.index), past, RECIPE, RULE, KEY)
    for end in (0, 1):
        for name in ("stage1", "exit1", "stage2", "exit2"):
            chex.assert_trees_all_equal(row(update.paths[name], end), row(changed.paths[name], end))
    assert (update.paths["stage1"]["kernel"][2] != changed.paths["stage1"]["kernel"][2]).any()
    assert (update.paths["stage2"]["kernel"][2] != changed.paths["stage2"]["kernel"][2]).any()
    # Devices of one edge share what it hosts, and all share what the cloud does.
    chex.assert_trees_all_equal(row(update.paths["stage2"], 0), row(update.paths["stage2"], 1))
    chex.assert_trees_all_equal(row(update.paths["stage3"], 0), row(update.paths["stage3"], 2))
    # Only labels travel: 16 to the edges, and again to the cloud on their way through the edges.
    assert total_bytes(update.ledger, "end", "edge") == 16 + 16
    assert total_bytes(update.ledger, "edge", "cloud") == 16


def test_nobody_above_learns_when_everybody_leaves_at_the_end():
    everyone_leaves = normalised_entropy([1.0, 1.0])
    new, past = make_data(NEW, 1), make_data(PAST, 2)
    update = local(DEPLOYMENT, PARAMS, new, past, RECIPE, everyone_leaves, KEY)
    for name in ("stage2", "exit2", "stage3", "exit3"):
        chex.assert_trees_all_equal(update.paths[name], as_paths(PARAMS[name], 3))
    assert (update.paths["stage1"]["kernel"] != PARAMS["stage1"]["kernel"][None]).any()
    assert update.ledger == ()


def test_collaborative_shares_stages_and_teaches_exits():
    update = teach()
    for name in ("stage1", "stage2", "stage3", "exit3"):
        for end in range(3):
            chex.assert_trees_all_equal(row(update.paths[name], end), row(update.paths[name], 0))
    exit1, exit2 = (update.paths[name]["kernel"] for name in ("exit1", "exit2"))
    assert len({exit1[end].tobytes() for end in range(3)}) == 3
    assert (exit2[0] == exit2[1]).all()
    assert (exit2[0] != exit2[2]).any()


def test_collaborative_sends_the_share_and_soft_labels():
    update = teach(share=0.5)
    count = 3 + 2 + 4  # Half of 5, 4 and 7, rounded up.
    assert total_bytes(update.ledger, kind="data") == 2 * count * (PIXELS + 1)
    soft = [t for t in update.ledger if t.what == "soft labels"]
    assert [(t.source, t.target, t.nbytes, t.count) for t in soft] == [
        ("cloud", "edge", 2 * CLASSES, count),
        ("edge", "end", 2 * CLASSES, count),
    ]
    assert update.metrics["uploaded"] == count


def test_without_distillation_all_paths_are_the_teacher():
    update = teach(distillation=make_distillation(steps=0))
    for end in range(3):
        chex.assert_trees_all_equal(row(update.paths, end), row(update.paths, 0))
    assert not [t for t in update.ledger if t.what == "soft labels"]


def test_the_whole_share_without_distillation_is_the_centralised_update():
    """Sending all up and teaching nothing is mode i, up to the order of the samples."""
    new = make_data(NEW, 1)
    recipe = RECIPE._replace(batch=sum(NEW), replay=0, steps=2)
    both = [
        collaborative(
            DEPLOYMENT, PARAMS, new, make_data(PAST, 2), make_memory(), recipe,
            make_distillation(steps=0), 1.0, KEY,
        ),
        centralised(DEPLOYMENT, PARAMS, new, make_memory(), recipe, KEY),
    ]  # fmt: skip
    chex.assert_trees_all_close(both[0].paths, both[1].paths, rtol=1e-5, atol=1e-6)
    assert both[0].ledger == both[1].ledger


def test_a_placement_without_an_edge_tier_relays_soft_labels():
    update = teach(deployment=DEPLOYMENT._replace(assignment=(0, 2, 2)))
    soft = [(t.source, t.target) for t in update.ledger if t.what == "soft labels"]
    assert soft == [("cloud", "edge"), ("edge", "end")]
    assert all((update.paths["exit2"]["kernel"] == update.paths["exit2"]["kernel"][:1]).ravel())


def test_hardest_are_those_of_highest_entropy():
    new = make_data(NEW, 1)
    index = hardest(pieces(DEPLOYMENT)[0], PARAMS, new, 0.5)
    assert index.counts.tolist() == [3, 2, 4]
    x = np.float32(new.samples["x"]) / 255
    w = jax.tree.map(np.asarray, PARAMS)
    hidden = np.maximum(x @ w["stage1"]["kernel"] + w["stage1"]["bias"], 0)
    p = np.asarray(jax.nn.softmax(hidden @ w["exit1"]["kernel"] + w["exit1"]["bias"]))
    entropy = -(p * np.log(p)).sum(-1)
    for end in range(3):
        mine = new.index.table[end, : NEW[end]]
        best = mine[np.argsort(-entropy[mine])][: index.counts[end]]
        assert index.table[end, : index.counts[end]].tolist() == best.tolist()


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_the_share_is_checked(share):
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        teach(share=share)
