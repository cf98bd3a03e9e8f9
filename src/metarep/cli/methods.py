"""The command ``metarep methods``: list the training methods and their recipes."""

import argparse
import inspect

from metarep.cli.options import add_output, print_json
from metarep.cli.parser import Parser
from metarep.experiments.recipes import load_recipe, recipe_names
from metarep.methods import METHODS


def add(parser: Parser) -> None:
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    rows = []
    for name, method in METHODS.items():
        recipes = [load_recipe(recipe) for recipe in recipe_names(f"{name}-")]
        rows.append(
            {
                "method": name,
                "family": method.family,
                "eats": method.eats.called,
                "about": inspect.cleandoc(method.__doc__ or "").splitlines()[0],
                "paper": method.paper,
                "recipes": {recipe.name.removeprefix(f"{name}-"): recipe.about for recipe in recipes},
            }
        )
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        print(f"{row['method']:<10} {row['family']}, eats {row['eats']}. {row['about']} ({row['paper']})")
        for recipe, about in row["recipes"].items():
            print(f"{'':<10}   --recipe {recipe}: {about}")
    print("\nmetarep train METHOD --help lists a method's settings")
    return 0
