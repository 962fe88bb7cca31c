"""Ctrl-C is let through only where nothing is half done."""

from __future__ import annotations

import signal

import pytest

from hpo.interrupt import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_raised_at_once_outside_and_at_the_end_inside_a_shield(number: signal.Signals) -> None:
    done = []

    def work(interrupts: Interrupts) -> None:
        with interrupts, interrupts.shielded():
            signal.raise_signal(number)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work(Interrupts())
    assert done == ["all of it"]
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(number)


def test_the_handlers_that_were_there_are_there_again() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        interrupts.install()
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
