"""Measure another library on the tasks of metarep: a file of tasks, read with json and numpy alone.

Replace `nearest_mean` by your own classifier. The first part writes what the second reads: tasks and pixels of printed
letters. `metarep evaluate RUN --save-tasks FILE` writes such a file for any run, and `--tasks FILE` reads one.
"""

import json
import sys
from pathlib import Path

import numpy as np
from torch import Generator

from metarep import draw_tasks, load_dataset, save_tasks


def nearest_mean(pixels: np.ndarray, task: dict) -> float:
    """The accuracy of one task in percent: the nearest class mean, by the cosine of the pixels."""
    means = np.array([pixels[rows].mean(0) for rows in task["support"]])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    right = [(pixels[rows] @ means.T).argmax(1) == way for way, rows in enumerate(task["query"])]
    return 100 * np.concatenate(right).mean()


if __name__ == "__main__":
    folder, split = Path(sys.argv[1] if len(sys.argv) > 1 else "."), load_dataset("glyphs", "test")
    drawn = draw_tasks(split.labels, 300, ways=5, shots=1, queries=5, generator=Generator().manual_seed(0))
    save_tasks(folder / "tasks.json", split, drawn)
    np.save(folder / "pixels.npy", split.bank.images.numpy())

    content = json.loads((folder / "tasks.json").read_text("utf-8"))  # from here on without metarep
    pixels = 1 - np.load(folder / "pixels.npy").reshape(content["images"], -1) / 255  # dark on light: paper is 0
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    accuracies = [nearest_mean(pixels, task) for each in content["sets"] for task in each["tasks"]]
    ci95 = 1.96 * np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
    shape = "{ways}-way {shots}-shot: %.2f ± %.2f %% (%d tasks of {queries} queries a class, inductive, numpy)"
    print(shape.format(**content["sets"][0]) % (np.mean(accuracies), ci95, len(accuracies)))
