import os
import signal
import threading

import pytest

from eejax.experiment.signals import Interrupted, catch_signals


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_safe_point(signum, capfd):
    before = signal.getsignal(signum)
    with catch_signals() as stop:
        stop.check()
        assert stop.requested() is None
        os.kill(os.getpid(), signum)
        assert stop.requested() == signum
        with pytest.raises(Interrupted, match=f"stopped by {signum.name}") as caught:
            stop.check(saved=40)
        assert (caught.value.signum, caught.value.saved) == (signum, 40)
        # The next one, of either kind, ends the process.
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signum) is before
    assert f"{signum.name}: saving and stopping" in capfd.readouterr().err


def test_handlers_return_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), catch_signals():
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_run_without_handlers():
    seen = []

    def work():
        with catch_signals() as stop:
            stop.check()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
