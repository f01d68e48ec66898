"""Tree tools: names, rules, sizes, sums, digests."""

import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees


class Pair(NamedTuple):
    first: object
    second: object


def params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "end": {"conv": {"kernel": rng.normal(size=(3, 2)).astype(np.float32)}},
        "edge": [np.arange(4, dtype=np.int8), Pair(np.float32(1.5), jnp.ones(2, jnp.bfloat16))],
    }


NAMES = ["edge/0", "edge/1/first", "edge/1/second", "end/conv/kernel"]


def test_paths_of_dicts_lists_and_tuples():
    paths = [trees.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params())]
    assert paths == NAMES
    assert trees.path_name(()) == ""


def test_map_with_path_keeps_the_structure_and_passes_the_rest():
    tree = params()
    names = trees.map_with_path(lambda name, leaf: name, tree)
    assert jax.tree.structure(names) == jax.tree.structure(tree)
    assert jax.tree.leaves(names) == NAMES
    sums = trees.map_with_path(lambda name, a, b: a + b, {"x": 1, "y": 2}, {"x": 10, "y": 20})
    assert sums == {"x": 11, "y": 22}


def test_first_rule_wins_and_the_rest_gets_the_default():
    rules = [("^edge/1", "a"), ("edge", "b"), ("kernel$", "c")]
    values = trees.match_rules(rules, params(), default="d")
    assert jax.tree.leaves(values) == ["b", "a", "a", "c"]
    swapped = trees.match_rules([rules[1], rules[0], ("nel", "c")], params())
    assert jax.tree.leaves(swapped) == ["b", "b", "b", "c"]
    only = trees.match_rules([("kernel", 1)], params(), default=0)
    assert jax.tree.leaves(only) == [0, 0, 0, 1]
    assert trees.match_rules([], {"w": 1.0}) == {"w": None}


def test_a_rule_that_matches_nothing_is_an_error():
    with pytest.raises(
        ValueError, match=r"rule 'kernal' matches no parameter; .*'edge/0', 'edge/1"
    ):
        trees.match_rules([("kernel", 1), ("kernal", 2)], params())


def test_abstract_has_shapes_and_dtypes_and_no_data():
    abstract = trees.abstract(params())
    assert jax.tree.structure(abstract) == jax.tree.structure(params())
    assert [(x.shape, str(x.dtype)) for x in jax.tree.leaves(abstract)] == [
        ((4,), "int8"),
        ((), "float32"),
        ((2,), "bfloat16"),
        ((3, 2), "float32"),
    ]
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(abstract))
    assert trees.abstract({"n": 3})["n"].shape == ()


def test_size_and_nbytes_need_no_data():
    for tree in (params(), trees.abstract(params())):
        assert trees.size(tree) == 4 + 1 + 2 + 6
        assert trees.nbytes(tree) == 4 + 4 + 4 + 24
    assert trees.size({}) == trees.nbytes({}) == 0
    assert trees.size(np.zeros((3, 0))) == trees.nbytes(np.zeros((3, 0))) == 0


@pytest.mark.parametrize(
    ("shape", "dtype", "nbytes"),
    [((5,), jnp.int4, 3), ((2, 3), jnp.uint4, 3), ((9,), jnp.int2, 3), ((7,), bool, 7)],
)
def test_small_dtypes_are_packed_by_leaf(shape, dtype, nbytes):
    leaf = jax.ShapeDtypeStruct(shape, dtype)
    assert trees.nbytes(leaf) == nbytes
    assert trees.nbytes([leaf, leaf]) == 2 * nbytes


def test_weighted_sum_by_hand():
    tree = {"a": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.array([10, 20], jnp.bfloat16)}
    total = trees.weighted_sum(jnp.array([0.25, 0.75]), tree)
    np.testing.assert_allclose(total["a"], [2.5, 3.5])
    assert total["b"] == 17.5
    assert total["b"].dtype == jnp.bfloat16
    batch = trees.weighted_sum(jnp.array([1.0, -1.0]), jnp.arange(12.0).reshape(2, 3, 2))
    np.testing.assert_allclose(batch, np.full((3, 2), -6.0))


def test_add_and_sub_undo_each_other():
    a, b = {"x": np.array([1, 2]), "y": (3,)}, {"x": np.array([10, 20]), "y": (30,)}
    total = trees.add(a, b)
    assert total["x"].tolist() == [11, 22]
    assert total["y"] == (33,)
    back = trees.sub(total, b)
    assert back["x"].tolist() == [1, 2]
    assert back["y"] == (3,)


def test_digest_of_a_copy_is_the_same():
    assert trees.sha256(params()) == trees.sha256(jax.tree.map(np.array, params()))
    assert trees.sha256(params()) == trees.sha256(jax.tree.map(jnp.asarray, params()))
    strided = np.arange(12.0).reshape(3, 4).T
    assert trees.sha256(strided) == trees.sha256(np.ascontiguousarray(strided))


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.array([0.0, 1.0])},
        {"w": np.array([-0.0, 0.0])},  # To the bit, though 0 == -0.
        {"w": np.zeros(2, np.float32)},
        {"w": np.zeros((2, 1))},
        {"v": np.zeros(2)},
        {"w": np.zeros(2), "v": np.zeros(0)},
        {"w": [np.zeros(2)]},
        {},
    ],
)
def test_digest_tells_trees_apart(other):
    assert trees.sha256({"w": np.zeros(2)}) != trees.sha256(other)


def test_digest_is_the_same_in_another_process():
    """Not salted as Python's ``hash`` is: a run is compared with one of last week."""
    code = "import numpy as np; from eejax import trees; print(trees.sha256({'w': np.arange(3)}))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == trees.sha256({"w": np.arange(3)})
