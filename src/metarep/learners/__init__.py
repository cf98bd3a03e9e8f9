"""Learners: what is deployed, an encoder together with a way to solve a new task from its support set."""

from inspect import signature
from typing import Any, get_args, get_type_hints

from metarep.encoders import Encoder
from metarep.errors import MetarepError, unknown
from metarep.learners.augmented import AugmentedLinear
from metarep.learners.averaged import AveragedPrototypes
from metarep.learners.bd_cspn import BDCSPN
from metarep.learners.descent import GradientDescent
from metarep.learners.labelled_index import LabelledIndex
from metarep.learners.learner import Learner, State
from metarep.learners.linear import Linear
from metarep.learners.neighbours import Neighbours
from metarep.learners.pairwise import Pairwise
from metarep.learners.prototypes import Prototypes
from metarep.learners.simpleshot import SimpleShot

__all__ = [
    "BDCSPN",
    "INDUCTIVE",
    "LEARNERS",
    "AugmentedLinear",
    "AveragedPrototypes",
    "GradientDescent",
    "LabelledIndex",
    "Learner",
    "Linear",
    "Neighbours",
    "Pairwise",
    "Prototypes",
    "SimpleShot",
    "State",
    "build_learner",
    "described",
    "read_learner",
    "written",
]

LEARNERS: dict[str, type[Learner]] = {
    "prototypes": Prototypes,
    "neighbours": Neighbours,
    "linear": Linear,
    "descent": GradientDescent,
    "simpleshot": SimpleShot,
    "augmented": AugmentedLinear,
    "averaged": AveragedPrototypes,
    "bd-cspn": BDCSPN,
}
"""The learners by the name that checkpoints and ``--learner`` use."""
INDUCTIVE = [name for name, kind in LEARNERS.items() if kind.protocol != "transductive"]
"""The names of those learners whose answer to an image never depends on other images that are asked about."""
TRAINED: dict[str, type[Learner]] = {"pairwise": Pairwise}  # with weights that only a training gives


def build_learner(name: str, encoder: Encoder, **settings: Any) -> Learner:  # noqa: ANN401 - the learner's own
    """A learner by name; ``settings`` are those of its class.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))
    >>> build_learner("prototypes", encoder, metric="cosine").settings
    {'metric': 'cosine', 'temperature': 1.0}
    """
    kinds = LEARNERS | TRAINED
    if name not in kinds:
        raise unknown("learner", name, kinds)
    return kinds[name](encoder, **settings)


def read_learner(text: str) -> tuple[str, dict[str, Any]]:
    """The name of a learner and its settings, from ``NAME`` or ``NAME:SETTING=VALUE,SETTING=VALUE``.

    Args:
        text: what a user has typed. A value is read as the type of the setting.

    Raises:
        MetarepError: there is no such learner or setting, or a value is of another type.

    >>> read_learner("linear:solver=ridge,strength=3,centre=true")
    ('linear', {'solver': 'ridge', 'strength': 3.0, 'centre': True})
    """
    name, _, rest = text.partition(":")
    if name not in LEARNERS:
        raise unknown("learner", name, LEARNERS)
    hints = get_type_hints(LEARNERS[name].__init__)
    kinds = {setting: _kind(hint) for setting, hint in hints.items() if setting not in ("encoder", "return")}
    settings = {}
    for part in filter(None, rest.split(",")):
        setting, _, value = (each.strip() for each in part.partition("="))
        if setting not in kinds:
            raise unknown(f"setting of {name}", setting, kinds)
        kind, flags = kinds[setting], {"true": True, "false": False}
        try:
            settings[setting] = flags[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise MetarepError(f"{setting} of {name} must be {wanted}, not {value!r}") from None
    return name, settings


def written(name: str, settings: dict[str, Any]) -> str:
    """The name and the settings of a learner as :func:`read_learner` takes them, without those that change nothing.

    Returns:
        The settings in the order of their names; empty if none of them differs from what it is by default.

    >>> written("linear", {"centre": True, "strength": 3.0, "solver": "logistic"}), written("linear", {})
    ('linear:centre=true,strength=3', '')
    """
    usual = {each.name: each.default for each in signature(LEARNERS[name].__init__).parameters.values()}
    texts = [f"{key}={_text(value)}" for key, value in sorted(settings.items()) if value != usual[key]]
    return f"{name}:{','.join(texts)}" if texts else ""


def _text(value: Any) -> str:  # noqa: ANN401 - of a setting
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _kind(hint: Any) -> type:  # noqa: ANN401 - a type hint
    """The type of a setting's value: bool, int, float, or str for one of several words."""
    return next((kind for kind in (bool, int, float) if kind in (hint, *get_args(hint))), str)


def described(learner: Learner) -> dict[str, Any] | None:
    """What :func:`build_learner` makes the same learner of, its weights apart; None for a class of somebody's own."""
    for name, kind in (LEARNERS | TRAINED).items():
        if type(learner) is kind:
            return {"name": name, **learner.settings}
    return None
