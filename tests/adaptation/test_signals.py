"""Signals: which of them end training after a step, and which end a process at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from pairform.training.adaptation import interruption
from pairform.training.adaptation.interruption import ENDING, Interruption
from pairform.training.parallel import ALONE

Received = list[int]


@pytest.fixture
def received() -> Iterator[Received]:
    """The signals that reach the handlers of before."""
    found: Received = []
    before = {number: signal.signal(number, lambda number, _: found.append(number)) for number in ENDING.stop}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_ends_training_after_a_step_and_another_one_at_once(received: Received) -> None:
    with Interruption() as stop, stop.training():
        assert not stop.asked(ALONE).stop
        send(signal.SIGTERM)
        assert stop.asked(ALONE).stop
        assert received == []
        send(signal.SIGINT)
        assert received == [signal.SIGINT]


@pytest.mark.parametrize("number", ENDING.stop)
def test_before_training_signals_have_their_usual_effect(number: int, received: Received) -> None:
    with Interruption() as stop:
        send(number)
        assert received == [number]
        assert not stop.asked(ALONE).stop
    send(number)
    assert received == [number, number]


def test_ignored_signals_stay_ignored(received: Received) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption() as stop, stop.training():
        send(signal.SIGHUP)
        assert not stop.asked(ALONE).stop


def test_torchrun_passes_on_a_signal_that_the_process_has_received(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """And sends SIGTERM to those that are about to report why they failed."""
    monkeypatch.setenv("RANK", "0")
    with Interruption() as stop, stop.training():
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert stop.asked(ALONE).stop
        assert received == []
        monkeypatch.setattr(interruption, "ECHO", 0.0)
        send(signal.SIGINT)
        assert received == [signal.SIGINT]
    with Interruption() as stop:
        with stop.training():
            pass
        send(signal.SIGTERM)
        assert received == [signal.SIGINT]
        send(signal.SIGINT)
        assert received == [signal.SIGINT, signal.SIGINT]
