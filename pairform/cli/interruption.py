"""Commands that can be stopped and run again: what they say and return when a signal ends them."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(KeyboardInterrupt):
    """A signal that asks the process to end; its clean-up runs as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def told_to_stop(message: str) -> Iterator[None]:
    """Print `message` to standard error and exit with 128 + the signal's number on Ctrl-C, SIGTERM and SIGHUP.

    Signals that the caller ignores, as `nohup` does with SIGHUP, stay ignored. Outside the main thread, where Python takes no
    signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)  # the clean-up is not interrupted
        raise StoppedError(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    heeded = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) in usual}
    try:
        for number in heeded:
            signal.signal(number, stop)
        yield
    except KeyboardInterrupt as interrupt:
        print(message, file=sys.stderr)
        sys.exit(128 + getattr(interrupt, "number", signal.SIGINT))
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
