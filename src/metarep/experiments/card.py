"""The card of a run folder: what was trained, on which data, how accurate it was on validation, how it is loaded."""

from pathlib import Path
from typing import Any

from metarep.errors import counted
from metarep.experiments.run_folder import LOG, RunFolder, read_record
from metarep.methods import METHODS
from metarep.weights.card import card_text, data_line, escaped, weights_licence
from metarep.weights.hub.contents import SETTINGS
from metarep.weights.record import RunRecord


def run_card(path: Path) -> str:
    """The card of a run as Markdown with YAML front matter, from the files of its folder.

    Args:
        path: the run folder.

    Raises:
        MetarepError: the folder does not hold the settings of a run, or they are damaged.

    >>> import tempfile
    >>> run = RunFolder(Path(tempfile.mkdtemp(), "letters"), RunRecord("protonet"), seen=())
    >>> with run.held():
    ...     run.log({"step": 250, "accuracy": 71.53, "ci95": 0.8})
    >>> print(run_card(run.path).partition("## Accuracy")[2][:58].strip())
    71.53 ± 0.80 % on validation classes, which were not tra
    """
    record = read_record(path / SETTINGS)
    size = f", images of {record.data.size} px" if record.data.size else ""
    start = ""
    if record.init and "digest" in record.encoder:  # of a trained encoder, which need not be a run
        licence = weights_licence(record.init)
        start = f" The training started from the encoder {escaped(record.init)} (licence of its weights: {licence})."
    elif record.init:
        start = f" The encoder was initialised from the run {escaped(record.init)}."
    parts = [
        ("Task", ["Map an image to features from which new classes are learned from a handful of images each."]),
        ("Data", [data_line(record.data), f"Labels that training has read: {record.labels}."]),
        ("Accuracy", _accuracy(record, RunFolder(path, record, ()).records())),
        (
            "Encoder",
            [
                f"{escaped(_settings(record.encoder))}{size}, trained by {record.method}"
                f"{f' ({escaped(_settings(record.settings))})' if record.settings else ''} for "
                f"{counted(record.train.steps, 'step')}, seed {record.train.seed}.{start} All settings are in "
                f"`{SETTINGS}`, and the course of the training is in `{LOG}`.",
                "Licence of the weights: that of whoever trained them; the data may limit what they may be used for.",
            ],
        ),
        (
            "Intended use and limits",
            [
                "- Meant for few-shot classification and search among images like those of the training.",
                "- Classes that it has seen must not be used to measure it; metarep refuses to.",
                "- On images of another kind it may be worse than a network that was pretrained on many photographs.",
                "- It was not tested for decisions about people.",
            ],
        ),
        (
            "How to load it",
            [
                "```python",
                "from metarep import load_learner",
                f"learner = load_learner({path.resolve().name!r})",
                "```",
            ],
        ),
    ]
    return card_text(path.resolve().name, [record.method], "image-feature-extraction", parts)


def _accuracy(record: RunRecord, log: list[dict[str, Any]]) -> list[str]:
    """Sentences about the validation accuracy of the weights that were kept."""
    validated = [each for each in log if "accuracy" in each]
    if not validated:
        return ["Not measured: the training had no validation classes. `metarep evaluate` measures it on test classes."]
    last = _keeps_last(record)
    kept = validated[-1] if last else max(validated, key=lambda each: each["accuracy"])
    half = f" ± {kept['ci95']:.2f}" if isinstance(kept.get("ci95"), float) else ""
    shots = record.train.validation_shots or 1
    chosen = "the last step" if last else "chosen among the steps by this accuracy, which is therefore a little high"
    return [
        f"{kept['accuracy']:.2f}{half} % on validation classes, which were not trained on (mean over "
        f"{counted(record.train.validation_tasks, 'task')}, with half its 95 % interval).",
        f"Protocol: {record.train.validation_ways}-way {shots}-shot, or fewer ways where there are fewer classes; "
        f"weights of step {kept['step']}, {chosen}.",
        "This is not an accuracy on test classes; `metarep evaluate` measures that.",
    ]


def _keeps_last(record: RunRecord) -> bool:
    """Whether the last weights were kept, because no label may choose among them."""
    kind = METHODS.get(record.method)
    return bool(kind and kind.eats.label_free) or record.labels.startswith(("none", "instances", "clusters"))


def _settings(settings: dict[str, Any]) -> str:
    """Settings as text, the name first: ``conv4, width 64``."""
    rest = {name: value for name, value in settings.items() if name != "name"}
    return ", ".join(
        [*map(str, [settings["name"]] if "name" in settings else []), *(f"{n} {v}" for n, v in rest.items())]
    )
