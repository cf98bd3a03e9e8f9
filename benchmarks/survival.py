"""Show that a training loses nothing: disturb it at random moments, resume it, and compare it with an undisturbed one.

    python benchmarks/survival.py [--quick] [--no-ranks] [--seed N] [--out results/timings/survival.json]

Every method trains a small network on glyphs. A disturbed run must go on from its last saved state, so that it never
loses more than the steps since then. It must end with the same bits as an undisturbed run: model, optimiser, generator,
best weights, and the log without its clock. The disturbances:

- kills: ``kill -9`` at random moments, several times in one run;
- torn writes: the newest state is cut off or overwritten at a random place; or ``kill -9`` just before a rename;
- full disks: a small tmpfs is filled while the training runs, and later emptied. Who may not mount one gets a limit on
  the size of files instead, and the last line says so;
- signals: SIGTERM to ``python -m metarep train``, which saves and exits with 143; and once SIGINT, with 130;
- dead ranks: ``kill -9`` of one of two processes under torchrun. The other must end in 15 seconds. Once SIGTERM is sent
  to torchrun instead, and both save and end.

The last line has the figures. The exit status is 0 if nothing was lost. All but signals and ranks run in forks of this
process, which has imported torch without computing anything, so the time goes to training.
"""

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch._dynamo  # AdamW imports it: seconds, which are spent once, before the forks

from metarep.cli import main as metarep
from metarep.errors import MetarepError
from metarep.experiments import start  # noqa: F401 - imported once, before the forks
from metarep.experiments.saved_states import NEXT, PREVIOUS, STATE, SavedStates, read_state
from metarep.machine.device import hardware
from metarep.machine.files import read_tensors

TASKS = "--ways 5 --shots 2 --queries 3"
METHODS = {
    "protonet": f"{TASKS} --augment drawings",
    "siamese": "--ways 8 --shots 2",
    "triplet": "--ways 8 --shots 2 --mine index --mine-every 5",
    "baseline": "--ways 8 --shots 2",
    "maml": f"{TASKS} --tasks 1 --rates layer --test-steps 1",
    "anil": f"{TASKS} --tasks 2",
    "reptile": f"{TASKS} --tasks 1 --inner-steps 2 --test-steps 2",
    "simclr": "--images 16",
    "moco": "--images 16 --queue 64",
    "byol": "--images 16",
}
SAVE = 3  # steps between saved states; validated every 8 steps, so most states are between two validations
SHARED = (
    f"--data glyphs --width 8 --save-every {SAVE} --validate-every 8 --validation-tasks 4 --validation-ways 5 "
    "--threads 1 --device cpu --precision float32 --json"
)
CLOCK = ("seconds", "images_per_second", "seconds_left", "digest")
FULL = "make room on its disk or repair it; then the same training goes on from the last saved state"
TORN = ["cut", "before " + NEXT, "overwritten", "cut", "before " + PREVIOUS, "zeros", "overwritten", "before " + STATE]
TORN += ["cut", "overwritten"]
PLANS = {False: (5, 10, 5, 5, 5), True: (1, 5, 1, 1, 0)}  # quick: kills a method, torn writes, disks, SIGTERM, ranks
PATIENCE = 15.0  # seconds in which a rank must notice that another is dead
LIMIT = 120.0  # seconds after which a process hangs


T = TypeVar("T")


class LostError(Exception):
    """Something was lost, or was not said; the message says what."""


class Ended(NamedTuple):
    code: int  # as of subprocess: -9 for SIGKILL
    text: str


class Child:
    """``metarep train`` in a fork of this process; ``before`` is called in it first."""

    def __init__(self, arguments: list[str], before: Callable[[], object] = lambda: None) -> None:
        self.name = Path(arguments[-1]).name
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child; the run's disk may be full
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.dup2(self.output.fileno(), 1), os.dup2(self.output.fileno(), 2)
                before()
                code = metarep(arguments)
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:  # nothing of the parent may run in the child
                sys.stdout.flush()
                os._exit(code)

    def ended(self) -> Ended | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.output.seek(0)  # not earlier, because the child writes at the same position
        return Ended(os.waitstatus_to_exitcode(status), self.output.read().decode())

    def wait(self) -> Ended:
        return until(self.ended, f"{self.name} ends")

    def kill(self) -> Ended:
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def until(ready: Callable[[], T | None], what: str) -> T:
    """Wait for a value that is not None, False, 0 or empty."""
    limit = time.monotonic() + LIMIT
    while True:
        with contextlib.suppress(MetarepError, OSError):  # a file was renamed between two looks
            if value := ready():
                return value
        if time.monotonic() > limit:
            raise LostError(f"waited {LIMIT:.0f} s in vain: {what}")
        time.sleep(0.002)


