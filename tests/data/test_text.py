"""Text as bytes: what is drawn, and what simple models could make of it."""

import numpy as np
import pytest

from eejax.data.text import entropy_bits, next_byte_batch, python_documentation


def test_the_documentation_is_split_once():
    train, test = python_documentation("train"), python_documentation("test")
    assert abs(len(train) - 9 * len(test)) < 10
    assert b"statement" in train.tobytes()
    with pytest.raises(ValueError, match="'train' or 'test'"):
        python_documentation("all")


def test_batches_depend_on_seed_and_step_alone():
    text = python_documentation("test")
    first, again = (next_byte_batch(text, 1, 2, sequences=3, seq=5) for _ in range(2))
    other = next_byte_batch(text, 1, 3, sequences=3, seq=5)
    assert first["inputs"].tolist() == again["inputs"].tolist() != other["inputs"].tolist()
    inputs, labels = (first[name].reshape(3, 5) for name in ("inputs", "labels"))
    assert inputs[:, 1:].tolist() == labels[:, :-1].tolist()


def test_entropy_by_hand():
    # Bytes a, a, b, c: 2 * 1/4 * 2 + 1/2 * 1.
    assert entropy_bits(np.frombuffer(b"aabc", np.uint8)) == pytest.approx(1.5)
    # After a come b and c as often, after b and c always a: half a bit each byte.
    text = np.frombuffer(b"abac" * 100 + b"a", np.uint8)
    assert entropy_bits(text, 1) == pytest.approx(0.5)
