"""A summary of a model and of its trust, as JSON can hold it."""

import json
from typing import Any

from metarep.model.model import Model


def summary(model: Model) -> dict[str, Any]:
    """Returns the classes, encoder, learner, trust, copies and suspects of a model, as JSON can hold them.

    >>> import torch
    >>> from metarep import Gallery
    >>> gallery = Gallery.empty().add(torch.eye(2), ["moth", "fly"], ["1.jpg", "2.jpg"])
    >>> facts = summary(Model(None, {"name": "prototypes"}, gallery))
    >>> facts["classes"], facts["images"], facts["encoder"]
    ({'moth': 1, 'fly': 1}, 2, None)
    """
    gallery, trust = model.gallery, json.loads(json.dumps(model.trust.as_dict()))
    classes = trust.pop("classes")
    trust["per_class"] = [{"label": name, **each} for name, each in zip(gallery.names, classes, strict=False)]
    return {
        "classes": dict(zip(gallery.names, gallery.counts.tolist(), strict=True)),
        "images": len(gallery),
        "encoder": model.representation.name if model.representation else None,
        "size": list(model.learner.encoder.preprocess.size),
        "head": model.head,
        **({"depth": model.depth.as_dict()} if model.depth.ranges else {}),
        "trust": trust,
        **({"groups": len(set(gallery.groups) - {""})} if any(gallery.groups) else {}),
        "copies": [
            [{"id": int(gallery.ids[row]), "item": gallery.items[row]} for row in rows] for rows in model.copies
        ],
        "suspects": [
            {
                "id": int(gallery.ids[each.row]),
                "item": gallery.items[each.row],
                "label": gallery.names[int(gallery.classes[each.row])],
                "likelier": gallery.names[each.likelier],
                "probability": round(each.probability, 4),
            }
            for each in model.suspects
        ],
    }
