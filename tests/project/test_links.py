"""Links between pages of the documentation lead to headings that exist; `make docs` checks the rest."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\]\(([^)\s#:]*)#([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as the site and GitHub name them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_headings() -> None:
    seen, wrong = 0, list[str]()
    for page in sorted(DOCS.rglob("*.md")):
        for target, anchor in LINK.findall(page.read_text("utf-8")):
            other = (page.parent / target).resolve() if target else page
            if other.suffix == ".md":
                seen += 1
                if anchor not in anchors(other):
                    wrong.append(f"{page.relative_to(DOCS)}: {target}#{anchor}")
    assert seen > 20
    assert not wrong
