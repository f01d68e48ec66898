"""JALAD against every pair of a cut and a bit-width, and its tables against sizes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.core import Exit, Stage
from eejax.models.staged import init, run, staged
from eejax.partition import Layer, LayerGraph, LinkCodec, Tensor, objective, price
from eejax.partition.jalad import jalad, measure
from eejax.tiers import three_tier
from eejax.wire import affine, chain, deflate

BITS = (2, 4, 8)


def random_chain(rng, layers):
    return LayerGraph(
        tuple(Layer(f"l{i}", 10 ** rng.uniform(7, 11), 1e5, 10) for i in range(layers)),
        tuple(Tensor(f"t{i}", i - 1, (i,), 10 ** rng.uniform(4, 6)) for i in range(layers)),
        "layer",
    )


def tables(rng, graph):
    shape = (len(graph.layers) - 1, len(BITS))
    full = np.array([[t.nbytes] for t in graph.tensors[1:]])
    return {
        "bits": BITS,
        "loss": np.sort(rng.uniform(0, 0.1, shape))[:, ::-1],
        "nbytes": full * np.divide(BITS, 32) * rng.uniform(0.3, 1, shape),
        "codec_s": rng.uniform(0, 0.01, shape),
    }


@pytest.mark.parametrize("seed", range(12))
def test_best_of_all_pairs_within_the_loss(seed):
    rng = np.random.default_rng(seed)
    graph, topology = random_chain(rng, 6), three_tier(ends=2)
    table = tables(rng, graph)
    goal = ("latency", "end_energy", {"latency": 1, "bytes": 1e-6})[seed % 3]
    low, high = tiers = [(0, 1), (0, 2), (1, 2)][seed // 3 % 3]
    for max_loss in (0.0, 0.02, 1.0):
        costs = [price(graph, topology, [k] * 6) for k in tiers]
        for cut in range(1, 6):
            for c in range(len(BITS)):
                if table["loss"][cut - 1, c] > max_loss:
                    continue
                # A graph whose features have these bytes, and the codec's time by hand.
                tensors = list(graph.tensors)
                tensors[cut] = tensors[cut]._replace(nbytes=table["nbytes"][cut - 1, c])
                seconds = np.zeros((6, 2))
                seconds[cut, low] = table["codec_s"][cut - 1, c]
                sizes = [t.nbytes for t in tensors]
                choice = np.ones((6, 2), int)
                plan = price(
                    graph._replace(tensors=tuple(tensors)),
                    topology,
                    [low] * cut + [high] * (6 - cut),
                    codecs=[LinkCodec("given", sizes, seconds)],
                    choice=choice,
                )
                costs.append(plan)
        found = jalad(graph, topology, goal, max_loss=max_loss, tiers=tiers, **table)
        least = min(objective(plan, goal) for plan in costs)
        assert objective(found.plan, goal) == pytest.approx(least)
        assert found.loss <= max_loss
        assert (found.bits is None) == (len(set(found.plan.assignment)) == 1)


def test_golden_latency():
    layers = (Layer("a", 0, 0, 1), Layer("b", 1e12, 0, 1))
    tensors = (Tensor("x", -1, (0,), 1e9), Tensor("u", 0, (1,), 1e9))
    graph, topology = LayerGraph(layers, tensors, "layer"), three_tier(ends=1, edges=1)
    link = topology.tiers[0].link(0)
    server = topology.tiers[1].device(0)
    found = jalad(
        graph,
        topology,
        bits=(8,),
        loss=[[0.01]],
        nbytes=[[1000]],
        codec_s=0.5,
        max_loss=0.01,
        tiers=("end", "edge"),
    )
    up = link.rtt_s / 2 + 8000 / link.bandwidth_up_bps / (1 - link.loss)
    down = link.rtt_s / 2 + 32 / link.bandwidth_down_bps / (1 - link.loss)
    work = 1e12 / server.flops_per_s + server.overhead_s
    assert found.plan.latency_s[0] == pytest.approx(0.5 + up + work + down)
    assert found.bits == 8
    assert found.plan.codecs["end", "edge"] == {"u": "8 bits"}


def linear(name, width):
    def make(key, x):
        return jax.random.normal(key, (x.shape[-1], width))

    return Stage(name, make, lambda params, x, train=False, key=None: jnp.tanh(x @ params))


def test_tables_are_those_of_the_codec():
    model = staged(
        (linear("a", 16), linear("b", 8), linear("c", 8)), (Exit("c", linear("answer", 3)),)
    )
    x = jax.random.normal(jax.random.key(1), (12, 5))
    params = init(model, jax.random.key(0), x)
    labels = run(model, params, x)[1][-1].argmax(-1)
    broken = affine(4)._replace(decode=lambda payload: affine(4).decode(payload) * 0 - 1)
    packed = chain(affine(4), deflate())
    found = measure(model, params, x, labels, [affine(8), affine(4), packed, broken])
    # Codes, four bytes of scale, one of zero point.
    assert found.nbytes[:, :2].tolist() == [[21, 13], [13, 9]]
    assert (found.nbytes[:, 2] > 9).all()
    assert (found.loss[:, 1] == found.loss[:, 2]).all()
    # Features that say nothing leave one answer for all samples.
    most = np.bincount(np.asarray(labels)).max() / 12
    assert (found.loss[:, 3] >= 1 - most - 1e-6).all()
    assert (found.loss[:, 0] < 0.1).all()


def test_what_it_cannot_do_is_refused():
    rng = np.random.default_rng(0)
    graph, topology = random_chain(rng, 4), three_tier()
    given = tables(rng, graph) | {"max_loss": 0.1}
    for arguments, message in (
        ({"two_way": True}, "leave two_way out"),
        ({"codecs": [LinkCodec("c", 1)]}, "leave codecs out"),
        ({"loss": np.zeros((4, 3))}, r"loss must be \[layers - 1, bits\] = \(3, 3\)"),
        ({"nbytes": -given["nbytes"]}, "must be >= 0"),
        ({"loss": np.full((3, 3), np.nan)}, "loss must hold no nan"),
        ({"max_loss": -1.0}, "no feasible cut loses at most max_loss=-1"),
        ({"objective": "latancy"}, "did you mean 'latency'"),
    ):
        with pytest.raises(ValueError, match=message):
            jalad(graph, topology, **(given | arguments))
    skip = graph._replace(tensors=(*graph.tensors, Tensor("skip", 0, (3,), 9)))
    with pytest.raises(ValueError, match="jalad cuts chains only, and tensor 'skip'"):
        jalad(skip, topology, **given)
    two = graph._replace(tensors=(*graph.tensors, Tensor("twin", 0, (1,), 9)))
    with pytest.raises(ValueError, match="one tensor at a cut"):
        jalad(two, topology, **given)
