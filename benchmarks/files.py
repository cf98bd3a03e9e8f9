"""Measure the CPU time of a file in ``index build``, ``predict FOLDER`` and ``fit``, against the forward pass alone.

    python benchmarks/files.py PHOTOS [--files 1000,20000] [--json] [--out results/timings/files.json]

PHOTOS is a folder of class folders. The commands are run as a person runs them, in processes of their own, on links to
its files; where they are fewer than asked for, files are linked again under other names. A run's cost is its CPU
time, user and system, over all threads: it does not depend on what else the machine does. A file's cost is that of the
run less that of the same command on ``FEW`` files, over the number of further files; so what a command needs to start
is not in it. The floor is the encoder's forward pass on pixels that are there already, at its best batch.

The peer is the loop that one writes by hand around ``onnxruntime``: Pillow opens and scales, a batch is normalised and
run, in the same number of images as ours. Its graph is the same encoder, exported by torch.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ENCODER, SIZE, FEW, CLASSES, SHOTS = "efficientnet-lite0", 160, 32, 20, 5
BATCHES = (1, 2, 4, 8, 16, 32, 64)
Run = dict[str, float]


def link(sources: Sequence[Path], n: int, folder: Path) -> Path:
    """Make ``n`` links in class folders. A second link to a file gets another name."""
    for i in range(n):
        source, again = sources[i % len(sources)], i // len(sources)
        place = folder / source.parent.name / f"{again}-{source.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())
    return folder


def measured(arguments: Sequence[str]) -> Run:
    """Run one process. Returns its CPU, system and elapsed seconds, its page faults and its peak memory in MB."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=out, env=environment())
        _, status, used = os.wait4(process.pid, 0)
        if status:
            out.seek(0)
            raise SystemExit(f"{' '.join(arguments)} failed: {out.read().decode()[-2000:]}")
    seconds = time.perf_counter() - started
    peak = used.ru_maxrss / 1000 * 1.024
    cpu = used.ru_utime + used.ru_stime
    return {"cpu": cpu, "system": used.ru_stime, "seconds": seconds, "faults": used.ru_minflt, "peak": peak}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "20000"}


def commands(folder: Path, work: Path, model: Path) -> dict[str, list[str]]:
    """The commands that are measured, by name."""
    at = ["-m", "metarep"]
    flags = ["--threads", "1"]
    index, fitted = work / f"index-{time.monotonic_ns()}", work / f"model-{time.monotonic_ns()}"
    encoder = ["--encoder", ENCODER]
    return {
        "index build": [*at, "index", "build", str(index), str(folder), *encoder, *flags],
        "predict": [*at, "predict", str(model), str(folder), "--csv", *flags],
        "fit": [*at, "fit", str(folder), "--out", str(fitted), "--size", str(SIZE), *encoder, *flags],
        "onnxruntime loop": [__file__, str(folder), "--peer", str(work / "encoder.onnx")],
    }


