"""What ``make docs`` does beyond mkdocs: pages that are made of other files, two languages, and strict checks."""

import re
from pathlib import Path
from typing import Any

import docs_api
from docs_examples import examples
from docs_links import OUTSIDE, ROOT, as_site_markdown, rewrite, source_path
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure import StructureItem
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

REMOTE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^>\s]+"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload|preconnect))[^>]*\bhref=["']?(?:https?:)?//[^>\s]+"""
    r"""|(?:url\(|@import\s+)["']?(?:https?:)?//[^)\s]+"""
)
LANGUAGES = {"en": "English", "zh": "中文"}
OTHERS = "英文文档"  # what the Chinese pages call the part that is English only


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Refuse public names without a docstring, and fill folders of the navigation with their pages."""
    if names := docs_api.missing():
        raise PluginError(f"these public names have no docstring: {', '.join(names)}")
    made = {
        "api/": ["api/index.md", *({group.title: group.page} for group in docs_api.groups())],
        "examples/": [example.page for example in examples()],
        "methods/": [f"methods/{path.name}" for path in sorted((ROOT / "docs" / "methods").glob("*.md"))],
    }
    config.nav = [_filled(item, made) for item in config.nav or [] if _filled(item, made)]
    return config


def _filled(item: Any, made: dict[str, list[Any]]) -> Any:  # noqa: ANN401 - what YAML has
    """An entry of the navigation whose folder, if it names one, is the list of its pages; None if that is empty."""
    if isinstance(item, dict):
        ((title, inside),) = item.items()
        inside = made.get(inside, inside) if isinstance(inside, str) else inside
        return {title: inside} if inside else None
    return item


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose source does not lie in docs/: README, changelog, examples, API."""
    pages: dict[str, str | bytes] = dict(docs_api.pages())
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text("utf-8")
        pages[page] = rewrite(text, source) if source.endswith(".md") else f"# Licence\n\n```text\n{text}```\n"
    for example in examples():
        pages[example.page] = rewrite(example.markdown, example.source)
        pages.update(example.pictures)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own arguments
    """Markdown as the site's parser reads it, with links to pages instead of files of the repository."""
    path = page.file.src_uri
    if page.file.generated_by is None:
        markdown = rewrite(markdown, source_path(path))
    return as_site_markdown(markdown)


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation) -> dict[str, Any]:
    """Language of the page's own words, its navigation, and the way to the same page in the other language."""
    language = _language(page.file.src_uri)
    config.theme["language"] = language
    pages = {each.file.src_uri: each for each in nav.pages}
    config.extra["alternate"] = [
        {"name": name, "lang": code, "link": _same_page(page, code, pages).url} for code, name in LANGUAGES.items()
    ]
    context["nav"] = _in_language(nav, language, pages)
    return context


def _language(path: str) -> str:
    return "zh" if path.startswith("zh/") else "en"


def _same_page(page: Page, language: str, pages: dict[str, Page]) -> Page:
    """The page in this language, or the start page where it is not translated."""
    bare = page.file.src_uri.removeprefix("zh/")
    prefix = "zh/" if language == "zh" else ""
    return pages.get(prefix + bare) or pages[f"{prefix}index.md"]


def _in_language(nav: Navigation, language: str, pages: dict[str, Page]) -> Navigation:
    """English pages show no Chinese ones; Chinese pages show these first, then a link to the English ones."""
    chinese = [item for item in nav.items if _paths(item) and all(path.startswith("zh/") for path in _paths(item))]
    english = [item for item in nav.items if item not in chinese]
    if language == "zh":
        translated = [inside for item in chinese for inside in (item.children or [])]
        made = Navigation([*translated, Section(OTHERS, english)], nav.pages)
        made.homepage = pages["zh/index.md"]
    else:
        made = Navigation(english, nav.pages)
        made.homepage = nav.homepage
    return made


def _paths(item: StructureItem) -> list[str]:
    if isinstance(item, Page):
        return [item.file.src_uri]
    return [path for child in getattr(item, "children", None) or [] for path in _paths(child)]


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would load anything from another host."""
    remote = remote_assets(Path(config.site_dir))
    if remote:
        raise PluginError("the site would load these from the network:\n" + "\n".join(remote))


def remote_assets(site: Path) -> list[str]:
    """Scripts, styles, fonts and pictures of other hosts that pages or styles of a built site load."""
    paths = [path for path in sorted(site.rglob("*")) if path.suffix in (".html", ".css")]
    return [
        f"{path.relative_to(site)}: {match[0]}" for path in paths for match in REMOTE.finditer(path.read_text("utf-8"))
    ]
