"""Pictures and text of schedules."""

import io

import pytest
from matplotlib.patches import Rectangle

from eejax.cotrain.pipeline import (
    SCHEDULES,
    draw_schedule,
    interleaved,
    one_f_one_b,
    text_schedule,
    timeline,
)


def test_text_by_hand():
    assert text_schedule(one_f_one_b(2, 3)).splitlines() == [
        "stage 0  F0 .. F1 B0 F2 B1 .. B2",
        "stage 1  .. F0 B0 F1 B1 F2 B2 ..",
    ]
    assert text_schedule(interleaved(2, 2, chunks=2)).splitlines() == [
        "stage 0  F0a     F1a     F0b     F1b     B0b     B1b     B0a     B1a",
        "stage 1  ..      F0a     F1a     F0b,B0b F1b,B1b B0a     B1a     ..",
    ]
    assert text_schedule(one_f_one_b(11, 1)).splitlines()[0].startswith("stage  0  F0 ..")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_box_for_every_task_where_and_when_it_runs(name):
    schedule = SCHEDULES[name](3, 6)
    ax = draw_schedule(schedule, lockstep=True)
    idle, boxes = ax.patches[:3], ax.patches[3:]
    tasks = timeline(schedule, lockstep=True)
    assert [(b.get_x(), b.get_x() + b.get_width(), b.get_y() + 0.4) for b in boxes] == [
        pytest.approx((task.start, task.end, task.stage)) for task in tasks
    ]
    assert all(isinstance(bar, Rectangle) for bar in idle)
    assert {bar.get_width() for bar in idle} == {max(task.end for task in tasks)}
    # As many colours as kinds and chunks.
    assert len({box.get_facecolor() for box in boxes}) == 2 * schedule.chunks
    ax.figure.savefig(io.BytesIO(), format="svg")


def test_names_are_checked_and_shown():
    ax = draw_schedule(one_f_one_b(3, 6), names=("end", "edge", "cloud"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["end", "edge", "cloud"]
    with pytest.raises(ValueError, match=r"names must be 3, one for each stage; got \('end',\)"):
        draw_schedule(one_f_one_b(3, 6), names=("end",))
