"""Templates of the page, from the folder ``templates``. Values are escaped for HTML."""

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from metarep.experiments.quickstart.words import validated


def render(template: str, **values: Any) -> Markup:  # noqa: ANN401 - a template may show any value
    """Fill a template with values.

    Args:
        template: file name of the template.
        values: the values by the names that the template uses; a missing one is an error.

    Returns:
        Markup, which other templates do not escape again.

    >>> "<p>More &amp; better:</p>" in render("next.html", tries={"More & better": "metarep methods"})
    True
    """
    return Markup(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    here = files("metarep.experiments.quickstart") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (here / name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,  # a missing name is an error, not a gap in the page
    )
    environment.filters["validated"] = validated
    return environment
