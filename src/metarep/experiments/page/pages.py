"""Templates of pages, from the folders ``templates`` of this package and of the one that writes the page."""

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from metarep.experiments.page.words import validated

SHARED = "metarep.experiments.page"


def render(template: str, package: str = SHARED, **values: Any) -> Markup:  # noqa: ANN401 - a template may show any value
    """Fill a template with values, which are escaped for HTML.

    Args:
        template: file name of the template.
        package: the package whose folder ``templates`` holds it; the templates of this package are found too.
        values: the values by the names that the template uses; a missing one is an error.

    Returns:
        Markup, which other templates do not escape again.

    >>> own = "metarep.experiments.quickstart"
    >>> "<p>More &amp; better:</p>" in render("next.html", own, tries={"More & better": "metarep methods"})
    True
    """
    return Markup(_environment(package).get_template(template).render(values))


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([_loader(name) for name in dict.fromkeys((package, SHARED))]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,  # a missing name is an error, not a gap in the page
    )
    environment.filters["validated"] = validated
    return environment


def _loader(package: str) -> FunctionLoader:
    here = files(package) / "templates"

    def read(name: str) -> str | None:
        path = here / name
        return path.read_text("utf-8") if path.is_file() else None

    return FunctionLoader(read)
