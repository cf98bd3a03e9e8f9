"""What a user of metarep writes: each public name has its type."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Generator, Tensor

from metarep import (
    METHODS,
    Answer,
    FewShotClassifier,
    Learner,
    Model,
    ModelFolder,
    Outcome,
    Preprocess,
    ProtoNet,
    Report,
    Split,
    TrainSettings,
    build_encoder,
    draw_tasks,
    evaluate,
    load_dataset,
    load_learner,
    load_representation,
    train,
)

split = assert_type(load_dataset("glyphs", "train"), Split)
tasks = draw_tasks(split.labels, 20, ways=5, shots=1, queries=5, generator=Generator().manual_seed(0))
method = ProtoNet(build_encoder("conv4", Preprocess.of(split.bank), width=16), turns=2)
assert_type(train(method, split, TrainSettings(steps=1, ways=5)), Outcome)
report = assert_type(evaluate(method.learner, split.bank, tasks, split=split.name), Report)
print(report.accuracy, report.per_task.std(), METHODS["protonet"].paper, method.step)

learner = assert_type(load_learner("omniglot-protonet"), Learner)
rows, task = tasks.compact()
with torch.no_grad():
    support, support_y, query, query_y, ways = task.of(learner.prepare(split.bank.pixels(rows)))
    logits = assert_type(learner.logits(learner.adapt(support, support_y, ways), query), Tensor)
print(logits.argmax(-1) == query_y)

model = Model(load_representation("omniglot-protonet"))
folder = ModelFolder.create(Path("letters"), model)
classifier = FewShotClassifier("omniglot-protonet").fit(split.bank.images[:2], ["a", "b"])
for answer in assert_type(classifier.answer(split.bank.images[:1]), list[Answer]):
    print(answer.label, answer.probability)
print(folder.model.gallery.names, folder.model.trust.accuracy)