def peer(folder: Path, graph: Path) -> None:
    """A plain loop around onnxruntime, as a user would write it."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    from metarep.weights.named import LITE_MEAN, LITE_STD

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options)
    files, features = sorted(path for path in folder.rglob("*") if path.is_file()), []
    for start in range(0, len(files), 16):
        images = []
        for file in files[start : start + 16]:
            with Image.open(file) as image:
                image.draft("RGB", (2 * SIZE, 2 * SIZE))
                images.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        x = (np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255 - LITE_MEAN) / LITE_STD
        features.append(session.run(None, {"images": x.astype(np.float32)})[0])
    print(np.concatenate(features).shape)


def export(graph: Path) -> None:
    import torch

    from metarep.weights.named import load_representation

    body = load_representation(ENCODER, size=SIZE).encoder.body
    shapes = {"input": {0: torch.export.Dim("batch", min=1)}}
    example = torch.zeros(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.onnx.export(
            body, (example,), str(graph), input_names=["images"], dynamic_shapes=shapes, dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip


def forward() -> dict[int, Callable[[], float]]:
    """For each batch, a function that returns the CPU milliseconds of an image in one forward pass."""
    import torch

    from metarep.machine.device import keep_freed_memory
    from metarep.weights.named import load_representation

    keep_freed_memory()
    torch.set_num_threads(1)
    encoder = load_representation(ENCODER, size=SIZE).encoder

    def once(images: torch.Tensor) -> float:
        with torch.no_grad():
            started = time.process_time()
            for _ in range(max(1, 16 // len(images))):
                encoder(images)
            done = max(1, 16 // len(images)) * len(images)
            return 1000 * (time.process_time() - started) / done

    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.randint(256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator) for n in BATCHES}
    for images in drawn.values():
        once(images)
    return {n: lambda images=images: once(images) for n, images in drawn.items()}


def floor(graph: Path) -> tuple[int, float]:
    """The fastest batch and the cost of an image in it. It is measured in another process, because the peak memory of a
    child includes that of its parent.
    """
    run = [sys.executable, __file__, str(graph.parent), "--forward"]
    costs = json.loads(subprocess.run(run, check=True, capture_output=True, env=environment()).stdout)
    return min(((int(n), cost) for n, cost in costs.items()), key=lambda pair: pair[1])


def rows(photos: Path, numbers: Sequence[int], turns: int, work: Path) -> list[dict[str, object]]:
    sources = sorted(path for path in photos.glob("*/*") if path.is_file())
    random.Random(0).shuffle(sources)
    graph = work / "encoder.onnx"
    subprocess.run([sys.executable, __file__, str(work), "--export"], check=True, capture_output=True)
    classes = sorted({path.parent.name for path in sources})[:CLASSES]
    shown = [path for name in classes for path in [each for each in sources if each.parent.name == name][:SHOTS]]
    model = work / "model"
    fit = ["-m", "metarep", "fit", str(link(shown, len(shown), work / "shown")), "--out", str(model)]
    measured([*fit, "--size", str(SIZE), "--encoder", ENCODER])
    few = link(sources, FEW, work / "few")
    found: list[dict[str, object]] = []
    for n in numbers:
        folder, best = link(sources, n, work / str(n)), []
        runs: dict[str, list[tuple[Run, Run]]] = {}
        for _ in range(turns):
            best.append(floor(graph))
            for name in commands(folder, work, model):
                pair = measured(commands(few, work, model)[name]), measured(commands(folder, work, model)[name])
                runs.setdefault(name, []).append(pair)
        batch, cost = min(best, key=lambda pair: pair[1])
        found.append({"files": n, "what": f"forward pass, {batch} at a time", "ms_a_file": round(cost, 2)})
        for name, pairs in runs.items():
            each = [1000 * (long["cpu"] - short["cpu"]) / (n - FEW) for short, long in pairs]
            ratios = [one / own for one, (_, own) in zip(each, best, strict=True)]
            middle = {key: statistics.median(long[key] for _, long in pairs) for key in pairs[0][1]}
            found.append(
                {
                    "files": n,
                    "what": name,
                    "ms_a_file": round(statistics.median(each), 2),
                    "of_forward": round(statistics.median(ratios), 2),
                    "files_a_second_and_core": round(1000 / statistics.median(each), 1),
                    "start_s": round(statistics.median(short["cpu"] for short, _ in pairs), 1),
                    "system_s": round(middle["system"], 2),
                    "page_faults": int(middle["faults"]),
                    "peak_mb": round(middle["peak"]),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--files", type=lambda text: [int(each) for each in text.split(",")], default=[1000, 20000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)  # the loop itself, in a process of its own
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--forward", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    args = parser.parse_args()
    if args.peer:
        peer(args.photos, args.peer)
        return
    if args.export:
        export(args.photos / "encoder.onnx")
        return
    if args.forward:
        passes = forward()
        print(json.dumps({n: statistics.median(once() for _ in range(3)) for n, once in passes.items()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = rows(args.photos, args.files, args.turns, Path(folder))
    if args.json:
        print(json.dumps(found, indent=1))
    for row in found if not args.json else ():
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if args.out:
        from metarep.machine.device import hardware

        note = f"{ENCODER} at {SIZE} px; medians of {args.turns} turns of processor time, one thread for the encoder"
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
