"""The client of the Hub: huggingface_hub, imported when it is needed, with its errors in one line of ours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metarep.errors import MetarepError, missing_extra, one_line
from metarep.weights.hub.names import HubName

LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"
BUSY = (408, 429, 500, 502, 503, 504)  # the statuses of a server that may answer later


def client() -> Any:  # noqa: ANN401 - an optional package
    """The module ``huggingface_hub``.

    Raises:
        MetarepError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise missing_extra("the Hub (hf:USER/NAME)", "huggingface_hub", "hub") from error
    return huggingface_hub


def offline() -> bool:
    """Whether the user has said that no network is to be used, by ``HF_HUB_OFFLINE``."""
    return bool(client().constants.HF_HUB_OFFLINE)


def unreachable(error: BaseException | None) -> bool:
    """Whether the Hub was not reached or is out of order, so that a copy in the cache may be used instead."""
    while error is not None:  # the client raises errors of its own from those of the network
        if (status := status_of(error)) is not None:
            return status in BUSY
        kinds = {kind.__name__ for kind in type(error).__mro__}  # of httpx, whose versions have several names
        if kinds & {"TransportError", "ConnectionError"}:
            return True
        error = error.__cause__
    return False


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an error, or one that it was raised from, is about; None if there is none."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


@contextmanager
def quiet_bars() -> Iterator[None]:
    """A context in which the client draws bars of progress only on a terminal."""
    tools = client().utils
    quiet = not sys.stderr.isatty() and client().constants.HF_HUB_DISABLE_PROGRESS_BARS is None
    quiet = quiet and not tools.are_progress_bars_disabled()
    if quiet:
        tools.disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            tools.enable_progress_bars()


@contextmanager
def worded(hub: HubName, *, writing: bool = False) -> Iterator[None]:
    """A context that words the errors of the client.

    Args:
        hub: the name that is loaded or written.
        writing: whether it is written.

    Raises:
        MetarepError: in one line, with what to do.
    """
    errors = client().errors
    try:
        yield
    except MetarepError:
        raise
    except errors.RevisionNotFoundError as error:
        raise MetarepError(f"hf:{hub.repo} has no revision {hub.revision}; check its name") from error
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        why = f"there is no model {hub.repo} on {address()}, or it is not for everybody"
        raise MetarepError(why, advice=("check the name", LOG_IN)) from error
    except Exception as error:  # of the client, of its network library, and of what a strange server makes of them
        status = status_of(error)
        if status in (401, 403):
            what = "written" if writing else "read"
            why = f"{hub} cannot be {what}: {address()} refuses the token ({status})"
            raise MetarepError(why, advice=(LOG_IN, "choose a name of your own")) from error
        if status is not None:
            why = f"{address()} answers {status} for {hub}"
            raise MetarepError(why, advice="try again later" if status in BUSY else ()) from error
        if unreachable(error):
            raise MetarepError(
                f"{address()} cannot be reached ({one_line(error)})", advice="try again later"
            ) from error
        if isinstance(error, OSError) and error.filename is not None:  # of the cache, such as a full disk
            raise
        what = "sent to" if writing else "loaded from"
        raise MetarepError(f"{hub} cannot be {what} {address()}: {one_line(error.__cause__ or error)}") from error


def address() -> str:
    """The address of the Hub, which ``HF_ENDPOINT`` may change."""
    return str(client().constants.ENDPOINT)
