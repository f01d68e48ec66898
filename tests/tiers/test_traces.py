"""Traces against values and times worked out by hand."""

import jax
import numpy as np
import pytest

from eejax.tiers import Trace, constant, from_csv, markov, transfer_end, value_at

# 1 MB/s until 10 s, nothing until 12 s, then 2 MB/s for ever.
OUTAGE = Trace([0, 10, 12], [8e6, 0, 16e6])
ENDS_DEAD = Trace([0, 5], [8e6, 0])


def test_value_at_is_a_step_function():
    times = [0, 9.999, 10, 11, 12, 1e9]
    assert value_at(OUTAGE, times).tolist() == [8e6, 8e6, 0, 0, 16e6, 16e6]
    assert value_at(OUTAGE, 10.5) == 0
    assert value_at(constant(3.0), np.zeros((2, 3))).tolist() == [[3, 3, 3], [3, 3, 3]]


@pytest.mark.parametrize(
    ("start", "megabytes", "end"),
    [
        (0, 4, 4),
        (2, 4, 6),
        (0, 10, 10),  # The last bit leaves when the outage begins.
        (9, 2, 12.5),  # 1 MB before the outage, 1 MB after it at twice the speed.
        (0, 14, 14),  # 10 MB, the outage, 4 MB.
        (10, 2, 13),
        (11, 2, 13),
        (12, 2, 13),
        (20, 3, 21.5),
        (3, 0, 3),
        (11, 0, 11),
        (9.5, 0.5, 10),
    ],
)
def test_transfer_end_by_hand(start, megabytes, end):
    assert transfer_end(OUTAGE, start, megabytes * 1e6) == pytest.approx(end, rel=1e-12)


def test_transfer_end_over_arrays():
    ends = transfer_end(OUTAGE, np.array([[0.0], [9.0]]), np.array([0, 2e6, 4e6]))
    np.testing.assert_allclose(ends, [[0, 2, 4], [9, 12.5, 13.5]])


def test_a_transfer_into_a_final_outage_never_ends():
    ends = transfer_end(ENDS_DEAD, [0, 0, 6, 6], [5e6, 6e6, 1, 0])
    assert ends.tolist() == [5, np.inf, np.inf, 6]
    assert transfer_end(constant(0.0), 0, 1) == np.inf
    assert transfer_end(constant(0.0), 0, 0) == 0


def test_two_transfers_in_a_row_end_like_one():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1e7, 50) * (rng.random(50) < 0.8)
    values[-1] = 1e6
    trace = Trace(np.concatenate([[0], np.cumsum(rng.uniform(0.1, 2, 49))]), values)
    start, a, b = rng.uniform(0, 60, 200), rng.uniform(0, 1e7, 200), rng.uniform(0, 1e7, 200)
    middle = transfer_end(trace, start, a)
    assert (middle >= start).all()
    np.testing.assert_allclose(transfer_end(trace, middle, b), transfer_end(trace, start, a + b))


def test_no_transfer_ends_before_it_begins():
    starts = np.random.default_rng(0).uniform(0, 30, 1000)
    assert transfer_end(OUTAGE, starts, 0).tolist() == starts.tolist()
    # So small that it is lost beside the bits before the outage.
    assert transfer_end(OUTAGE, 11.0, 1e-12) >= 11


def test_constant_bandwidth_is_a_division():
    assert transfer_end(constant(4e6), 1.5, 1e6) == 3.5


def chain(key=0, **changes):
    arguments = {
        "states": [1e6, 8e6],
        "transition": [[0.9, 0.1], [0.3, 0.7]],
        "step_s": 0.5,
        "duration_s": 2000.0,
        "key": jax.random.key(key),
    }
    return markov(**(arguments | changes))


def test_markov_is_seeded():
    assert chain(0) == chain(0)
    assert chain(0) != chain(1)


def test_markov_has_the_stationary_distribution_and_the_steps():
    trace = chain()
    assert trace.values.shape == (4000,)
    assert trace.values[0] == 1e6
    np.testing.assert_allclose(np.diff(trace.times_s), 0.5)
    # pi = pi P: 3/4 and 1/4. The correlation 0.6 makes 4,000 steps worth 1,000: sd 0.014.
    assert np.mean(trace.values == 1e6) == pytest.approx(0.75, abs=0.06)
    leave = np.mean(trace.values[1:][trace.values[:-1] == 1e6] == 8e6)
    assert leave == pytest.approx(0.1, abs=0.03)


