"""Decode many files into shards of a bank, in processes on all cores; a run that was killed goes on at its last shard.

Processes, because Pillow opens and scales a small picture under the lock of Python: two threads decode fewer JPEGs of
64 pixels than one. They are started as ``python -m metarep.data.banks.workers``, so a script of the user is not run
again by them, as ``multiprocessing`` would do.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from math import ceil, prod
from pathlib import Path

from metarep.data.banks.decoded_shard import PLAN, DecodedShard, Job, decode_shard
from metarep.data.banks.writer import SHARD
from metarep.data.reading.decode import cores
from metarep.data.reading.depth import Depth
from metarep.errors import DataError, MetarepError
from metarep.machine.files import replacing

FEW = 4000  # up to so many files are decoded by threads of this process: other processes would start too late
LEAST = 1000  # files in a shard, where that is needed to give every process some

Tell = Callable[[int, int], None]  # called with the finished files and all files
_followers: list[Tell] = []


@contextmanager
def following(tell: Tell) -> Iterator[None]:
    """Context in which ``tell`` is called with the number of decoded files and of all files."""
    _followers.append(tell)
    try:
        yield
    finally:
        _followers.remove(tell)


def decode_files(
    folder: Path, sources: Sequence[tuple[Path, str]], size: tuple[int, int], depth: Depth, *, described: bool
) -> list[DecodedShard]:
    """Decode files into shards in a folder; shards that are there already are not decoded again.

    Not more than one shard for each process is in memory. Files that cannot be decoded are left out, and listed.

    Args:
        folder: the folder, which exists.
        sources: the files, each with its name in messages; the same as in the run that is continued.
        size: height and width of the images in pixels.
        depth: which values are black and white; see :mod:`metarep.data.reading.depth`.
        described: whether each image is described by digests and a perceptual hash.

    Returns:
        The shards, in the order of the files.

    Raises:
        DataError: a process ended before its shard was done.
        MetarepError: a fault of this library.
        OSError: the disk is full, or a file is gone.
    """
    at_once = _plan(folder, len(sources), size)
    starts = range(0, len(sources), at_once)
    undone = [number for number in range(len(starts)) if DecodedShard.read(folder, number) is None]
    done = len(sources) - sum(len(sources[starts[number] : starts[number] + at_once]) for number in undone)

    def job(number: int) -> Job:
        files = [(str(path), name) for path, name in sources[starts[number] : starts[number] + at_once]]
        return Job(str(folder), number, files, size, depth.as_dict(), described)

    alone = len(sources) - done < FEW or min(cores(), len(undone)) < 2 or not sys.executable
    for number in map(_decoded_here, map(job, undone)) if alone else _in_processes(job, undone):
        done += len(sources[starts[number] : starts[number] + at_once])
        for tell in _followers if len(undone) > 1 else ():
            tell(done, len(sources))
    shards = [DecodedShard.read(folder, number) for number in range(len(starts))]
    if any(shard is None for shard in shards):
        raise DataError(f"a shard in {folder} was damaged while it was written; check the disk and try again")
    return [shard for shard in shards if shard is not None]


def _plan(folder: Path, files: int, size: tuple[int, int]) -> int:
    """The number of files in a shard. An interrupted run keeps its number, even if there are other cores now."""
    try:
        planned = json.loads((folder / PLAN).read_text(encoding="utf-8"))["files"]
        if isinstance(planned, int) and planned > 0:
            return planned
    except (OSError, ValueError, KeyError, TypeError):
        pass
    most = max(1, SHARD // (3 * prod(size)))
    planned = min(most, max(LEAST, ceil(files / (4 * cores()))))
    with replacing(folder / PLAN) as partial:
        partial.write_text(json.dumps({"files": planned}), encoding="utf-8")
    return planned


def _decoded_here(job: Job) -> int:
    decode_shard(job)
    return job.number


def _in_processes(job: Callable[[int], Job], numbers: Sequence[int]) -> Iterator[int]:
    """Run the jobs in several processes, and yield the number of each job when it is done."""
    waiting, done = queue.SimpleQueue[int](), queue.SimpleQueue[int | BaseException]()
    for number in numbers:
        waiting.put(number)
    modules = os.pathsep.join(filter(None, sys.path))  # so that no module is imported from the current folder
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": modules, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", __name__]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
            )
            for _ in range(min(cores(), len(numbers)))
        ]
        threads = [threading.Thread(target=_feed, args=(each, job, waiting, done), daemon=True) for each in processes]
        try:
            for thread in threads:
                thread.start()
            for _ in numbers:
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:
            for process, thread in zip(processes, threads, strict=True):
                process.kill()  # it has no more jobs, or there was an error
                thread.join()
                assert process.stdin
                with suppress(OSError):  # a job that it did not read
                    process.stdin.close()


def _feed(
    process: subprocess.Popen[str],
    job: Callable[[int], Job],
    waiting: "queue.SimpleQueue[int]",
    done: "queue.SimpleQueue[int | BaseException]",
) -> None:
    """Give jobs to a process, one after the other, until there are no more."""
    answer = "any"
    while answer:
        try:
            number = waiting.get_nowait()
        except queue.Empty:
            return
        outcome: int | BaseException
        try:
            answer = _answer(process, job(number))
            outcome = _outcome(answer, number, job)
        except Exception as error:  # raised where the shards are waited for
            answer, outcome = "", error
        done.put(outcome)


def _answer(process: subprocess.Popen[str], job: Job) -> str:
    """Send a job to a process and wait for its answer; the answer is empty if the process has ended."""
    jobs, answers = process.stdin, process.stdout
    assert jobs
    assert answers
    try:
        jobs.write(json.dumps(asdict(job)) + "\n")
        jobs.flush()
        return answers.readline()
    except OSError:
        return ""


def _outcome(answer: str, number: int, job: Callable[[int], Job]) -> int | BaseException:
    """The number of a job that a process has done, or the error to raise for its answer."""
    if not answer:
        files = job(number).files
        which = f"{len(files)} files from {files[0][1]} to {files[-1][1]}"
        return DataError(
            f"a process ended while it decoded {which}: it was killed, or memory was short; run this again, which goes "
            "on there"
        )
    saved = json.loads(answer)
    if "errno" in saved:
        return OSError(saved["errno"], saved["error"])
    return MetarepError(saved["error"]) if "error" in saved else number


def _work() -> None:
    """Do the jobs that are written to standard input, one a line, until it is closed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gives the jobs ends this one
    torch.set_num_threads(1)
    answers = os.dup(1)  # what a library prints must not be read as an answer
    os.dup2(2, 1)
    for line in sys.stdin:
        answer = {}
        try:
            decode_shard(Job(**json.loads(line)), threads=1)
        except OSError as error:
            answer = {"error": error.strerror or str(error), "errno": error.errno}
        except Exception as error:
            answer = {"error": str(error)}
        try:
            os.write(answers, (json.dumps(answer) + "\n").encode())
        except BrokenPipeError:  # the process that gave the job was killed
            return


if __name__ == "__main__":
    _work()
