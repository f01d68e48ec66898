"""Pytree tools: path names, ordered rules over paths, sizes, weighted sums, one digest.

Parameters are chosen everywhere by the same idiom: ordered ``(regex, value)`` rules over
slash-joined paths, the first match wins, and a rule that matches nothing is an error.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


def path_name(path: Sequence[Any]) -> str:
    """Joins a key path of `jax.tree_util` with slashes.

    Args:
      path: key path as given by ``jax.tree_util.tree_leaves_with_path``.

    Returns:
      A name such as ``"end/conv1/kernel"``.

    Example:
      >>> tree = {"end": {"kernel": 1.0}, "edge": [2.0, 3.0]}
      >>> [path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(tree)]
      ['edge/0', 'edge/1', 'end/kernel']
    """
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def map_with_path(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Maps ``fn(name, leaf, ...)`` over the leaves.

    Args:
      fn: called with the slash-joined name of the leaf, the leaf, and the leaves of ``rest``.
      tree: the tree that gives the names.
      *rest: trees of the same structure.

    Returns:
      A tree of the results.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: fn(path_name(path), *leaves), tree, *rest
    )


def match_rules(rules: Sequence[tuple[str, Any]], tree: PyTree, default: Any = None) -> PyTree:
    """Gives every leaf the value of the first rule whose regex is found in its path.

    Args:
      rules: ordered ``(regex, value)`` pairs; a regex is searched in the slash-joined path.
      tree: any pytree.
      default: value of a leaf that no rule matches.

    Returns:
      A tree of the same structure that holds the values.

    Raises:
      ValueError: a rule matches no leaf at all, which is nearly always a misspelt path.

    Example:
      >>> params = {"end": {"kernel": 0.0, "bias": 0.0}, "cloud": {"kernel": 0.0}}
      >>> match_rules([("^end/", "frozen"), ("kernel", "trained")], params, "free")
      {'cloud': {'kernel': 'trained'}, 'end': {'bias': 'frozen', 'kernel': 'frozen'}}
    """
    paths = [path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(tree)]
    compiled = [(re.compile(regex), value) for regex, value in rules]
    for pattern, _ in compiled:
        if not any(pattern.search(path) for path in paths):
            raise ValueError(
                f"rule {pattern.pattern!r} matches no parameter; paths begin {paths[:5]}"
            )

    def choose(name: str, leaf: Any) -> Any:
        del leaf
        return next((value for pattern, value in compiled if pattern.search(name)), default)

    return map_with_path(choose, tree)


def abstract(tree: PyTree) -> PyTree:
    """Replaces every array by its ``jax.ShapeDtypeStruct``.

    Args:
      tree: a pytree of arrays.

    Returns:
      The same structure without any data.
    """
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def size(tree: PyTree) -> int:
    """Counts the elements of all leaves.

    Args:
      tree: a pytree of arrays or abstract arrays.

    Returns:
      The number of elements.

    Example:
      >>> size({"w": np.zeros((3, 4)), "b": np.zeros(4)})
      16
    """
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def nbytes(tree: PyTree) -> int:
    """Counts the bytes of all leaves in memory order, one element after the other.

    Sub-byte dtypes are packed: two int4 to a byte, rounded up for each leaf.

    Args:
      tree: a pytree of arrays or abstract arrays.

    Returns:
      The number of bytes.

    Example:
      >>> nbytes({"w": np.zeros((3, 4), np.float32), "b": np.zeros(4, np.int8)})
      52
    """
    total = 0
    for x in jax.tree.leaves(tree):
        bits = jax.dtypes.itemsize_bits(x.dtype)
        total += -(-int(np.prod(x.shape)) * bits // 8)
    return total


def weighted_sum(weights: Any, tree: PyTree) -> PyTree:
    """Sums the leading axis of every leaf with the given weights.

    Args:
      weights: ``[n]``.
      tree: leaves shaped ``[n, ...]``.

    Returns:
      Leaves shaped ``[...]``.
    """
    return jax.tree.map(lambda x: jnp.tensordot(weights.astype(x.dtype), x, 1), tree)


def add(a: PyTree, b: PyTree) -> PyTree:
    """Adds two trees leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def sub(a: PyTree, b: PyTree) -> PyTree:
    """Subtracts tree ``b`` from tree ``a`` leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def sha256(tree: PyTree) -> str:
    """Digests names, shapes, dtypes and bytes of all leaves.

    Args:
      tree: a pytree of arrays.

    Returns:
      64 hexadecimal digits; equal if and only if the trees are equal to the bit.

    Example:
      >>> sha256({"w": np.zeros(2)}) == sha256({"w": np.zeros(2)})
      True
      >>> sha256({"w": np.zeros(2)}) == sha256({"v": np.zeros(2)})
      False
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{path_name(path)}:{array.dtype}:{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
