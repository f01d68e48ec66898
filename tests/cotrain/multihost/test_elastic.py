"""The loop of survivors, with devices that are said to have failed; real deaths: test_multihost."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from eejax.cotrain.multihost import elastic_steps

FIRST = {"x": np.zeros(3, np.float32)}


def make_step(mesh):
    def step(state, number):
        return {"x": state["x"] + 10.0**number * mesh.size}, number

    return step


@pytest.fixture
def failing(monkeypatch):
    """Lets four of the eight devices fail at the end of a block."""

    def fail_in(block):
        entered, living = 0, jax.devices()

        @contextmanager
        def live_devices(devices):
            nonlocal entered, living
            assert devices == jax.devices()
            entered += 1
            yield living
            if entered == block:
                living = jax.devices()[:4]
                raise multihost_utils.ProcessFailureError(set(jax.devices()[4:]))

        monkeypatch.setattr(multihost_utils, "live_devices", live_devices)

    return fail_in


# Blocks: the program is made, step 1, what comes after it, step 2, what comes after it.
@pytest.mark.parametrize(("block", "first", "second"), [(1, 4, 40), (4, 8, 40), (5, 8, 80)])
def test_a_step_amid_a_death_is_done_again_on_the_smaller_mesh(failing, block, first, second):
    failing(block)
    rows, said = [], []
    state, done = elastic_steps(
        make_step, FIRST, 0, 4, after=lambda *row: rows.append(row), say=said.append
    )
    assert done == 4
    np.testing.assert_array_equal(state["x"], np.full(3, first + second + 400 + 4000))
    assert len(state["x"].devices()) == 4
    assert [(done, metrics, stopping) for done, _, metrics, stopping in rows] == [
        (1, 0, False),
        (2, 1, False),
        (3, 2, False),
        (4, 3, False),
    ]
    np.testing.assert_array_equal(rows[0][1]["x"], np.full(3, first))
    assert said == [f"lost process 0 after step {block - 3 if block > 1 else 0}: going on without"]


def test_it_starts_anywhere_and_stops_when_told(failing):
    failing(block=None)
    stops = iter([False, True])
    start = {"x": jnp.ones(3)}
    rows = []
    state, done = elastic_steps(
        make_step, start, 1, 9, after=lambda *row: rows.append(row), stop=lambda: next(stops)
    )
    assert (done, rows[-1][3]) == (3, True)
    np.testing.assert_array_equal(state["x"], np.full(3, 1 + 80 + 800))


def test_other_errors_are_not_swallowed(failing):
    failing(block=None)

    def broken(mesh):
        def step(state, number):
            raise ValueError("a bad batch")

        return step

    with pytest.raises(ValueError, match="a bad batch"):
        elastic_steps(broken, FIRST, 0, 2)