def test_markov_that_cannot_choose():
    trace = chain(transition=[[0, 1], [1, 0]], duration_s=2.2, start=1)
    assert trace.values.tolist() == [8e6, 1e6, 8e6, 1e6, 8e6]
    assert chain(transition=np.eye(2), duration_s=0.1).values.tolist() == [1e6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": [[1.0]]}, r"transition must be \[2, 2\], got \(1, 1\)"),
        ({"transition": [[1, 0], [0.5, 0.6]]}, r"transition\[1\] must be probabilities of sum 1"),
        ({"transition": [[1.5, -0.5], [0, 1]]}, r"transition\[0\] must be probabilities"),
        ({"step_s": 0}, "step_s must be finite and > 0, got 0"),
        ({"duration_s": np.inf}, "duration_s must be finite and > 0, got inf"),
        ({"start": 2}, r"start must be in \[0, 2\), got 2"),
        ({"states": [-1, 1], "duration_s": 1.0}, r"values\[0\] must be finite and >= 0, got -1"),
    ],
)
def test_markov_names_the_wrong_argument(changes, message):
    with pytest.raises(ValueError, match=message):
        chain(**changes)


@pytest.mark.parametrize(
    ("times", "values", "message"),
    [
        ([0], [1, 2], "times_s has 1 steps, values 2"),
        ([1, 2], [1, 2], r"times_s\[0\] must be 0, got 1"),
        ([0, 2, 2], [1, 2, 3], r"times_s\[2\] must be > 2, got 2"),
        ([0, -1], [1, 2], r"times_s\[1\] must be finite and >= 0, got -1"),
        ([0, 1], [1, np.nan], r"values\[1\] must be finite and >= 0, got nan"),
        ([], [], r"times_s must be an array \[steps\], got shape \(0,\)"),
        (0, 1, r"times_s must be an array \[steps\], got shape \(\)"),
    ],
)
def test_trace_names_what_is_wrong(times, values, message):
    with pytest.raises(ValueError, match=message):
        Trace(times, values)


def test_a_trace_never_changes():
    values = np.array([1.0, 2.0])
    trace = Trace([0, 1], values)
    values[0] = 5
    assert trace == Trace([0, 1], [1, 2])
    assert trace != Trace([0, 2], [1, 2])
    with pytest.raises(ValueError, match="read-only"):
        trace.values[0] = 5


def test_negative_times_and_sizes():
    with pytest.raises(ValueError, match="t must be >= 0, got -1"):
        value_at(OUTAGE, [1, -1])
    with pytest.raises(ValueError, match="start_s must be >= 0, got -1"):
        transfer_end(OUTAGE, -1, 5)
    with pytest.raises(ValueError, match="nbytes must be >= 0, got -5"):
        transfer_end(OUTAGE, 1, -5)


def test_recorded_trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time_s,value\n0,8e6\n10,0\n12.0,16e6\n")
    assert from_csv(path) == OUTAGE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must be 'time_s,value', got ''"),
        ("t,bps\n0,1\n", "line 1 must be 'time_s,value', got 't,bps'"),
        ("time_s,value\n0,1\n1,fast\n", "line 3 must be two numbers, got '1,fast'"),
        ("time_s,value\n0,1,2\n", "line 2 must be two numbers, got '0,1,2'"),
        ("time_s,value\n0,1\n\n", "line 3 must be two numbers, got ''"),
        ("time_s,value\n", r"times_s must be an array \[steps\], got shape \(0,\)"),
        ("time_s,value\n0,1\n5,-2\n", r"values\[1\] must be finite and >= 0, got -2; index 0 is l"),
        ("time_s,value\n0,1\n5,nan\n", r"values\[1\] must be finite and >= 0, got nan"),
    ],
)
def test_recorded_trace_names_file_and_line(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.csv: {message}"):
        from_csv(path)


def test_missing_trace_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        from_csv(tmp_path / "missing.csv")
