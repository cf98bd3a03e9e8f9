"""The layout of ``--help``: names are never broken at a hyphen, and commands are a list."""

import argparse
import textwrap


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps help between words only, so that ``protonet-omniglot`` stays whole and can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _format_action(self, action: argparse.Action) -> str:
        listed = list(self._iter_indented_subactions(action)) if isinstance(action, argparse._SubParsersAction) else []
        if listed and all(each.help for each in listed):
            return "".join(map(super()._format_action, listed))  # without argparse's own line above the names
        return super()._format_action(action)
