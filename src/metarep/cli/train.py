"""The command ``metarep train``: train an encoder by one of the methods."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metarep.cli.config import read_config
from metarep.cli.evaluate import suggest
from metarep.cli.flags import add_flags
from metarep.cli.options import add_data, add_machine, add_output, print_json, refuse_inside, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import progress
from metarep.encoders.freezing import frozen_for
from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.experiments.recipes import load_recipe, recipe_names
from metarep.experiments.start import start
from metarep.methods import METHODS
from metarep.weights.settings import TrainSettings

USAGE = "METHOD"
TRACKED = {  # those of metarep.cli.trackers, which imports what --help does not need
    "tensorboard": "write TensorBoard logs",
    "mlflow": "log to MLflow, where MLFLOW_TRACKING_URI says",
    "wandb": "log to Weights & Biases",
    "trackio": "log to Trackio",
}
EXAMPLE = """examples:
  metarep train protonet
      the embedded glyphs, no download
  metarep train protonet --recipe omniglot --out runs/protonet
  metarep train simclr --data folder:PHOTOS --out runs/simclr
  metarep train protonet --data folder:PHOTOS --init runs/simclr
  metarep train protonet --data folder:PHOTOS --labels clusters:runs/simclr
  metarep train anil --data folder:PHOTOS --init runs/simclr --labels-per-class 5
  metarep train triplet --data folder:PHOTOS --margin 0.2 --mining semi-hard
  metarep train protonet --config my.toml --steps 500
      your own file; flags have priority over it
The same command continues a run that was interrupted.
metarep train METHOD --help lists the method's own settings.
"""


def add(parser: Parser) -> None:
    add_methods(parser, "[flags]", "Train an encoder by {}.", EXAMPLE, add_settings, run)


def add_methods(
    parser: Parser,
    usage: str,
    description: str,
    epilog: str,
    fill: Callable[[Parser, str | None], None],
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add a sub-parser for each method to a command.

    Args:
        parser: the parser of the command.
        usage: what follows the name of the method.
        description: of the sub-parser of a method, whose name takes the place of ``{}``.
        epilog: the examples.
        fill: adds the flags for a method; for None those that all methods have.
        run: runs the command.
    """
    title = f"methods ({parser.prog} METHOD --help lists the settings of one)"
    names = parser.add_names("method", "METHOD", title, help=", ".join(METHODS))
    for name in METHODS:
        names.add_parser(
            name,
            usage=f"{parser.prog} {name} {usage}",
            description=description.format(name),
            epilog=epilog,
            fill=lambda each, name=name: fill(each, name),
            run=run,
        )
    parser.keep_flags_of(names.parsers)
    shared = Parser(add_help=False)
    fill(shared, None)
    parser.show_flags_of(shared)


def add_settings(parser: Parser, method: str | None, out: str = "run folder (default: runs/METHOD-DATA)") -> None:
    """Add the flags that all methods have, and the flags of one method, if it is named; ``out`` describes ``--out``."""
    names = recipe_names(f"{method}-" if method else "")
    recipes = [name.removeprefix(f"{method}-") for name in names]
    group = parser.add_argument_group("run")
    group.add_argument("--recipe", metavar="NAME", help=f"start from the settings of a recipe: {', '.join(recipes)}")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="start from the settings in your own file, in the format of a recipe (TOML)",
    )
    group.add_argument("--out", type=Path, metavar="DIR", help=out)
    group.add_argument(
        "--train-on",
        default="train",
        metavar="SPLIT",
        help="train (validated on val), or trainval, which joins the two (default: train)",
    )
    group.add_argument(
        "--encoder",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="with random weights: conv4, resnet12, efficientnet-lite, vit-tiny, vit-s16 and so on; or trained, as "
        "metarep fit takes it: efficientnet-lite0 to 2, timm:NAME, hf:USER/NAME, a run, a file of weights (default: "
        "conv4)",
    )
    group.add_argument(
        "--arch", default=argparse.SUPPRESS, metavar="NAME", help="network of a file of weights, as in metarep fit"
    )
    group.add_argument(
        "--freeze",
        metavar="PART",
        help="what of the encoder is not trained: none, stem, all-but-last, all-but-norms, all-but-lora:R or backbone; "
        "batch norms in it keep their statistics (default: none)",
    )
    group.add_argument(
        "--adapt",
        metavar="PART",
        help="the same, by what is trained: all, last-block, norms, lora:R (low-rank updates of the rank R, such as "
        "lora:8, which are merged into the weights afterwards) or head (default: all)",
    )
    group.add_argument(
        "--width", type=int, default=argparse.SUPPRESS, metavar="N", help="channels of the encoder (default: 64)"
    )
    group.add_argument(
        "--init",
        metavar="RUN",
        help="warm start from the encoder of another run, of any method (default: random weights)",
    )
    group.add_argument(
        "--teacher",
        metavar="RUN",
        help="distillation: also learn from the logits of this run, which stays as it is (baseline and protonet)",
    )
    for name, what in TRACKED.items():
        group.add_argument(f"--{name}", action="store_true", help=f"also {what}; needs metarep[{name}]")
    add_data(parser, "that of the recipe, or glyphs", "the data set's own")
    add_labels(parser)
    own: list[str] = []
    if method:
        own = add_flags(parser, f"settings of {method}", METHODS[method], skip=TrainSettings.__annotations__)
    suits = METHODS[method].defaults if method else {}
    parser.set_defaults(own=own, shared=add_flags(parser, "training", TrainSettings, defaults=suits))
    add_machine(parser)
    add_output(parser)


