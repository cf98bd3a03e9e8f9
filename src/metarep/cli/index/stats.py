"""The action ``metarep index stats``: print facts about an index."""

import argparse
from pathlib import Path

from metarep.cli.index.shared import add_index, open_index
from metarep.cli.options import add_machine, add_output, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.search.image_index import ImageIndex

USAGE = "INDEX"
EXAMPLE = """examples:
  metarep index stats photos.index
"""
PICTURES = 1000  # at most so many images get their nearest neighbour


def add(parser: Parser) -> None:
    add_index(parser)
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    with open_index(args) as index:
        facts = {
            "images": len(index),
            "backend": index.index.name,
            "dim": index.index.dim,
            "encoder": index.index.space,
            "bytes": sum(file.stat().st_size for file in args.index.iterdir() if file.is_file()),
            "missing": sum(not Path(item.path).exists() for item in index.items.items.values()),
            "nearest_neighbour": quantiles(index),
        }
    if args.json:
        print_json(facts)
        return 0
    for name, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) else value
        if isinstance(value, dict):
            text = ", ".join(f"{share} {score:.3f}" for share, score in value.items()) or "none"
        print(f"{name.replace('_', ' '):<18} {text}")
    return 0


def quantiles(index: ImageIndex) -> dict[str, float]:
    """Quantiles of the cosine similarity of images and their nearest other image, over at most ``PICTURES`` of them.

    A threshold for duplicates should be above them.
    """
    ids = index.index.ids()
    if len(ids) < 2:
        return {}
    some = ids[:: max(1, len(ids) // PICTURES)]
    scores, neighbours = index.index.search(index.index.vectors(some), 2)
    other = scores[:, 0].where(neighbours[:, 0] != some, scores[:, 1])
    at = {"median": 0.5, "highest 10 %": 0.9, "highest 1 %": 0.99}
    return {name: round(float(other.quantile(share)), 4) for name, share in at.items()}
