"""Auto-Split against every assignment of bit-widths, and its allocation against its bound."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, LinkCodec, Tensor, objective, price
from eejax.partition.auto_split import allocate, auto_split, quantisation_error, quantised
from eejax.tiers import DEVICES, LINKS, make_tier, make_topology, three_tier

BITS = (2, 4, 8)


def random_graph(rng, layers):
    readers = {}
    for i in range(layers):
        for j in {i - 1, int(rng.integers(-1, i)) if i else -1}:
            readers.setdefault(j, []).append(i)
    return LayerGraph(
        tuple(
            Layer(f"l{i}", 10 ** rng.uniform(7, 10), 1e7, int(rng.integers(1, 1000)) * 16)
            for i in range(layers)
        ),
        tuple(
            Tensor(f"t{j}", j, tuple(sorted(r)), float(int(10 ** rng.uniform(2, 5))))
            for j, r in sorted(readers.items())
        ),
        "random",
    )


def random_errors(rng, layers):
    """About a quarter with every further bit."""
    return 10 ** rng.uniform(-1, 1, (layers, 1)) * 4.0 ** -np.array(BITS)


def system(memory_bytes):
    end = dataclasses.replace(DEVICES["raspberry_pi_4"], memory_bytes=memory_bytes)
    slow = dataclasses.replace(LINKS["wifi"], bandwidth_up_bps=1e5)
    return make_topology(make_tier("end", end, slow, 0), make_tier("cloud", DEVICES["cloud_gpu"]))


@pytest.mark.parametrize("seed", range(30))
def test_allocation_is_within_a_move_of_the_best(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 99, (4, 3)).cumsum(1)
    errors = random_errors(rng, 4) if seed % 2 else rng.uniform(0, 1, (4, 3))
    sizes[seed % 4] *= seed % 3 > 0  # A layer without parameters.
    rows = np.arange(4)
    every = list(itertools.product(range(3), repeat=4))

    def best(budget):
        within = [x for x in every if sizes[rows, list(x)].sum() <= budget]
        return min((errors[rows, list(x)].sum() for x in within), default=None)

    exact = 0
    for budget in rng.integers(sizes[:, 0].sum() - 3, sizes[:, 2].sum() + 3, 12):
        found = allocate(sizes, errors, budget)
        if best(budget) is None:
            assert found is None
            continue
        used, error = sizes[rows, found].sum(), errors[rows, found].sum()
        assert used <= budget
        # No other allocation is lower by more than what one more move would save.
        saving = max(errors[i, found[i]] - errors[i].min() for i in range(4))
        assert best(budget) <= error + 1e-12
        assert error <= best(budget) + saving + 1e-12
        exact += error <= best(budget) + 1e-12
    assert exact >= 3
    assert errors[rows, allocate(sizes, errors, 10**9)].sum() == errors.min(1).sum()


def test_allocations_on_the_hull_are_the_best_of_their_size():
    rng = np.random.default_rng(0)
    sizes, errors = rng.integers(1, 50, (4, 1)) * np.array(BITS), random_errors(rng, 4)
    rows = np.arange(4)
    every = [list(x) for x in itertools.product(range(3), repeat=4)]
    seen = 0
    for multiplier in 10 ** np.linspace(-8, 2, 60):
        x = (errors + multiplier * sizes).argmin(1)
        budget = sizes[rows, x].sum()
        least = min(errors[rows, y].sum() for y in every if sizes[rows, y].sum() <= budget)
        found = allocate(sizes, errors, budget)
        assert errors[rows, found].sum() == pytest.approx(least)
        seen = max(seen, int(x.sum()))
    assert seen == 8


@pytest.mark.parametrize("seed", range(10))
def test_trade_offs_against_every_assignment(seed):
    rng = np.random.default_rng(seed)
    graph, bits = random_graph(rng, 3), (2, 8)
    errors = [random_errors(rng, 3)[:, [0, 2]] for _ in range(2)]
    memory = float(rng.integers(2000, 30000))
    topology, max_error = system(memory), float(10 ** rng.uniform(-2, 0.5))
    given = dict(zip(("weight_error", "activation_error"), errors))
    plans = auto_split(graph, topology, bits=bits, max_error=max_error, **given)

    outputs = np.array([sum(t.nbytes for t in graph.tensors if t.producer == i) for i in range(3)])
    weights = np.array([layer.parameter_bytes for layer in graph.layers])

    def checked(cut, w, a):
        """Error and cost of any assignment, if it is within the budgets."""
        held = (weights[:cut] * w / 32).sum() + (outputs[:cut] * a / 32).max(initial=0)
        error = sum(
            table[i, bits.index(x)] for table, xs in zip(errors, (w, a)) for i, x in enumerate(xs)
        )
        if held > memory or error > max_error:
            return None
        part = quantised(graph, w, a)
        return error, objective(price(part, topology, [0] * cut + [1] * (3 - cut)), "latency")

    assert sum(plan.cut == 0 for plan in plans) == 1
    for plan in plans:
        known = checked(plan.cut, plan.weight_bits, plan.activation_bits)
        assert known is not None
        assert plan.error == pytest.approx(known[0])
        assert objective(plan.plan, "latency") == pytest.approx(known[1])
        assert plan.plan.feasible
    costs, lost = zip(*((objective(p.plan, "latency"), p.error) for p in plans))
    assert list(costs) == sorted(costs)
    assert list(lost) == sorted(lost, reverse=True)

    every = [
        checked(cut, w, a)
        for cut in range(4)
        for w in itertools.product(bits, repeat=cut)
        for a in itertools.product(bits, repeat=cut)
    ]
    least = min(cost for _, cost in filter(None, every))
    # Bit-widths of parameters hardly matter to time here: the link does.
    assert least - 1e-12 <= costs[0] <= least * 1.05


def test_golden_bit_widths():
    layers = (Layer("a", 1e6, 0, 4000), Layer("b", 1e6, 0, 400), Layer("c", 1e12, 0, 4))
    rows = (("x", -1, (0,), 9000), ("u", 0, (1,), 6400), ("v", 1, (2,), 1600))
    graph = LayerGraph(layers, tuple(Tensor(*row) for row in rows), "layer")
    weight = [[0.3, 0.1, 0.0], [0.4, 0.1, 0.0], [0, 0, 0]]
    activation = [[0.2, 0.02, 0.01], [0.2, 0.02, 0.01], [0, 0, 0]]
    given = {"bits": BITS, "weight_error": weight, "activation_error": activation}
    # Two layers below: parameters of 250, 500, 1000 and 25, 50, 100 bytes, outputs of 400, 800,
    # 1600 and 100, 200, 400.
    for memory, weight_bits, activation_bits, error in (
        (2700, (8, 8), (8, 8), 0.02),
        (2699, (8, 8), (4, 8), 0.03),
        (1899, (4, 8), (4, 8), 0.13),
        # In eight bits b sends as much as a in two, whose error is smaller.
        (675, (2, 2), (2, 4), 0.92),
    ):
        plans = auto_split(graph, system(memory), max_error=9, **given)
        best = [p for p in plans if p.cut == 2][-1]
        assert (best.weight_bits, best.activation_bits) == (weight_bits, activation_bits)
        assert best.error == pytest.approx(error)
    plans = auto_split(graph, system(2700), max_error=9, **given)
    assert [(p.cut, p.activation_bits) for p in plans] == [
        (2, (8, 2)),
        (2, (8, 4)),
        (2, (8, 8)),
        (1, (8,)),
        (0, ()),
    ]
    assert plans[0].plan.link_bytes["end", "cloud"] == 100
    # The layer b, in four bits: it reads and writes less, and its parameters are fewer.
    part = quantised(graph._replace(layers=(layers[0], Layer("b", 1, 20000, 400))), [8, 4], [8, 4])
    assert part.layers[1] == Layer("b", 1, 20000 - 350 - 4800 - 1400, 50)
    assert [t.nbytes for t in part.tensors] == [9000, 1600, 200]


def test_budgets_leave_the_float_model_in_the_cloud():
    rng = np.random.default_rng(1)
    graph, errors = random_graph(rng, 4), random_errors(rng, 4)
    given = {"bits": BITS, "weight_error": errors, "activation_error": errors}
    for keywords, topology in (
        ({"max_error": 0.0}, system(1e9)),
        ({"max_error": 9.0, "memory_bytes": 1.0}, system(1e9)),
        ({"max_error": 9.0}, system(1.0)),
        ({"max_error": 9.0, "forbidden": [("l0", "end")]}, system(1e9)),
    ):
        plans = auto_split(graph, topology, **given, **keywords)
        assert [(p.cut, p.error, p.plan.name) for p in plans] == [(0, 0.0, "all-cloud")]
        assert plans[0].graph == graph


def test_a_cut_that_sends_more_than_the_input_is_no_candidate():
    layers = (Layer("a", 1e6, 0, 4), Layer("b", 1e6, 0, 4))
    zeros = {"weight_error": np.zeros((2, 1)), "activation_error": np.zeros((2, 1))}
    for nbytes, cuts in ((1600, [1, 0]), (1604, [2, 0])):
        tensors = (Tensor("x", -1, (0,), 400), Tensor("u", 0, (1,), nbytes))
        plans = auto_split(
            LayerGraph(layers, tensors, "layer"),
            system(1e9),
            bits=(8,),
            max_error=0,
            layer_seconds=[[0, 9], [9, 0]],
            **zeros,
        )
        assert [plan.cut for plan in plans] == cuts


def test_errors_fall_with_the_step():
    rng = np.random.default_rng(0)
    params = [{"w": rng.uniform(-1, 1, (50, 50)), "b": jnp.zeros(50)}, {}, {"w": np.ones(3)}]
    table = quantisation_error(params, (4, 8))
    # Uniform values: step ** 2 / 12, and the biases are exact.
    expected = (2 / np.array([15, 255])) ** 2 / 12 * 2500 / 2550
    assert table[0] == pytest.approx(expected, rel=0.1)
    assert not table[1:].any()


def test_wrong_arguments_are_named():
    graph = random_graph(np.random.default_rng(0), 3)
    table = np.zeros((3, 3))
    given = {"bits": BITS, "weight_error": table, "activation_error": table, "max_error": 1}
    for arguments, message in (
        ({"two_way": True}, "leave two_way out"),
        ({"codecs": [LinkCodec("c", 1)]}, "leave codecs out"),
        ({"bits": (4, 2, 8)}, r"bits must ascend within \[1, 32\]"),
        ({"bits": (4, 8, 64)}, "bits must ascend"),
        ({"weight_error": table[:2]}, r"weight_error must be \[layers, bits\] = \(3, 3\)"),
        ({"activation_error": table - 1}, "activation_error must be finite and >= 0"),
        ({"max_error": -1}, "max_error must be >= 0"),
        ({"objective": "worst_latency"}, "no sum over layers"),
    ):
        with pytest.raises(ValueError, match=message):
            auto_split(graph, three_tier(), **(given | arguments))
