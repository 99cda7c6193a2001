"""Runs one input under limits of time and memory and says what is wrong with how pairform answers it."""

import contextlib
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pairform

SECONDS = 2.0
"""Of CPU time."""
WALL_SECONDS = 60.0
"""A call that waits (for a named pipe, say) uses no CPU time."""
MEGABYTES = 500
MESSAGE = 2000
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class OutOfTimeError(BaseException):
    """Not an `Exception`, so that no handler in between takes it for an input's error."""


class WrongAnswerError(Exception):
    """An answer that is neither a result nor a refusal: a number that is not finite, say."""


def fault(call: Callable[[], object]) -> str | None:
    """What is wrong with the answer to an input; None if it was handled or refused as it should be."""
    before = resident()
    try:
        with warnings.catch_warnings(), limited():
            warnings.simplefilter("ignore")
            call()
    except pairform.PairformError as error:
        message = str(error)
        if len(message) >= MESSAGE:
            return f"a message of {len(message):,} characters"
        if not all(line.isprintable() for line in message.split("\n")):
            return f"a message with characters that a terminal acts on: {message!r}"
    except OutOfTimeError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    used = peak() - before
    return f"{used} MB of memory" if used > MEGABYTES else None


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Stop after `SECONDS` of CPU time or `WALL_SECONDS`; let no more be allocated than four times what is allowed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError("more than its CPU time" if number == signal.SIGPROF else f"more than {WALL_SECONDS:g} s")

    old = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    bounds = resource.getrlimit(resource.RLIMIT_AS)
    reset_peak()
    resource.setrlimit(resource.RLIMIT_AS, (min_limit(megabytes("VmSize") + 4 * MEGABYTES, bounds[1]), bounds[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, bounds)
        for number, handler in old.items():
            signal.signal(number, handler)


def min_limit(wanted: int, hard: int) -> int:
    size = wanted << 20
    return size if hard == resource.RLIM_INFINITY else min(size, hard)


def reset_peak() -> None:
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")


def resident() -> int:
    return megabytes("VmRSS")


def peak() -> int:
    return megabytes("VmHWM")


def megabytes(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) >> 10
    raise LookupError(field)
