"""Real text that every machine with Python has: the language's own documentation, as bytes."""

from typing import NamedTuple

import numpy as np

VOCABULARY = 256


class GroupedText(NamedTuple):
    """Sequences of bytes with natural groups; what to predict is the byte that follows.

    Attributes:
      inputs: int32 ``[n, seq]``.
      labels: int32 ``[n, seq]``, the inputs one byte later.
      groups: int32 ``[n]``, positions in ``names``.
      names: of the groups.
    """

    inputs: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]


def python_documentation(split: str = "train") -> np.ndarray:
    """Loads the help topics of Python, which come with its standard library.

    About 460,000 bytes; how many exactly depends on the version of Python.

    Args:
      split: ``train``, the first nine tenths, or ``test``, the rest.

    Returns:
      uint8 ``[n]``, UTF-8.

    Raises:
      ValueError: the split is neither.

    Example:
      >>> text = python_documentation("test")
      >>> text.dtype.name, len(text) > 10_000
      ('uint8', True)
    """
    from pydoc_data.topics import topics

    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    text = "\n".join(topics[name] for name in sorted(topics)).encode()
    cut = len(text) * 9 // 10
    return np.frombuffer(text[:cut] if split == "train" else text[cut:], np.uint8)


def python_topics(seq: int, min_sequences: int = 1) -> GroupedText:
    """Cuts each help topic of Python into sequences: embedded text whose groups are real.

    Of 80 or so topics some are a hundred times longer than others, and each is about one subject:
    clients of unequal size and of different words.

    Args:
      seq: bytes of each sequence; what remains of a topic is left out.
      min_sequences: topics with fewer are left out.

    Returns:
      The sequences, topic by topic, and which topic each is of; for `natural`.

    Raises:
      ValueError: ``seq`` is below 1, or no topic has so many sequences.

    Example:
      >>> text = python_topics(seq=64, min_sequences=100)
      >>> text.inputs.shape[1], "typesseq" in text.names
      (64, True)
    """
    from pydoc_data.topics import topics

    if seq < 1:
        raise ValueError(f"seq must be at least 1; got {seq!r}")
    found = {}
    for name in sorted(topics):
        text = np.frombuffer(topics[name].encode(), np.uint8).astype(np.int32)
        n = (len(text) - 1) // seq
        if n >= max(min_sequences, 1):
            found[name] = text[: n * seq].reshape(n, seq), text[1 : n * seq + 1].reshape(n, seq)
    if not found:
        raise ValueError(f"min_sequences: no topic has {min_sequences!r} sequences of {seq} bytes")
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*found.values()))
    counts = [len(rows) for rows, _ in found.values()]
    groups = np.repeat(np.arange(len(found), dtype=np.int32), counts)
    return GroupedText(inputs, labels, groups, tuple(found))


def next_byte_batch(
    text: np.ndarray, seed: int, step: int, sequences: int, seq: int
) -> dict[str, np.ndarray]:
    """Draws sequences at random places; what to predict is the byte that follows.

    Args:
      text: uint8 ``[n]``.
      seed: of the run.
      step: of the run; seed and step alone decide what is drawn.
      sequences: how many.
      seq: bytes of each.

    Returns:
      ``inputs`` and ``labels``, both int32 ``[sequences * seq]``.

    Example:
      >>> batch = next_byte_batch(np.arange(9, dtype=np.uint8), 0, 0, sequences=1, seq=4)
      >>> (batch["labels"] - batch["inputs"]).tolist()
      [1, 1, 1, 1]
    """
    start = np.random.default_rng([seed, step]).integers(len(text) - seq, size=(sequences, 1))
    place = start + np.arange(seq)
    return {
        "inputs": text[place].astype(np.int32).reshape(-1),
        "labels": text[place + 1].astype(np.int32).reshape(-1),
    }


def entropy_bits(text: np.ndarray, order: int = 0) -> float:
    """Tells how well the best model that sees only the last ``order`` bytes could do on this text.

    Args:
      text: uint8 ``[n]``; the counts are its own, so this is optimistic for short texts.
      order: 0 knows only how often bytes are, 1 also the byte before.

    Returns:
      Bits per byte.

    Example:
      >>> entropy_bits(np.array([0, 1, 0, 1], np.uint8)), entropy_bits(np.array([0, 1] * 8), 1)
      (1.0, 0.0)
    """

    def bits(codes: np.ndarray) -> float:
        _, counts = np.unique(codes, return_counts=True)
        p = counts / counts.sum()
        return float(-(p * np.log2(p)).sum())

    codes = np.zeros(len(text) - order, np.int64)
    for back in range(order):
        codes = codes * VOCABULARY + text[back : len(text) - order + back]
    joint = codes * VOCABULARY + text[order:]
    return bits(joint) - (bits(codes) if order else 0.0)
