"""How ``--help`` is laid out: names are never broken, and commands stand in a list."""

import argparse
import textwrap


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wrap help between words only, so that ``protonet-omniglot`` stays whole and can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _format_action(self, action: argparse.Action) -> str:
        listed = list(self._iter_indented_subactions(action)) if isinstance(action, argparse._SubParsersAction) else []
        if listed and all(each.help for each in listed):
            return "".join(map(super()._format_action, listed))  # the names alone, without a line that announces them
        return super()._format_action(action)
