"""A command on several processes that torchrun has started: joins them, and lets one of them speak."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from metarep.errors import MetarepError

COMMANDS = ("train", "evaluate", "reproduce", "index build")  # those that share their work
LIMIT, SHORT = 1800.0, 10.0  # seconds of waiting for another process that is alive, and of a call of the heartbeat
OTHERS = 60.0  # seconds in which the first process says what all have seen; torchrun ends the others when it has
GRACE = 2.0  # seconds for a process that fails to say why, before another one says that it has ended
ENDED = "a process of this command has ended, and it said nothing: it may have been killed"


def started() -> bool:
    """Whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextlib.contextmanager
def processes(command: str) -> Iterator["Voice"]:
    """A context in which a command shares its work with the other processes, if torchrun has started several.

    Only the first process prints. NCCL connects the processes if each has a GPU of its own, and gloo otherwise.

    Args:
        command: the name of the command, and of its action if it has one.

    Raises:
        MetarepError: this command does not share its work.
    """
    if not started():
        yield Voice(None)
        return
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    from metarep.cli.heartbeat import Heartbeat
    from metarep.machine.ranks import joined

    rank, total = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local, beside = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    prefix = f"metarep/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    limit, short = timedelta(seconds=LIMIT), timedelta(seconds=SHORT)
    server = dist.TCPStore(*address, total, is_master=rank == 0 and not agent, timeout=limit)
    beats, store = (dist.PrefixStore(prefix, each) for each in (dist.TCPStore(*address, timeout=short), server))
    voice = Voice(store)
    with contextlib.ExitStack() as stack:
        if rank:
            nothing = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nothing))
            voice.error = sys.stderr
            stack.enter_context(contextlib.redirect_stderr(nothing))
        if command not in COMMANDS:
            raise MetarepError(f"metarep {command} runs in one process; start it without torchrun")
        own_gpu = torch.cuda.is_available() and beside <= torch.cuda.device_count()
        if torch.cuda.is_available():
            torch.cuda.set_device(local % torch.cuda.device_count())
        dist.init_process_group("nccl" if own_gpu else "gloo", store=store, rank=rank, world_size=total, timeout=limit)
        heartbeat = Heartbeat(beats, rank, total, voice.error)
        heartbeat.start()
        stack.callback(heartbeat.stop)
        stack.enter_context(joined())
        yield voice
        dist.destroy_process_group()


class Voice:
    """Says each message of an error once, whichever and however many processes raise it.

    Args:
        store: a key-value store that all processes see; None for a single process, and before the processes are
            joined. All read the same arguments then, so the first one speaks. The others wait for it, because
            torchrun ends all processes as soon as one has failed.
    """

    def __init__(self, store: Any) -> None:  # noqa: ANN401 - torch is imported only where there are several processes
        self.store, self.error = store, sys.stderr

    def say(self, line: str) -> None:
        """Print a line on standard error, unless another process has printed it."""
        from hashlib import sha256  # here, because no help needs it

        if self._first(sha256(line.encode()).hexdigest()):
            self._first("any")
            print(line, file=self.error, flush=True)

    def say_of_others(self) -> None:
        """Say that another process has ended, unless a process has said why."""
        time.sleep(GRACE)
        if self._first("any"):
            print(f"metarep: {ENDED}; the same command goes on from its last checkpoint", file=self.error, flush=True)

    def lost_another(self, error: BaseException) -> bool:
        """Whether an error says that the connection to another process is lost."""
        text = str(error)
        signs = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Socket", "Broken pipe")
        return self.store is not None and isinstance(error, RuntimeError) and any(sign in text for sign in signs)

    def _first(self, key: str) -> bool:
        if self.store is None:
            if started() and int(os.environ["RANK"]):
                time.sleep(OTHERS)
                return False
            return True
        try:
            return self.store.add(f"said/{key}", 1) == 1
        except Exception:
            return True
