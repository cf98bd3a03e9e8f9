"""Train an encoder by SimCLR on images without labels, then use it to solve few-shot tasks.

Change the data set, the method (SimCLR, MoCo or BYOL), the views (`views-drawings`, `crops-drawings`, `views-32`), and
the learners. Only the tasks at the end read labels. A real training takes thousands of steps; this one takes 50.
"""

import torch
from torch import Generator

from metarep import (
    Linear,
    Preprocess,
    Prototypes,
    SimCLR,
    TrainSettings,
    build_encoder,
    draw_tasks,
    evaluate,
    load_dataset,
    train,
)

if __name__ == "__main__":
    torch.manual_seed(0)  # the weights that training starts from
    unlabelled, new = load_dataset("glyphs", "train"), load_dataset("glyphs", "test")
    encoder = build_encoder("conv4", Preprocess.of(unlabelled.bank), width=32)
    learners = [Prototypes(encoder, "cosine"), Linear(encoder)]
    tasks = {
        shots: draw_tasks(new.labels, 200, ways=5, shots=shots, queries=5, generator=Generator().manual_seed(0))
        for shots in (1, 5)
    }

    def report(when: str) -> None:
        for learner in learners:
            for shots in tasks:
                print(when, evaluate(learner, new.bank, tasks[shots], split=new.name))

    report("before")
    method = SimCLR(encoder, temperature=0.2, hidden=128, outputs=64)
    train(method, unlabelled, TrainSettings(steps=50, images=128, augment="views-drawings"))
    report("after ")
