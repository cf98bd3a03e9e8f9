"""Templates of the page, which are files beside this one. What is put into them is escaped."""

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from metarep.experiments.quickstart.words import validated


def render(template: str, **values: Any) -> Markup:  # noqa: ANN401 - whatever a template shows
    """A template with its values filled in; the result is markup, which is not escaped again."""
    return Markup(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    here = files("metarep.experiments.quickstart") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (here / name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,  # a name that is not given is an error, not a gap in the page
    )
    environment.filters["validated"] = validated
    return environment
