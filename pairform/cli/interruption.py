"""Message and exit code of commands that can be interrupted and resumed."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(KeyboardInterrupt):
    """A signal asked the process to end. Clean-up runs as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def stop_message(message: str) -> Iterator[None]:
    """Print `message` to standard error and exit with 128 + the signal's number on Ctrl-C, SIGTERM and SIGHUP.

    Ignored signals stay ignored, such as SIGHUP under `nohup`. Does nothing outside the main thread, where Python handles no
    signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in handlers:
            signal.signal(each, signal.SIG_IGN)  # so that clean-up is not interrupted
        raise StoppedError(number)

    defaults = (signal.SIG_DFL, signal.default_int_handler)
    handlers = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) in defaults}
    try:
        for number in handlers:
            signal.signal(number, stop)
        yield
    except KeyboardInterrupt as interrupt:
        print(message, file=sys.stderr)
        sys.exit(128 + (interrupt.number if isinstance(interrupt, StoppedError) else signal.SIGINT))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
