"""The file of a gallery: one model's images, settings and calibration as tensors with a JSON header."""

from pathlib import Path

from metarep.data.reading.depth import Depth
from metarep.machine.files import write_tensors
from metarep.model.gallery_checks import (
    check_model,
    checked_file,
    checked_gallery,
    checked_trust,
    checked_tuning,
    checked_verdict,
)
from metarep.model.model import Model
from metarep.weights.representation import Representation

FORMAT = "model-1"
TRUST = 2  # the version of a stored trust; 1 did not allow for classes of different sizes
STATE = "state."  # prefix of the tensors of the learner's state
LARGEST = 20_000_000  # a state with more numbers is not stored but computed anew


def write_gallery(path: Path, model: Model, representation: Representation) -> None:
    """Write the gallery of a model in one file, which replaces an older one by a rename.

    Args:
        path: a ``.safetensors`` file.
        model: its trust and state are written too if they have been computed.
        representation: the encoder; only its digest is written.
    """
    gallery = model.gallery
    header = {
        "format": FORMAT,
        "space": representation.digest,
        "head": model.head,
        "false_alarms": model.false_alarms,
        "depth": model.depth.as_dict(),
        "names": gallery.names,
        "items": gallery.items,
        "next_id": gallery.next_id,
    }
    if any(gallery.groups):
        header["groups"] = gallery.groups
    if model.tuning is not None:
        header["tuning"] = model.tuning.as_dict()
    if model.adapting is not None:
        header["adapting"] = model.adapting.as_dict()
    tensors = {"rows": gallery.rows, "classes": gallery.classes, "ids": gallery.ids, "hashes": gallery.hashed}
    if "trust" in vars(model):  # it has been computed
        header |= {"trust": model.trust.as_dict(), "trust_version": TRUST}
        small = sum(part.numel() for part in model.state.values()) <= LARGEST
        tensors |= {STATE + name: part for name, part in model.state.items() if small}
    write_tensors(path, tensors, header)


def read_gallery(path: Path, representation: Representation) -> Model:
    """Read a model from the file that :func:`write_gallery` wrote.

    The trust of an earlier version is measured anew when it is first used, if its classes have different sizes.

    Args:
        path: the file.
        representation: the encoder that its features come from.

    Raises:
        MetarepError: the file is damaged, has another format, or belongs to another encoder.
    """
    with checked_file(path, FORMAT, representation) as (tensors, header):
        gallery = checked_gallery(tensors, header)
        alarms, depth = header["false_alarms"], Depth.of(header.get("depth"))
        tuning = checked_tuning(header["tuning"]) if "tuning" in header else None
        adapting = checked_verdict(header["adapting"]) if "adapting" in header else None
        about = {"false_alarms": alarms, "depth": depth, "tuning": tuning, "adapting": adapting}
        model = Model(representation, header["head"], gallery, **about)
        state = {name[len(STATE) :]: part for name, part in tensors.items() if name.startswith(STATE)}
        even = len(gallery.counts.unique()) == 1
        if "trust" in header and (even or header.get("trust_version", 1) == TRUST):
            model = model.restore_calibration(checked_trust(header["trust"]), state or None)
        check_model(model)
    return model
