"""Export: writes a model as a folder of static files, which is the whole page with its encoder and its runtime."""

import hashlib
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from metarep.app.web.runtime import VERSION, read_runtime
from metarep.encoders.onnx_writer import require_onnx
from metarep.errors import MetarepError
from metarep.experiments.page.pages import render
from metarep.learners.prototypes import EASED
from metarep.machine.files import making
from metarep.model.export import DeployedWithPoints, export_facts, export_onnx
from metarep.model.model import Model
from metarep.model.summary import summary
from metarep.model.trust.familiarity import SHARPNESS, SHORT

OWN = files("metarep") / "app" / "web" / "page"
SERVED = files("metarep") / "app" / "page"  # the page of metarep serve, whose modules are used here as they are
SHARED = (
    *("ask.js", "camera.js", "chinese.js", "classes.js", "dialogs.js", "english.js", "fold.js", "icon.svg"),
    *("image.js", "model.js", "page.css", "parts.js", "questions.js", "trust.js", "words.js"),
)
GRAPH, FACTS, MEANS, WORKER, START = "model.onnx", "model.json", "means.bin", "worker.js", "index.html"
NOTICE = "LICENCES.txt"
NOTICES = f"""ort.js and ort.wasm are ONNX Runtime Web {VERSION}, from the npm package onnxruntime-web.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

The scripts, the style sheet and the page are part of metarep, under the Apache License 2.0.
https://www.apache.org/licenses/LICENSE-2.0
"""


def export_web(model: Model, name: str, target: Path, runtime: Path | None = None) -> dict[str, int]:
    """Writes the page of a model: a folder that any web server can serve, and that needs no program behind it.

    The classes are there as their mean features and as the weights of the learner. No image of the model, no name of
    one and no path is in the folder.

    Args:
        model: a model that can be exported; see :class:`metarep.model.export.Deployed`.
        name: the name of the model, which is the heading of the page.
        target: the folder to make.
        runtime: where onnxruntime-web is; see :func:`metarep.app.web.runtime.read_runtime`.

    Returns:
        The size of each file in bytes, by its name.

    Raises:
        MetarepError: the model cannot be exported, the folder is there already, or the runtime is not to be had.
    """
    exists = MetarepError(f"{target} is there already", advice="choose another folder or remove it")
    busy = MetarepError(f"another process is making {target}", advice="wait until it has ended")
    require_onnx()
    DeployedWithPoints(model)  # refuses what cannot be exported, before anything is fetched
    content = {file: (SERVED / file).read_bytes() for file in SHARED}
    content |= {each.name: each.read_bytes() for each in OWN.iterdir() if each.is_file()}
    content |= {**read_runtime(runtime), NOTICE: NOTICES.encode()}
    content[START] = render("index.html", "metarep.app", served=False).encode()
    with making(target.resolve(), START, (*content, GRAPH, FACTS, MEANS), exists=exists, busy=busy) as folder:
        export_onnx(model, folder / GRAPH, points=True)
        graph = (folder / GRAPH).read_bytes()
        means = model.self_test.familiarity.prototypes
        content[MEANS] = means.contiguous().numpy().astype("<f4").tobytes()
        facts = {**page_facts(model, name), "encoding": hashlib.sha256(graph).hexdigest()}
        content[FACTS] = json.dumps(facts, ensure_ascii=False).encode()
        version = hashlib.sha256(b"".join(content[file] for file in sorted(content))).hexdigest()
        content[WORKER] = _worker(content[WORKER], version, sorted({*content, GRAPH} - {WORKER, NOTICE}))
        for file, data in content.items():
            (folder / file).write_bytes(data)
    return {file.name: file.stat().st_size for file in sorted(target.iterdir())}


def page_facts(model: Model, name: str) -> dict[str, Any]:
    """Returns what the page knows of a model beside its graph, as JSON can hold it.

    Args:
        model: the model.
        name: its name.
    """
    known, centre = summary(model), model.self_test.familiarity.centre
    return {
        **export_facts(model),
        "name": name,
        "counts": model.gallery.counts.tolist(),
        "encoder": known["encoder"],
        "trust": known["trust"],
        "sharpness": SHARPNESS,
        "root": model.point_space.root,
        "short": SHORT,
        "shared": centre.shared,
        "typical": centre.counts.median().item(),
        "eased": EASED,
        "prototype_scale": prototype_scale(model),
    }


def prototype_scale(model: Model) -> float:
    """Returns the factor on cosines with class means that makes them logits, for classes that are added in the page.

    It is calibrated as the scale of any model is: by leaving images of the gallery out, with prototypes as the learner.
    With too few images for that, it is the factor that familiarity has.

    Args:
        model: the model.

    >>> import torch
    >>> from metarep import Gallery
    >>> two = Gallery.empty().add(torch.eye(2), ["moth", "fly"], ["1.jpg", "2.jpg"])
    >>> prototype_scale(Model(None, {"name": "prototypes"}, two))
    12.0
    """
    rows = _points(model)
    trust = Model(None, {"name": "prototypes", "metric": "cosine"}, replace(model.gallery, rows=rows)).trust
    return trust.scale if trust.calibration else SHARPNESS


def _points(model: Model) -> Tensor:
    """The centred points of the gallery, as familiarity compares them."""
    return model.points_of(model.gallery.rows) - model.self_test.familiarity.centre.mean


def _worker(content: bytes, version: str, names: list[str]) -> bytes:
    """Fill the version and the file names of this page into the script of the service worker."""
    text = content.decode()
    for mark, value in (('"VERSION"', json.dumps(version)), ('["FILES"]', json.dumps(names))):
        if text.count(mark) != 1:
            raise ValueError(f"the service worker has no place for {mark}")
        text = text.replace(mark, value)
    return text.encode()
