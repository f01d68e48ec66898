"""Which equation goes to which layer, and that no cycle ever arises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.partition.grouping import _joins, _Layers, _opens, group
from eejax.partition.trace import depends, trace

W = jnp.ones((4, 4))
X = jnp.ones((2, 4))


def grouped(fn, depth=None):
    program, _ = trace(fn, W, X)
    data = depends(program, program.inputs[1:])
    grouping = group(program, data, depth)
    members = [[] for _ in grouping.names]
    for row, g in zip(program.equations, grouping.layer):
        if g >= 0:
            members[g].append(row.primitive)
    origin = {i: g for row, g in zip(program.equations, grouping.layer) for i in row.makes}
    for row, g in zip(program.equations, grouping.layer):
        assert all(origin.get(i, -1) <= g for i in row.reads if data[i])  # In run order.
    return dict(zip(grouping.names, members)), grouping.granularity


def dense(name, w, x):
    with jax.named_scope(name):
        return x @ w


def test_each_product_opens_a_layer_and_glue_follows_the_latest():
    def model(w, x):
        a = jnp.tanh(x @ w)
        b = jnp.sin(a @ w)
        return (b + a) @ w

    layers, granularity = grouped(model)
    assert layers == {"dot": ["dot_general", "tanh"], "dot#1": ["dot_general", "sin", "add"]} | {
        "dot#2": ["dot_general"]
    }
    assert granularity == "operator with what follows it"
    assert grouped(model, depth=2)[1] == granularity  # There are no names.


def test_modules_at_a_depth():
    def model(w, x):
        with jax.named_scope("model"):
            x = dense("stem", w, x)
            for i in range(2):
                with jax.named_scope(f"block{i}"):
                    x = dense("b", w, jnp.tanh(dense("a", w, x))) + x
            return jnp.cos(x)

    layers, granularity = grouped(model, 1)
    assert list(layers) == ["stem", "block0", "block1"]
    assert layers["block1"][-1] == "cos"
    assert granularity == "module at depth 1"
    names = ["stem", "block0/a", "block0/b", "block1/a", "block1/b"]
    assert list(grouped(model, 2)[0]) == list(grouped(model, 7)[0]) == names
    assert list(grouped(model)[0]) == names


def test_a_module_that_is_used_again_is_cut_in_two():
    def model(w, x):
        return dense("head", w, jnp.sin(dense("body", w, dense("head", w, x))))

    assert list(grouped(model, 1)[0]) == ["head", "body", "head#1"]

    def parallel(w, x):
        a, b = dense("left", w, x), dense("right", w, x)
        return dense("left", w, a) + dense("right", w, b)

    assert list(grouped(parallel, 1)[0]) == ["left", "right"]


def test_a_module_that_is_named_like_the_second_part_of_another():
    def model(w, x):
        for name in ("a", "b", "a", "a#1", "a"):
            x = dense(name, w, x)
        return x

    assert list(grouped(model, 1)[0]) == ["a", "b", "a#2", "a#1", "a#3"]


def test_what_is_done_to_the_input_goes_to_its_first_reader():
    def model(w, x):
        x = x / 255 - 0.5
        return dense("a", w, x) + dense("b", w, x)

    layers, _ = grouped(model)
    assert layers["a"] == ["div", "sub", "dot_general"]
    layers, _ = grouped(lambda w, x: jnp.sin(x) + w.sum())
    assert layers == {"add": ["sin", "add"]}


def test_a_normalised_copy_goes_to_its_reader():
    def model(w, x):
        x = dense("stem", w, x)
        for i in range(2):
            x = x + dense(f"branch{i}", w, jnp.tanh(x * 2))
        return x, jnp.cos(x)

    layers, _ = grouped(model)
    assert layers["stem"] == ["dot_general"]
    assert layers["branch0"] == ["mul", "tanh", "dot_general", "add"]
    assert layers["branch1"] == ["mul", "tanh", "dot_general", "add", "cos"]


def test_what_is_an_answer_stays_with_its_maker_and_what_reads_it_too():
    def model(w, x):
        x = dense("stem", w, x)
        large = jnp.concatenate([x * 2, x * 3])
        return dense("next", w, x), large, dense("exit", w, large[:1])

    layers, _ = grouped(model)
    assert layers["stem"] == ["dot_general", "mul", "mul", "concatenate", "slice"]


def test_a_concatenation_of_several_layers_is_a_layer():
    def model(w, x):
        parts = [x]
        for i in range(3):
            parts.append(dense(f"c{i}", w, jnp.concatenate(parts, -1)[:, :4]))
        return jnp.concatenate([parts[-1], parts[-1]], -1)  # Of a single one it is not.

    layers, _ = grouped(model)
    assert list(layers) == ["c0", "concatenate", "c1", "concatenate#1", "c2"]


def reachable(reads, g):
    seen, todo = set(), [g]
    while todo:
        for h in reads[todo.pop()] - seen:
            seen.add(h)
            todo.append(h)
    return seen


@pytest.mark.parametrize("seed", range(20))
def test_joins_are_refused_exactly_when_they_close_a_cycle(seed):
    rng = np.random.default_rng(seed)
    layers = _Layers([], [], [])
    refused = 0
    for _ in range(15):
        count = len(layers.rank)
        _opens(layers, set(rng.choice(count, min(count, rng.integers(3)), replace=False).tolist()))
    for _ in range(60):
        g, *sources = rng.choice(15, 3, replace=False).tolist()
        cycle = any(g in reachable(layers.reads, s) for s in sources)
        assert _joins(layers, g, set(sources)) == (not cycle)
        refused += cycle
        assert sorted(layers.rank) == list(range(15))
        assert all(layers.rank[r] < layers.rank[h] for h in range(15) for r in layers.reads[h])
    assert 0 < refused < 60


def test_many_layers_are_grouped_one_by_one():
    def model(w, x):
        kept = [x]
        for i in range(400):
            x = dense(f"layer{i}", w, x) + kept[-1]
            kept = [*kept[-3:], x]
        return x

    program, _ = trace(model, W, X)
    data = depends(program, program.inputs[1:])
    grouping = group(program, data, 1)
    assert len(grouping.names) == 400
