"""Text as bytes: what is drawn, and what simple models could make of it."""

import numpy as np
import pytest

from eejax.data.text import entropy_bits, next_byte_batch, python_documentation, python_topics


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


def test_topics_are_whole_texts_in_sequences():
    from pydoc_data.topics import topics

    text = python_topics(seq=50, min_sequences=4)
    assert text.inputs.shape == text.labels.shape == (len(text.groups), 50)
    assert list(text.names) == sorted(name for name in topics if len(topics[name].encode()) > 200)
    for group in (0, len(text.names) - 1):
        rows = text.groups == group
        whole = topics[text.names[group]].encode()
        assert rows.sum() == (len(whole) - 1) // 50 >= 4
        assert bytes(text.inputs[rows].ravel().tolist()) == whole[: 50 * rows.sum()]
        assert bytes(text.labels[rows].ravel().tolist()) == whole[1 : 50 * rows.sum() + 1]
    sizes = np.bincount(text.groups)
    assert sizes.max() > 50 * sizes.min()  # Clients of very unequal size.


def test_topic_errors():
    with pytest.raises(ValueError, match="seq must be at least 1; got 0"):
        python_topics(0)
    with pytest.raises(ValueError, match="min_sequences: no topic has 1000000 sequences of 64"):
        python_topics(64, 1_000_000)
