"""What the encoders reach with one image a class: the calibration of models that have nothing to leave out.

    python benchmarks/one_shot.py --data-dir DIR

Writes ``src/metarep/zoo/one_shot.json``. Encoders of photographs are measured on CIFAR-FS's validation classes, those
of drawings on Omniglot's test classes (vinyals split), which none of them has seen; an interval is over images.
"""

import argparse
import json
from pathlib import Path

import torch

from metarep.datasets import load
from metarep.model import Model
from metarep.one_shot import measure_one_shot
from metarep.pretrained import LITE, load_representation
from metarep.zoo import zoo_names

OUT = Path(__file__).parents[1] / "src" / "metarep" / "zoo" / "one_shot.json"
PHOTOS = ("cifar-fs", "val", (2, 5, 10, 16), "CIFAR-FS validation classes with one image each")
DRAWINGS = ("omniglot:vinyals", "test", (2, 5, 20, 50), "Omniglot test characters with one image each")
IMAGES = 40  # of each class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--encoder", action="append", help="again and again (default: all)")
    args = parser.parse_args()
    names = args.encoder or [*LITE, *zoo_names()]
    rows = [row for row in json.loads(OUT.read_text()) if row["encoder"] not in names] if OUT.exists() else []
    for name in names:
        representation = load_representation(name)
        photos = representation.encoder.preprocess.channels == 3
        data, part, all_ways, source = PHOTOS if photos else DRAWINGS
        split = load(data, part, data_dir=args.data_dir)
        if representation.checkpoint and photos:
            split = load(data, "test", data_dir=args.data_dir)  # trained on train and validation
            source = source.replace("validation", "test")
        pick = torch.cat(
            [
                split.labels.rows[s : s + min(IMAGES, c)]
                for s, c in zip(split.labels.starts, split.labels.counts, strict=True)
            ]
        )
        model = Model(representation)
        prepared = model.prepare(split.bank.pixels(pick).numpy())
        labels = type(split.labels)(split.labels.classes[pick], split.labels.names, split.labels.keys)
        for ways in all_ways:
            trust = measure_one_shot(model, prepared, labels, ways, source=source)
            size = list(representation.encoder.preprocess.size)
            rows.append({"encoder": name, "head": model.head, "ways": ways, "size": size, "trust": trust.as_dict()})
            print(name, ways, f"{trust}", flush=True)
    OUT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
