"""Errors of the Hugging Face hub as ours: what is wrong, and what to do. The server's words are repeated in part at most."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pairform.registry import CheckpointError, OutputError, PairformError, Problem, shorten

MALFORMED = (LookupError, TypeError, AttributeError, AssertionError)
"""What huggingface_hub raises for answers of another form than the hub's."""
LOGIN = "log in with `hf auth login`"


@dataclass(frozen=True)
class Repository:
    """A model's repository on the hub, at a branch, tag or commit."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @property
    def url(self) -> str:
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.name}"


@contextmanager
def hub_errors(repository: Repository, kind: type[PairformError] = CheckpointError, *, cached: bool = False) -> Iterator[None]:
    """Report what a call of huggingface_hub raises as an error of `kind`.

    cached: whether some files of the repository are known to be in the cache.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except PairformError:
        raise
    except (http_error(), OfflineModeIsEnabled, OSError, ValueError, RuntimeError, *MALFORMED) as error:
        if isinstance(error, MALFORMED) and kind is not CheckpointError:
            raise  # of our own code
        incomplete = cached and isinstance(error, LocalEntryNotFoundError)
        raise kind(partly(repository) if incomplete else problem(repository, error, writing=kind is OutputError)) from None


def http_error() -> type[Exception]:
    """The base of the errors of HTTP. It is of the package that huggingface_hub uses for HTTP, which its version decides."""
    from huggingface_hub import errors

    return errors.HTTPError  # type: ignore[attr-defined]


def problem(repository: Repository, error: BaseException, *, writing: bool = False) -> Problem:
    """What a call of huggingface_hub that raised `error` says about a repository, which it reads or writes."""
    from huggingface_hub import errors

    where, at = repository.name, f" at {repository.revision!r}" if repository.revision else ""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of one of several uploads
        error = error.__cause__
    if isinstance(error, errors.GatedRepoError):
        remedy = f"Accept the terms at {repository.url} and {LOGIN}."
        return Problem(where, "a gated repository that you may not read yet", "one whose terms you accepted", remedy)
    if isinstance(error, errors.DisabledRepoError):
        return Problem(where, "a repository that the hub has disabled", "one that can be read")
    if isinstance(error, errors.RepositoryNotFoundError) and writing:
        remedy = f"Check the name, and {LOGIN}, with a token that may write there."
        return Problem(where, "no hub repository that you may write to", "one of yours, or of an organisation's", remedy)
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = f"Check the name. If the repository is private, {LOGIN}."
        return Problem(where, "no such folder, and no such hub repository that you may read", "one of them", remedy)
    if isinstance(error, errors.RevisionNotFoundError):
        return Problem(where, f"no revision {repository.revision!r}", "a branch, tag or commit", f"See {repository.url}.")
    if isinstance(error, getattr(errors, "IncompleteSnapshotError", ())):  # of later versions
        return partly(repository)
    if isinstance(error, errors.OfflineModeIsEnabled) or isinstance(error.__cause__, errors.OfflineModeIsEnabled):
        found = f"no such folder, and no such hub repository{at} cached; HF_HUB_OFFLINE keeps the hub from being in reach"
        return Problem(where, found, "one of them", "Check the name, or download it once without HF_HUB_OFFLINE.")
    if isinstance(error, errors.LocalEntryNotFoundError):
        found = f"no such folder, and no such hub repository{at} in reach or cached"
        return Problem(where, found, "one of them", "Check the name and the connection, or download it first.")
    if isinstance(error, errors.HfHubHTTPError):
        return answered(where, error.response.status_code, writing)
    if isinstance(error, errors.HFValidationError):
        return Problem(where, shorten(str(repository)), "a hub id: owner/name, or owner/name@revision")
    if isinstance(error, http_error()):
        found = f"no connection to the hub ({type(error).__name__})"
        return Problem(where, found, "a hub in reach", "Check the connection, and try again.")
    found = getattr(error, "strerror", None) or f"{type(error).__name__} while talking to the hub: {shorten(str(error), 300)}"
    return Problem(where, found, "a hub repository in reach, and room for its files")


def partly(repository: Repository) -> Problem:
    """Some files are in the cache, and the others cannot be downloaded."""
    found = "only some of the files in the cache, and no hub in reach"
    return Problem(str(repository), found, "the whole model", "Download it once with a connection.")


def answered(where: str, status: int, writing: bool) -> Problem:
    """The hub's answer was an error."""
    remedies = {
        401: f"There is no token, or none that is valid: {LOGIN}.",
        403: f"Your token may not do this: use one with the right to {'write to' if writing else 'read'} this repository.",
        409: "Something else is changing the repository: try again.",
        412: "Someone else changed the branch meanwhile: look at it, and try again.",
        429: "Too many requests: wait, and try again.",
    }
    remedy = remedies.get(status, "Try again later." if status >= 500 else "")
    return Problem(where, f"the hub's answer {status}", "that it accepts the request", remedy)
