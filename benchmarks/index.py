"""Measure speed, recall and size of indexes: metarep's, raw faiss, usearch and hnswlib on the same vectors.

    python benchmarks/index.py [--quick] [--json] [--case NAME] [--threads N] [--out results/timings/index.json]

One process, the same vectors of 64 numbers, batches of 256 queries that are not in the index, the implementations in
turns, medians of the clock (with one thread: of CPU time). ``recall_ids`` is the share of the ten true neighbours
that are found, ``recall_scores`` the share of what is found that is as near as the tenth of them. ``of_raw`` is the
time of metarep's index over that of raw faiss, the median of the ratios of single turns; raw faiss is built once more
for its time and size, and then searched where metarep has built it: two copies of one index differ by up to a third in
speed, by how their memory happens to lie.
``bytes_a_vector`` is what an index says it holds, ids included; the peak of a million exact ones is measured in a
process of its own. A library that is not installed is left out with the reason: pip install 'metarep[rivals]' (hnswlib
has no wheel: it must be compiled).
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from index_rivals import OWN, RIVALS, K, Search
from threadpoolctl import threadpool_limits

from metarep.index import ExactIndex, Index, build_index
from metarep.machine.device import hardware

DIM, BATCH, BATCHES = 64, 256, 4


class Case(NamedTuple):
    name: str
    source: str
    n: int


CASES = [
    Case("clustered-10k", "clustered", 10_000),
    Case("omniglot-30k", "omniglot", 30_000),
    Case("clustered-100k", "clustered", 100_000),
    Case("clustered-1M", "clustered", 1_000_000),
]


def vectors(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Random rows and other random queries, all of length 1."""
    asked = BATCH * BATCHES
    if case.source == "omniglot":
        rows = omniglot()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        return rows[order[: case.n]].contiguous(), rows[order[-asked:]].contiguous()
    g = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(case.n // 100, DIM, generator=g))
    rows = torch.randn(case.n + asked, DIM, generator=g).mul_(0.7 / DIM**0.5)
    rows += centres[torch.randint(len(centres), (len(rows),), generator=g)]
    rows = torch.nn.functional.normalize(rows)
    return rows[: case.n], rows[case.n :].clone()


def omniglot() -> torch.Tensor:
    """Features of the encoder that ships, of all 32,460 drawings of Omniglot, each as it was drawn."""
    from metarep import load_dataset, load_learner

    learner = load_learner("omniglot-protonet").eval()
    parts = [load_dataset("omniglot:lake", split) for split in ("trainval", "test")]
    with torch.no_grad():
        kept = [learner.embed(images) for part in parts for images in part.bank.images.split(512)]
    return torch.nn.functional.normalize(torch.cat(kept))


def held(index: Index) -> int:
    """Bytes that an index of metarep holds."""
    if isinstance(index, ExactIndex):
        used = sum(ids.nbytes + rows.nbytes for ids, rows in index.rows.runs)
        return used + index.row_ids.nbytes + len(index) * 4 * index.dim
    tensors, _ = index._saved()
    return sum(tensor.nbytes for tensor in tensors.values()) + 12 * len(index)


def measure(case: Case, seconds: float, threads: int, chosen: list[str] | None) -> list[dict[str, object]]:
    rows, queries = vectors(case)
    truth = ExactIndex(DIM)
    truth.add(torch.arange(len(rows)), rows)
    scores, ids = truth.search(queries, K)
    searches: dict[str, Search] = {}
    facts: dict[str, dict[str, object]] = {}
    missing: dict[str, str] = {}
    shared: dict[str, Any] = {}
    for name in [*OWN, *RIVALS]:
        if chosen and name not in chosen:
            continue
        started = time.perf_counter()
        try:
            searches[name], size = build(name, rows, threads, shared)
        except (ImportError, RuntimeError) as error:
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        took = time.perf_counter() - started
        facts[name] = {"build_s": round(took, 2), "bytes_a_vector": round(size / len(rows))}
        print(f"{case.name}: built {name} in {took:.1f} s", file=sys.stderr)
    batches = [part.numpy() for part in queries.split(BATCH)]
    for name, search in searches.items():
        found = np.concatenate([search(batch)[1] for batch in batches])
        overlap = (found[:, :, None] == ids.numpy()[:, None, :]).any(-1).mean()
        near = (torch.einsum("qkd,qd->qk", rows[torch.from_numpy(found)], queries) >= scores[:, -1:] - 1e-6).float()
        facts[name] |= {"recall_ids": round(float(overlap), 4), "recall_scores": round(float(near.mean()), 4)}
    times: dict[str, list[float]] = {name: [] for name in searches}
    started = time.perf_counter()
    turn = 0
    clock = time.process_time if threads == 1 else time.perf_counter
    names = sorted(searches, key=lambda name: name.replace("metarep", "faiss"))  # ours beside the raw one
    while turn < 7 or time.perf_counter() - started < seconds:
        for name in names if turn % 2 else reversed(names):  # who comes after whom must not matter
            before = clock()
            searches[name](batches[turn // 2 % BATCHES])
            times[name].append(clock() - before)
        turn += 1
    table: list[dict[str, object]] = []
    for name in searches:
        raw = times.get(name.replace("metarep", "faiss")) if name.startswith("metarep ") else None
        ratio = statistics.median(ours / theirs for ours, theirs in zip(times[name], raw, strict=True)) if raw else None
        fact = facts[name]
        table.append(
            {
                "case": case.name,
                "implementation": name,
                "recall_ids": fact["recall_ids"],
                "recall_scores": fact["recall_scores"],
                "queries_a_second": round(BATCH / statistics.median(times[name])),
                "of_raw": ratio and round(ratio, 3),
                "build_s": fact["build_s"],
                "bytes_a_vector": fact["bytes_a_vector"],
            }
        )
    return table + [{"case": case.name, "implementation": name, "left_out": why} for name, why in missing.items()]


def build(name: str, rows: torch.Tensor, threads: int, shared: dict[str, Any]) -> tuple[Search, int]:
    """Build an index; return its search function and bytes. ``shared`` has what faiss built for metarep, by name."""
    if name in RIVALS:
        made = RIVALS[name](rows.numpy(), threads)
        inner = shared.get(name)
        return (lambda queries: inner.search(queries, K)) if inner else made.search, made.bytes
    backend, settings = OWN[name]
    index: Any = build_index(backend, DIM, **settings)
    index.add(torch.arange(len(rows)), rows)
    if backend == "faiss":
        shared[name.replace("metarep", "faiss")] = index.inner

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, ids = index.search(queries, K)
        return scores.numpy(), ids.numpy()

    return search, held(index)


def peak_of_a_million() -> int | None:
    """Peak growth of a process in MiB while a million vectors are added to an exact index, a thousand at a time."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_child, args=(answer,))
    process.start()
    process.join(600)
    return answer.get() if process.exitcode == 0 else None


def _child(answer) -> None:
    lot = torch.nn.functional.normalize(torch.randn(1000, DIM))
    for n in (1000, 2000):  # what a first call brings with it is not the index's
        warm = ExactIndex(DIM)
        warm.add(torch.arange(n), torch.cat([lot] * (n // 1000)))
    del warm
    before = _kib("VmRSS")
    index = ExactIndex(DIM)
    for first in range(0, 1_000_000, 1000):
        index.add(torch.randperm(1000) + first, lot)
    answer.put((_kib("VmHWM") - before) // 1024)


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 vectors, under a minute")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=60, help="of searching, a case (default: 60)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of everybody (default: all)")
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this one")
    parser.add_argument("--only", action="append", choices=[*OWN, *RIVALS], help="only this implementation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    import faiss  # noqa: F401 - so that its BLAS is there to be told

    threadpool_limits(args.threads)
    chosen = [case for case in CASES if not args.case or case.name in args.case]
    rows: list[dict[str, object]] = []
    for case in chosen[:1] if args.quick else chosen:
        rows += measure(case, 10 if args.quick else args.seconds, args.threads, args.only)
        if not args.json:
            for row in rows:
                if row["case"] == case.name:
                    print("  ".join(f"{key} {value}" for key, value in row.items() if key != "case"), flush=True)
    peak = None if args.quick else peak_of_a_million()
    if args.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    elif peak:
        print(f"a million vectors of 64 numbers in an exact index: {peak} MiB at the highest")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
        done = {case.name for case in chosen}
        rows = [row for row in known if row["case"] not in done] + rows  # of other cases, measured before
        note = (
            "Interleaved runs in one process, batches of 256 queries, 10 neighbours; graphs with 16 links and widths "
            f"of 128 and 64; a million vectors of 64 numbers in an exact index took {peak} MiB at the highest"
        )
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
