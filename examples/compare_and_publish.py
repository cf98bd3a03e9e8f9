"""Compare two methods on the same tasks: print the paired difference with its interval, and write a table of results.

Change `methods`, the settings and the number of tasks. Each method sees the same number of images. For a paper, repeat
the trainings with several seeds. The interval here is over tasks, and does not show how much trainings differ.
"""

import csv
import sys
from pathlib import Path

import torch
from torch import Generator

from metarep import (
    Baseline,
    Preprocess,
    ProtoNet,
    TrainSettings,
    build_encoder,
    draw_tasks,
    evaluate,
    load_dataset,
    train,
)

if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    seen, new = load_dataset("glyphs", "train"), load_dataset("glyphs", "test")
    tasks = draw_tasks(new.labels, 300, ways=5, shots=1, queries=5, generator=Generator().manual_seed(0))
    methods = {
        "protonet": (ProtoNet, {}, TrainSettings(steps=50, ways=20, shots=1, queries=3)),
        "baseline": (Baseline, {"classes": len(seen.labels.names)}, TrainSettings(steps=50, ways=20, shots=4)),
    }
    reports = {}
    for name, (method_class, own, settings) in methods.items():
        torch.manual_seed(0)  # both start from the same weights
        method = method_class(build_encoder("conv4", Preprocess.of(seen.bank), width=32), **own)
        train(method, seen, settings)
        reports[name] = evaluate(method.learner, new.bank, tasks, split=new.name)
        print(f"{name}: {reports[name]}")
    first, second = reports.values()
    assert first.digest == second.digest, "different tasks cannot be paired; use the same"
    difference = first.per_task - second.per_task  # percent, one number a task
    half = float(1.96 * difference.std() / len(difference) ** 0.5)
    name = " - ".join(reports)
    print(f"{name}: {difference.mean():+.2f} ± {half:.2f} % (95 % interval, paired over {first.tasks} tasks)")
    rows = [{"method": name, **report.as_dict()} for name, report in reports.items()]
    with (out / "comparison.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| method | 5-way 1-shot |", "| --- | ---: |"]
    lines += [f"| {name} | {report.accuracy:.2f} ± {report.ci95:.2f} |" for name, report in reports.items()]
    lines += [
        "",
        f"Accuracy in percent ± half its 95 % interval. {first.tasks} tasks {first.digest} of {first.split}, "
        f"{first.queries} queries a class, {first.protocol}, {first.normalisation} statistics.",
    ]
    (out / "comparison.md").write_text("\n".join(lines) + "\n")
