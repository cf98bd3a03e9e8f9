"""learn2learn in a process of its own, for benchmarks/inner_loop.py: started by another Python, called once a turn.

learn2learn 0.2.0 does not install beside today's torch. Its source archive builds once the Cython files are made anew:

    python -m venv l2l && l2l/bin/pip install torch==2.13.0 numpy cython setuptools wheel
    pip download --no-deps --no-binary :all: learn2learn==0.2.0 && tar xf learn2learn-0.2.0.tar.gz
    cd learn2learn-0.2.0 && ../l2l/bin/cython -3 learn2learn/data/*.pyx
    ../l2l/bin/pip install --no-build-isolation --no-deps . && ../l2l/bin/pip install --no-deps gym gym-notices \
        cloudpickle pillow scipy torchvision==0.28.0 qpth requests urllib3 certifi idna charset-normalizer tqdm
    METAREP_LEARN2LEARN=l2l/bin/python python benchmarks/inner_loop.py
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

VARIABLE = "METAREP_LEARN2LEARN"


class Worker:
    """The worker process. A call runs one meta-iteration and returns its milliseconds.

    Raises:
        ImportError: it cannot be started; the message says why.
    """

    def __init__(self, case: object, *, mixed: bool, one_thread: bool) -> None:
        python = os.environ.get(VARIABLE)
        if not python:
            raise ImportError(f"in an environment of its own, whose Python {VARIABLE} names: see inner_loop_worker.py")
        arguments = json.dumps({"case": dataclasses.asdict(case), "mixed": mixed, "one_thread": one_thread})  # pyright: ignore[reportArgumentType]
        self.process = subprocess.Popen(
            [python, __file__, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if (answer := self._read()) != "ready":
            raise ImportError(answer)

    def __call__(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._read())

    def end(self) -> None:
        self.process.kill()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip() or "the process ended"


def define_missing_operators() -> object:
    """Define the operators that torchvision's import needs and this build of torch lacks. The result must be kept."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def main() -> None:
    arguments, answers = json.loads(sys.argv[1]), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever its imports print
    sys.path.insert(0, str(Path(__file__).parent))
    kept = None
    try:
        kept = define_missing_operators()
        from inner_loop_rivals import Case, by_learn2learn, images_of, keep_freed_memory, prepare, timed

        prepare(one_thread=arguments["one_thread"])
        keep_freed_memory()
        case = Case(**arguments["case"])
        run = by_learn2learn(case, images_of(case), mixed=arguments["mixed"])
        run()
    except Exception as error:
        answers.write(f"{type(error).__name__}: {error}".splitlines()[0] + "\n")
        return
    answers.write("ready\n")
    for _ in sys.stdin:
        answers.write(f"{timed(run, arguments['one_thread'], case.device)}\n")
    del kept


if __name__ == "__main__":
    main()
