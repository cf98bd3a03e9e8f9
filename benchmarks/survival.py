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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from survival_runs import METHODS, SAVE, SHARED, Child, LostError, alive, die_before, lines, same, saved_step, until

from metarep.errors import MetarepError
from metarep.experiments.saved_states import NEXT, PREVIOUS, STATE, SavedStates
from metarep.machine.device import hardware

LIMIT = 300.0  # seconds after which a process hangs
FULL = "make room on its disk or repair it; then the same training goes on from the last saved state"
TORN = ["cut", "before " + NEXT, "overwritten", "cut", "before " + PREVIOUS, "zeros", "overwritten", "before " + STATE]
TORN += ["cut", "overwritten"]
PLANS = {False: (5, 10, 5, 5, 5), True: (1, 5, 1, 1, 0)}  # quick: kills a method, torn writes, disks, SIGTERM, ranks
ON_RANKS = ("triplet", "anil", "moco", "siamese", "byol")  # whose batches can be split over two processes
PATIENCE = 15.0  # seconds in which a rank must notice that another is dead


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
        with (self.home / f"{folder.name}.txt").open("a") as text:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=text)

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
            raise LostError(f"{method} on two ranks ended with {code}: {whole.with_suffix('.txt').read_text()}")
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
            text = folder.with_suffix(".txt").read_text()
            raise LostError(f"{folder.name} was resumed on two ranks with the exit status {code}: {text}")
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
        survival.on_ranks(ON_RANKS[i % len(ON_RANKS)], kill=True)
        said("a dead rank")
    if ranks:
        survival.on_ranks(ON_RANKS[0], kill=False)


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
