"""metarep serve MODEL."""

import argparse
import os
import secrets
import socket
import ssl
import warnings
from dataclasses import fields
from pathlib import Path

from metarep.cli.fit import add_encoder
from metarep.cli.flags import argument_helps
from metarep.cli.options import add_threads, set_threads
from metarep.cli.parser import Parser
from metarep.errors import MetarepError, missing_extra

USAGE = "MODEL"
EXAMPLE = """examples:
  metarep serve moths                                     a page at http://127.0.0.1:8000, for this machine alone
  metarep serve letters --encoder omniglot-protonet       a new model, to be filled on the page
  metarep serve moths --host 0.0.0.0 --token "$SECRET"    for others too, who must know the token
"""
SHORTEST = 16  # characters of a token


def add(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="what metarep fit made; with --encoder, a new one")
    group = parser.add_argument_group("address")
    group.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine alone)")
    group.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes any that is free (default: 8000)")
    group.add_argument(
        "--token", help="what everybody who asks must know; METAREP_TOKEN if not given; needed beyond this machine"
    )
    group.add_argument(
        "--called", metavar="NAMES", default="", help="further names of this server, with commas: behind a proxy"
    )
    group.add_argument("--cert", type=Path, metavar="FILE", help="certificate, for https")
    group.add_argument("--key", type=Path, metavar="FILE", help="its key")
    add_encoder(parser, None)
    add_limits(parser)
    add_threads(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """A flag for each limit."""
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
    try:
        import multipart  # noqa: F401 - what reads uploads
        import uvicorn

        from metarep.app.api import create_app
    except ImportError as error:
        raise missing_extra("metarep serve", str(error.name), "serve") from error
    if (args.cert is None) != (args.key is None):
        args.parser.error("--cert and --key belong together")
    if args.cert:
        check_certificate(args.cert, args.key)
    token, hosts = who_may(args)
    limits = read_limits(args)
    folder = open_or_create(args)
    app = create_app(folder, limits=limits, token=token, hosts=hosts)
    certificate = {"ssl_certfile": args.cert, "ssl_keyfile": args.key} if args.cert else {}
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, timeout_graceful_shutdown=5, lifespan="on", **certificate
    )
    with listen(args.host, args.port) as listening:
        port, gallery = listening.getsockname()[1], folder.model.gallery
        shown = "127.0.0.1" if args.host in ("0.0.0.0", "::", "") else args.host
        shown = f"[{shown}]" if ":" in shown else shown
        address = f"{'https' if args.cert else 'http'}://{shown}:{port}"
        print(f"{args.model}: {gallery.in_words}", flush=True)
        print(f"page: {address}\nCtrl-C ends it", flush=True)
        warnings.filterwarnings("ignore", module="PIL")  # of odd files; many threads decode, so it is done once
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            return 130  # as every command that is interrupted, but nothing is left unfinished
    return 0


def who_may(args: argparse.Namespace) -> tuple[str | None, frozenset[str] | None]:
    """The token, and the names that the server may be asked for by; see :class:`metarep.app.guard.Guard`.

    Raises:
        MetarepError: others can reach the server, and there is no token worth the name.
    """
    from metarep.app.guard import LOOPBACK

    token = args.token if args.token is not None else os.environ.get("METAREP_TOKEN")
    others = frozenset(name.strip().lower() for name in args.called.split(",") if name.strip())
    alone = args.host in LOOPBACK
    if not (alone and others <= LOOPBACK) and (token is None or len(token) < SHORTEST):
        raise MetarepError(
            f"others can reach {args.called or args.host}, so a token of at least {SHORTEST} characters is needed: "
            f"--token {secrets.token_urlsafe(24)}"
        )
    if token is not None and not token.isascii():  # which headers cannot bring
        raise MetarepError("the token has other letters than those of ASCII, which a browser cannot send; take others")
    if token == "":
        raise MetarepError("the token is empty; leave --token and METAREP_TOKEN out, or give one")
    return token, LOOPBACK | others if alone else None


def check_certificate(cert: Path, key: Path) -> None:
    """Before anything is said of an address.

    Raises:
        MetarepError: there are no such files, or they are no certificate and its key.
    """
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except OSError as error:
        raise MetarepError(f"{cert} and {key} are no certificate and its key: {error.strerror or error}") from error


def open_or_create(args: argparse.Namespace):  # noqa: ANN201 - ModelFolder, which imports torch
    """The model that is there, or a new and empty one."""
    from metarep.machine.files import typed
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model
    from metarep.weights.named import load_representation

    there = (args.model / "gallery.safetensors").is_file()
    if args.encoder is None:
        if not there and not args.model.exists():
            raise MetarepError(
                f"there is no model {args.model}; metarep fit PHOTOS --out {typed(args.model)} makes one, "
                f"and metarep serve {typed(args.model)} --encoder auto an empty one, to be filled on the page"
            )
        return ModelFolder.open(args.model)
    if there:
        raise MetarepError(f"{args.model} is there already, with an encoder of its own; leave --encoder out")
    representation = load_representation(args.encoder, arch=args.arch, size=args.size)
    return ModelFolder.create(args.model, Model(representation, None, Gallery.empty()))


def read_limits(args: argparse.Namespace):  # noqa: ANN201 - Limits
    """The limits that were given.

    Raises:
        MetarepError: one that is not above 0, or more files than a form can bring.
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
    """A socket that listens there.

    Raises:
        MetarepError: the port is taken, or not ours to take.
    """
    if not 0 <= port < 65536:
        raise MetarepError(f"--port must be 0 to 65535, not {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise MetarepError(
            f"{host}:{port} cannot be listened at ({error.strerror or error}); --port 0 takes any port that is free"
        ) from error