def lines(folder: Path, *, validations: bool = False) -> list[dict[str, Any]]:
    """The log without its clock; a line that was not written completely is left out."""
    path = folder / "log.jsonl"
    whole = [line for line in (path.read_text().splitlines() if path.exists() else []) if line.endswith("}")]
    records = [timeless(json.loads(line)) for line in whole]
    return [record for record in records if "accuracy" in record] if validations else records


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in CLOCK}


def saved_step(folder: Path) -> int:
    """The step of the newest state; 0 if there is none."""
    paths = SavedStates(folder).files
    return read_state(paths[0])[1]["step"] if paths else 0


def same(one: Path, other: Path, *, every_line: bool = True) -> None:
    """Raise unless two finished runs have the same bits."""
    for file in ("model.safetensors", STATE):
        (tensors, header), (others, heading) = read_tensors(one / file), read_tensors(other / file)
        if tensors.keys() != others.keys() or any(not equal(tensors[name], others[name]) for name in tensors):
            raise LostError(f"{file} of {other.name} has other tensors than that of {one.name}")
        if timeless(header) != timeless(heading):
            raise LostError(f"{file} of {other.name} has another header than that of {one.name}")
    if lines(one, validations=not every_line) != lines(other, validations=not every_line):
        raise LostError(f"the log of {other.name} differs from that of {one.name}")


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


