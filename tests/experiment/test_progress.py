import io

import pytest
from rich.console import Console

from eejax.experiment.progress import make_progress


def shown(*, terminal, quiet=False, stop=3):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    progress = make_progress(quiet, console)
    with progress.track(3, "co-train", done=1) as update:
        for done in range(2, stop + 1):
            update(done, "accuracy [0.90]")
    progress.say("end [b]")
    return file.getvalue()


def test_without_a_terminal_a_phase_is_one_plain_line():
    first, last = shown(terminal=False).splitlines()
    assert first.startswith("co-train     3/3 in 0.0 s  accuracy [0.90]")
    assert last == "end [b]"


def test_an_unfinished_phase_tells_how_far_it_came():
    assert shown(terminal=False, stop=2).startswith("co-train     2/3 ")
    with pytest.raises(KeyboardInterrupt), make_progress().track(3, "co-train"):
        raise KeyboardInterrupt


def test_a_terminal_gets_a_bar_with_a_note():
    text = shown(terminal=True)
    assert "\x1b[" in text
    assert "3/3" in text
    assert "accuracy [0.90]" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_hides_phases_but_not_messages(terminal):
    assert shown(terminal=terminal, quiet=True) == "end [b]\n"
