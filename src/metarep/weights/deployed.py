"""The learner of a method, for checkpoints of metarep 0.1.0, which name the method and not the learner."""

from collections.abc import Mapping
from typing import Any

COSINE = {"name": "prototypes", "metric": "cosine", "temperature": 0.1}
DESCENT: dict[str, dict[str, Any]] = {
    "maml": {"head": "rows", "scope": "all", "steps": 1, "inner_lr": 0.4, "test_steps": 3},
    "anil": {"head": "rows", "scope": "head", "steps": 5, "inner_lr": 0.1, "test_steps": 10},
    "reptile": {
        "head": "rows", "scope": "all", "steps": 5, "inner_lr": 1e-3, "test_steps": 20, "adaptation": "adam",
        "minibatch": 10,
    },
}  # fmt: skip
NAMES = {name: name for name in ("ways", "head", "scope", "inner_lr", "test_steps", "rates", "normalisation")}
NAMES |= {"inner_steps": "steps", "minibatch": "minibatch"}


def learner_of(method: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The name and the settings of the learner that a method of metarep 0.1.0 trains.

    Args:
        method: name of the method.
        settings: settings of the method.

    Returns:
        The arguments of ``build_learner``; None for a method that metarep 0.1.0 did not have.

    >>> learner_of("protonet", {"turns": 2})
    {'name': 'prototypes', 'metric': 'euclidean', 'temperature': 1.0}
    """
    if method == "protonet":
        metric, temperature = settings.get("metric", "euclidean"), settings.get("temperature", 1.0)
        return {"name": "prototypes", "metric": metric, "temperature": temperature}
    if method == "siamese" and settings.get("loss") == "koch":
        return {"name": "pairwise"}
    if method in ("siamese", "triplet"):
        return COSINE if settings.get("normalise", True) else {"name": "prototypes"}
    if method == "baseline":
        return COSINE | {"temperature": settings.get("temperature", 0.1)}
    if method in ("simclr", "moco", "byol", "supcon"):
        return COSINE
    if method not in DESCENT:
        return None
    own = {NAMES[name]: value for name, value in settings.items() if name in NAMES}
    if settings.get("learned_rates"):
        own["rates"] = "layer"
    return {"name": "descent", **DESCENT[method], **own}