class Survival:
    """The disturbances. Each is a method that raises LostError, or counts what survived."""

    def __init__(self, home: Path, seed: int, steps: int) -> None:
        self.home, self.steps, self.random = home, steps, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}  # of an undisturbed run
        self.slowest = 0.0  # seconds until the other rank had ended
        self.limited = False  # a limit on the size of files instead of a full disk

    def arguments(self, method: str, folder: Path) -> list[str]:
        flags = f"--steps {self.steps} {SHARED} {METHODS[method]}".split()
        return ["train", method, *flags, "--out", str(folder)]

    def under_torchrun(self, method: str, folder: Path) -> "subprocess.Popen[bytes]":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*launcher, "-m", "metarep", *self.arguments(method, folder)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def folder(self, what: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{what}-", dir=self.home))

    def whole(self, method: str) -> Path:
        """An undisturbed run."""
        folder = self.home / f"whole-{method}"
        if method not in self.seconds:
            began = time.monotonic()
            self.finish(method, folder)
            self.seconds[method] = time.monotonic() - began
        return folder

    def finish(self, method: str, folder: Path, *, says: str = "") -> None:
        """Resume a run to its end, and compare it with the undisturbed one."""
        code, text = Child(self.arguments(method, folder)).wait()
        if code or says not in text or (not says and "damaged" in text):
            raise LostError(f"{folder.name} was resumed with the exit status {code}: {text}")
        if not folder.name.startswith("whole-"):
            same(self.whole(method), folder)

    def kills(self, method: str, number: int) -> None:
        """``kill -9`` at random moments, until it has hit so many times."""
        self.whole(method)
        folder, hits = self.folder(f"kill-{method}"), 0
        while hits < number:
            child = Child(self.arguments(method, folder))
            time.sleep(self.random.uniform(0, 0.6 * self.seconds[method]))
            if child.kill().code != -signal.SIGKILL:  # it had just ended
                self.finish(method, folder)
                folder = self.folder(f"kill-{method}")
                continue
            hits += 1
            self.counts["kills"] += 1
            self.counts["in a write"] += any(folder.rglob("*.part"))
            logged = max((record["step"] for record in lines(folder)), default=0)
            if saved_step(folder) < logged - SAVE:
                raise LostError(f"{folder.name} has logged step {logged}, and step {saved_step(folder)} is saved")
        self.finish(method, folder)

    def tear(self, method: str, how: str) -> None:
        """Damage the newest state of a run that was killed; or kill it just before it renames a file."""
        folder, save = self.folder(f"torn-{method}"), self.random.randint(2, self.steps // SAVE - 1)
        if how.startswith("before "):
            code, text = Child(
                self.arguments(method, folder), lambda: die_before(how.removeprefix("before "), save)
            ).wait()
            if code != -signal.SIGKILL:
                raise LostError(f"{folder.name} was not killed {how}: {text}")
            self.finish(method, folder)
        else:
            child = Child(self.arguments(method, folder))
            until(lambda: saved_step(folder) >= save * SAVE, f"{folder.name} saves step {save * SAVE}")
            child.kill()
            newest = SavedStates(folder).files[0]
            content = bytearray(newest.read_bytes())
            at = self.random.randrange(len(content) - 64)
            content[at:] = {
                "cut": b"",
                "overwritten": self.random.randbytes(64) + content[at + 64 :],
                "zeros": bytes(len(content) - at),
            }[how]
            newest.write_bytes(content)
            self.finish(method, folder, says=f"{newest} is damaged")
        self.counts["torn"] += 1

    def lose_all(self, method: str) -> None:
        """If no state can be read, the training does not begin anew; it says so."""
        folder = self.folder(f"all-{method}")
        shutil.copytree(self.whole(method), folder, dirs_exist_ok=True)
        for file in (STATE, PREVIOUS):
            os.truncate(folder / file, 1000)
        code, text = Child(self.arguments(method, folder)).wait()
        if code != 2 or not re.search(r"no saved state .* can be read: .*previous-state.safetensors is damaged", text):
            raise LostError(f"{folder.name}: no state can be read, and the exit status was {code}: {text}")

    def fill(self, method: str) -> None:
        """Fill the disk while a run trains. It must end with a clear error, and go on when there is room again."""
        with self.disk() as disk:
            folder, save = disk / f"full-{method}", self.random.randint(1, self.steps // SAVE - 2)
            child = Child(self.arguments(method, folder))
            until(lambda: saved_step(folder) >= save * SAVE, f"{folder.name} saves step {save * SAVE}")
            if self.limited:
                resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (512, 512))
            with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
                while not self.limited and ballast.write(bytes(4096)):
                    pass
            code, text = child.wait()
            if code != 2 or FULL not in text:
                raise LostError(f"{folder.name}: the disk was full, and the exit status was {code}: {text}")
            if saved_step(folder) < save * SAVE:
                raise LostError(f"{folder.name}: step {save * SAVE} was saved before the disk was full, and is lost")
            (disk / "ballast").unlink()
            self.finish(method, folder)
        self.counts["disks"] += 1

    @contextlib.contextmanager
    def disk(self) -> Iterator[Path]:
        """A disk of 16 MB."""
        disk = self.folder("disk")
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
        self.limited = bool(subprocess.run(mount, capture_output=True, check=False).returncode)
        try:
            yield disk
        finally:
            if not self.limited:
                subprocess.run(["umount", "--lazy", str(disk)], check=True)

    def on_ranks(self, method: str, *, kill: bool) -> None:
        """On two ranks: ``kill -9`` of one, and the other must end; or SIGTERM to torchrun, and both must save."""
        whole, folder = self.home / f"ranks-{method}", self.folder(f"rank-{method}")
        if not whole.exists() and (code := self.under_torchrun(method, whole).wait(LIMIT)):
            raise LostError(f"{method} on two ranks ended with {code}")
        run = self.under_torchrun(method, folder)
        until(lambda: lines(folder), f"{folder.name} logs a step")
        time.sleep(self.random.uniform(0, 0.5))
        logged = max(record["step"] for record in lines(folder))
        ranks = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        began = time.monotonic()
        os.kill(int(self.random.choice(ranks)) if kill else run.pid, signal.SIGKILL if kill else signal.SIGTERM)
        until(lambda: not any(alive(rank) for rank in ranks), "both ranks end")
        waited = time.monotonic() - began
        if run.wait(LIMIT) == 0 or waited > PATIENCE:
            raise LostError(f"{folder.name}: the last rank ended after {waited:.1f} s")
        if saved_step(folder) < logged - kill * SAVE:
            raise LostError(f"{folder.name} had trained step {logged}, and step {saved_step(folder)} is saved")
        if code := self.under_torchrun(method, folder).wait(LIMIT):
            raise LostError(f"{folder.name} was resumed on two ranks with the exit status {code}")
        same(whole, folder, every_line=kill)
        self.counts["dead ranks" if kill else "SIGTERM on ranks"] += 1
        self.slowest = max(self.slowest, waited)

    def stop(self, method: str, number: signal.Signals) -> None:
        """Send a signal to ``python -m metarep train``; it must save, say how to go on, and exit as usual."""
        self.whole(method)
        while True:
            folder = self.folder(f"{number.name}-{method}")
            command = [sys.executable, "-m", "metarep", *self.arguments(method, folder)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            until(lambda folder=folder: lines(folder), f"{folder.name} logs a step")
            time.sleep(self.random.uniform(0, 0.4 * self.seconds[method]))
            logged = max(record["step"] for record in lines(folder))
            process.send_signal(number)
            _, text = process.communicate(timeout=LIMIT)
            if process.returncode not in (0, -number):  # else it had just ended
                break
        if process.returncode != 128 + number or f"metarep: {number.name}: step " not in text.splitlines()[-1]:
            raise LostError(f"{folder.name} ended with {process.returncode}: {text}")
        if saved_step(folder) < logged:
            raise LostError(f"{folder.name} had trained step {logged}, and step {saved_step(folder)} is saved")
        code, text = Child(self.arguments(method, folder)).wait()
        if code:
            raise LostError(f"{folder.name} was resumed with the exit status {code}: {text}")
        same(self.whole(method), folder, every_line=False)  # the signal has added a reading of the loss
        self.counts[number.name] += 1


def alive(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def die_before(name: str, save: int) -> None:
    """Let this process kill itself just before the rename of a file to this name, at the given save."""
    rename, calls = Path.replace, Counter[str]()

    def replace(path: Path, target: Path) -> Path:
        calls[target.name] += 1
        if target.name == name and calls[NEXT] + (name != NEXT) > save:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.replace = replace


def disturb(survival: Survival, *, quick: bool, alone: bool) -> None:
    """Everything, on each method in turn."""
    began = time.monotonic()

    def said(what: str) -> None:
        print(f"{time.monotonic() - began:4.0f} s  {what}: {dict(survival.counts)}", file=sys.stderr)

    kills, torn, disks, signals, ranks = PLANS[quick]
    ranks = 0 if alone else ranks
    names = list(METHODS)
    for name in names:
        survival.kills(name, kills)
        said(f"{name} was killed")
    for i, how in enumerate(TORN[:: len(TORN) // torn]):
        survival.tear(names[i % len(names)], how)
        said(f"the newest state of {names[i % len(names)]} was torn ({how})")
    survival.lose_all(names[0])
    for i in range(disks):
        survival.fill(names[(2 * i + 1) % len(names)])
        said("a full disk")
    for i in range(signals):
        survival.stop(names[(3 * i) % len(names)], signal.SIGTERM)
        said("a signal")
    if not quick:
        survival.stop("maml", signal.SIGINT)
    for i in range(ranks):
        survival.on_ranks(names[(3 * i + 2) % len(names)], kill=True)
        said("a dead rank")
    if ranks:
        survival.on_ranks(names[2], kill=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one kill a method, and a few of the others")
    parser.add_argument("--no-ranks", action="store_true", help="leave out the runs under torchrun")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places")
    parser.add_argument("--out", type=Path, help="also write the figures and the hardware to this file")
    args = parser.parse_args()
    began, lost = time.monotonic(), ""
    with tempfile.TemporaryDirectory(prefix="survival-") as home:
        survival = Survival(Path(home), args.seed, steps=12 if args.quick else 24)
        try:
            disturb(survival, quick=args.quick, alone=args.no_ranks)
        except (LostError, MetarepError) as error:
            lost = str(error)
            print(lost, file=sys.stderr)
    counts, seconds = survival.counts, time.monotonic() - began
    full = "limits on the size of files" if survival.limited else "full disks"
    signals = counts["SIGTERM"] + counts["SIGTERM on ranks"]
    print(
        f"{'LOST SOMETHING' if lost else 'nothing lost'}: {counts['kills']} kills of {len(METHODS)} methods "
        f"({counts['in a write']} while a file was written), {counts['torn']} torn writes, {counts['disks']} {full}, "
        f"{signals} SIGTERM, {counts['SIGINT']} SIGINT, {counts['dead ranks']} dead ranks (the other ended within "
        f"{survival.slowest:.1f} s); {seconds:.0f} s"
    )
    if args.out:
        content = {"hardware": hardware(), "lost": lost, "seconds": round(seconds), "seed": args.seed, **counts}
        content["seconds until the other rank ended"] = round(survival.slowest, 1)
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
