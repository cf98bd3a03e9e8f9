"""The command ``metarep serve``: serve a classifier over HTTP."""

import argparse
import os
import secrets
import signal
import socket
import ssl
import tempfile
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from metarep.cli.fit import add_encoder
from metarep.cli.flags import argument_helps
from metarep.cli.options import add_threads, set_threads
from metarep.cli.parser import Parser
from metarep.errors import MetarepError, counted, missing_extra

USAGE = "MODEL"
EXAMPLE = """examples:
  metarep serve moths
      http://127.0.0.1:8000, reachable from this machine only
  metarep serve letters --encoder omniglot-protonet
      a new model, to be filled on the page
  metarep serve moths --host 0.0.0.0 --token "$SECRET"
      for other machines, which need the token
  metarep serve moths --workers 4
      four processes, for more requests a second
"""
SHORTEST = 16  # characters of a token
MOST_WORKERS = 256
SILENCE = 15  # seconds without a sign of life after which a worker is replaced


def add(parser: Parser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a model folder that metarep fit made, or hf:USER/NAME to read alone; with --encoder, a new one",
    )
    group = parser.add_argument_group("address")
    group.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (default: 127.0.0.1, reachable from this machine only)",
    )
    group.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port to listen at; 0 for any free port (default: 8000)"
    )
    group.add_argument(
        "--token",
        help="secret that each request must carry; required if other machines can reach the server "
        "(default: the environment variable METAREP_TOKEN)",
    )
    group.add_argument(
        "--called",
        metavar="NAMES",
        default="",
        help="further host names of this server, separated by commas, if it is behind a proxy",
    )
    group.add_argument("--cert", type=Path, metavar="FILE", help="certificate for HTTPS (PEM)")
    group.add_argument("--key", type=Path, metavar="FILE", help="private key of the certificate (PEM)")
    add_encoder(parser, None)
    add_limits(parser)
    machine = add_threads(parser)
    machine.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that answer requests; they share the threads (default: 1)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of ``Limits``."""
    from metarep.app.limits import Limits

    group, helps = parser.add_argument_group("limits"), argument_helps(Limits.__doc__ or "")
    for field in fields(Limits):
        kind, default = type(field.default), field.default
        text = f"{helps[field.name]} (default: {default:g})"
        group.add_argument(flag_of(field.name), dest=field.name, type=kind, default=default, metavar="N", help=text)


def flag_of(limit: str) -> str:
    """The flag of a field of ``Limits``."""
    return "--patience" if limit == "patience" else f"--most-{limit}"


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    if not 1 <= args.workers <= MOST_WORKERS:
        raise MetarepError(f"--workers must be 1 to {MOST_WORKERS}, not {args.workers}")
    if (args.cert is None) != (args.key is None):
        args.parser.error("--cert and --key belong together")
    if args.cert:
        check_certificate(args.cert, args.key)
    try:
        import multipart  # noqa: F401 - needed to read uploads
        import uvicorn

        from metarep.app.api import create_app
    except ImportError as error:
        raise missing_extra("metarep serve", str(error.name), "serve") from error
    token, hosts = who_may(args)
    limits = read_limits(args)
    folder = open_or_create(args)
    options: dict[str, Any] = {"log_level": "warning", "server_header": False, "timeout_graceful_shutdown": 5}
    options |= {"lifespan": "on", "ssl_certfile": args.cert, "ssl_keyfile": args.key}
    with listen(args.host, args.port) as listening:
        port = listening.getsockname()[1]
        shown = "127.0.0.1" if args.host in ("0.0.0.0", "::", "") else args.host
        shown = f"[{shown}]" if ":" in shown else shown
        address = f"{'https' if args.cert else 'http'}://{shown}:{port}"
        print(f"{args.model}: {folder.model.in_words}", flush=True)
        if args.workers > 1:
            return run_workers(args, listening, address, options, asdict(limits), token, hosts, folder.origin)
        print(f"page: {address}\nCtrl-C ends it", flush=True)
        warnings.filterwarnings("ignore", module="PIL")  # of odd files; many threads decode, so it is done once
        config = uvicorn.Config(create_app(folder, limits=limits, token=token, hosts=hosts), **options)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            return 130  # the status of every interrupted command
    return 0


def run_workers(
    args: argparse.Namespace,
    listening: socket.socket,
    address: str,
    options: dict[str, Any],
    limits: dict[str, Any],
    token: str | None,
    hosts: frozenset[str] | None,
    origin: str = "",
) -> int:
    """Serve the model by several processes until a signal ends them.

    Args:
        args: the arguments of the command.
        listening: the socket that all workers accept connections from.
        address: of the page.
        options: of ``uvicorn.Config``.
        limits, token, hosts: see :class:`metarep.app.worker.Worker`.
        origin: the name of a model on the Hub with its commit; empty for a model folder.

    Returns:
        The exit status: 130 after Ctrl-C, and 2 if a worker could not start.
    """
    import torch
    import uvicorn

    from metarep.app.worker import Worker
    from metarep.app.workers import Workers

    threads = max(1, torch.get_num_threads() // args.workers)
    with tempfile.TemporaryDirectory(prefix="metarep-serve-") as shared:
        worker = Worker(Path(origin) if origin else args.model.resolve(), limits, token, hosts, threads, Path(shared))
        config = uvicorn.Config(
            worker, factory=True, workers=args.workers, timeout_worker_healthcheck=SILENCE, **options
        )
        workers = Workers(config, listening, Path(shared))
        print(f"page: {address}\n{args.workers} workers of {counted(threads, 'thread')}", flush=True)
        print("Ctrl-C ends them", flush=True)
        workers.run()
    if workers.failed or workers.ended_by == signal.SIGINT:
        return 2 if workers.failed else 130
    signal.signal(workers.ended_by, signal.SIG_DFL)  # so that whoever sent it sees that it has ended this process
    signal.raise_signal(workers.ended_by)
    return 0


def who_may(args: argparse.Namespace) -> tuple[str | None, frozenset[str] | None]:
    """The token and the allowed host names of the server; see :class:`metarep.app.guard.Guard`.

    Returns:
        The token, or None if none is needed; and the host names that requests may name, or None for any.

    Raises:
        MetarepError: other machines can reach the server and the token is missing or too short, or the token is empty
            or not ASCII.
    """
    from metarep.app.guard import LOOPBACK

    token = args.token if args.token is not None else os.environ.get("METAREP_TOKEN")
    others = frozenset(name.strip().lower() for name in args.called.split(",") if name.strip())
    alone = args.host in LOOPBACK
    if not (alone and others <= LOOPBACK) and (token is None or len(token) < SHORTEST):
        raise MetarepError(
            f"other machines can reach {args.called or args.host}, so a token of at least {SHORTEST} characters is "
            f"needed: --token {secrets.token_urlsafe(24)}"
        )
    if token is not None and not token.isascii():  # an HTTP header cannot hold it
        raise MetarepError(
            "the token has characters that are not ASCII, which a browser cannot send; choose ASCII characters"
        )
    if token == "":
        raise MetarepError("the token is empty; leave --token and METAREP_TOKEN out, or give one")
    return token, LOOPBACK | others if alone else None


def check_certificate(cert: Path, key: Path) -> None:
    """Check that a certificate and its key can be loaded, before an address is printed.

    Raises:
        MetarepError: a file does not exist, or the two are not a certificate and its key.
    """
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except OSError as error:
        raise MetarepError(f"{cert} and {key} are not a certificate and its key: {error.strerror or error}") from error


def open_or_create(args: argparse.Namespace):  # noqa: ANN201 - a folder of a model, which imports torch
    """Open the model folder, or create an empty one if ``--encoder`` is given.

    Raises:
        MetarepError: there is no model and no encoder is given, or there are both.
    """
    from metarep.machine.files import typed
    from metarep.model.any_folder import open_folder
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model
    from metarep.weights.hub.contents import GALLERY, LABELS
    from metarep.weights.hub.names import is_hub_name
    from metarep.weights.named import load_representation

    exists = any((args.model / name).is_file() for name in (GALLERY, LABELS))
    if args.encoder is None:
        if not exists and not args.model.exists() and not is_hub_name(args.model):
            raise MetarepError(
                f"there is no model {args.model}; metarep fit PHOTOS --out {typed(args.model)} makes one, "
                f"and metarep serve {typed(args.model)} --encoder auto an empty one, to be filled on the page"
            )
        return open_folder(args.model if is_hub_name(args.model) else args.model.resolve())
    if is_hub_name(args.model):
        raise MetarepError(f"{args.model} is on the Hub, with an encoder of its own; leave --encoder out")
    if exists:
        raise MetarepError(f"{args.model} is there already, with an encoder of its own; leave --encoder out")
    representation = load_representation(args.encoder, arch=args.arch, size=args.size)
    return ModelFolder.create(args.model.resolve(), Model(representation, None, Gallery.empty()))


def read_limits(args: argparse.Namespace):  # noqa: ANN201 - Limits
    """Read the limits of the server from the flags.

    Raises:
        MetarepError: a limit is not above 0, or there are more files than one form can hold.
    """
    from metarep.app.limits import MOST_FILES, Limits
    from metarep.errors import above

    given = {field.name: getattr(args, field.name) for field in fields(Limits)}
    for name, value in given.items():
        above(flag_of(name), value)
    if given["files"] > MOST_FILES:
        raise MetarepError(f"{flag_of('files')} must be at most {MOST_FILES}, not {given['files']}")
    return Limits(**given)


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens at an address.

    Raises:
        MetarepError: the port is not a valid number, is in use, or needs other permissions.
    """
    if not 0 <= port < 65536:
        raise MetarepError(f"--port must be 0 to 65535, not {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise MetarepError(
            f"cannot listen at {host}:{port} ({error.strerror or error}); --port 0 takes any free port"
        ) from error