def trackers_of(args: argparse.Namespace) -> list[str]:
    """The trackers whose flags are given."""
    return [name for name in TRACKED if getattr(args, name)]


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    job = read_job(args)
    out = args.out or Path("runs") / f"{args.method}-{job.data.partition(':')[0]}"
    refuse_inside(out, data=[job.data])
    with progress(quiet=args.json, trackers=trackers_of(args), folder=out) as watch:
        trained, outcome = start(
            job,
            out,
            device=args.device,
            precision=args.precision,
            data_dir=args.data_dir,
            skip_bad=args.skip_bad,
            watch=watch,
        )
    if args.json:
        layout = trained.record.encoder.get("layout")  # what was recognised in a file of a published network
        print_json({"run": str(out), **asdict(outcome), **({"layout": layout} if layout else {})})
        return 0
    best = ""
    if outcome.accuracy is not None:
        best = f" (validation {outcome.validated_on}: {outcome.accuracy:.2f} % at step {outcome.step})"
    print(f"trained {args.method} in {outcome.seconds:.0f} s{best}: {out}")
    if command := suggest(out, data_dir=args.data_dir, skip_bad=args.skip_bad):
        print(f"next: {command}")
    return 0


def read_job(args: argparse.Namespace) -> Job:
    """Make the job: defaults, overridden by the recipe or the file, overridden by the given flags."""
    given = vars(args)
    if args.recipe and args.config:
        args.parser.error("--recipe and --config both set where to start from; give one of them")
    fields = dict(load_recipe(f"{args.method}-{args.recipe}").job) if args.recipe else {}
    fields = read_config(args.config, args.method) if args.config else fields
    settings = fields.pop("settings", {}) | {name: given[name] for name in args.own if name in given}
    train = fields.pop("train", {}) | {name: given[name] for name in args.shared if name in given}
    encoder = fields.pop("encoder", {"name": "conv4"})
    if "encoder" in given and given["encoder"] != encoder["name"]:
        encoder = {"name": given["encoder"]}
    if "arch" in given:
        encoder = encoder | {"arch": given["arch"]}
    if "width" in given:
        encoder = encoder | {"width": given["width"]}
    fields["data"] = args.data or fields.get("data", "glyphs")
    if args.size is not None:
        fields["size"] = args.size
    for name in ("init", "teacher", "labels", "clusters", "partitions", "labels_per_class", "depth", "freeze"):
        if given[name] is not None:
            fields[name] = given[name]
    if args.adapt is not None:
        if args.freeze is not None:
            args.parser.error("--adapt says what is trained, and --freeze what is not; give one of them")
        fields["freeze"] = frozen_for(args.adapt)
    refuse_recipes(f"recipe {args.recipe}" if args.recipe else args.config, fields)
    return Job(args.method, settings, train, train_on=args.train_on, encoder=encoder, **fields)


def add_labels(parser: Parser) -> None:
    """Add the flags that choose the labels to train on."""
    group = parser.add_argument_group("labels")
    group.add_argument(
        "--labels",
        metavar="WHICH",
        help="true; clusters:RUN for clusters of a run's features; or instances for each image as its own class "
        "(default: true)",
    )
    group.add_argument(
        "--clusters", type=int, metavar="N", help="number of clusters (default: one for every 40 images)"
    )
    group.add_argument("--partitions", type=int, metavar="N", help="number of different clusterings (default: 1)")
    group.add_argument(
        "--labels-per-class", type=int, metavar="N", help="number of labelled images of each class (default: all)"
    )


def refuse_recipes(source: str | Path | None, fields: dict[str, Any]) -> None:
    """Raise an error if a recipe or a file names the run of another recipe, which only ``metarep reproduce`` makes."""
    named = {f"--{name} RUN": fields.get(name) for name in ("init", "teacher")}
    named["--labels clusters:RUN"] = fields.get("labels", "").partition(":")[2]
    for flag, text in named.items():
        if text in recipe_names() and not Path(text).exists():
            raise MetarepError(
                f"{source or flag} needs a run of recipe {text}: name one by {flag}, or let metarep reproduce train it"
            )
