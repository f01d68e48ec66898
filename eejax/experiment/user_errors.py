"""What the user can put right, told in one line on standard error."""

import argparse
import dis
import os
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from eejax.names import suggest


def answer(error: Exception) -> int:
    """Tells the user what to put right.

    Args:
      error: what came up.

    Returns:
      The exit code, 2.

    Raises:
      Exception: the same error if it is a bug, or if EEJAX_TRACEBACK is 1.
    """
    if os.environ.get("EEJAX_TRACEBACK") == "1" or not _is_for_user(error):
        raise error
    complain(str(error))
    return 2


def _is_for_user(error: Exception) -> bool:
    """Tells a message to the user from a bug.

    An error of the file system is the user's, and so is one that eejax or a config file raises by
    a ``raise`` statement of its own. A ValueError that comes out of a library is a bug.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, ValueError | ImportError):
        return False
    innermost = error.__traceback__
    while innermost.tb_next:
        innermost = innermost.tb_next
    frame = innermost.tb_frame
    ours = frame.f_globals.get("__name__", "").startswith(("eejax.", "eejax_config_"))
    return ours and frame.f_code.co_code[innermost.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def unknown_argument(parser: argparse.ArgumentParser, word: str, choices: Sequence[str]) -> None:
    """Refuses an argument by way of the parser, with the nearest choice or all of them.

    Args:
      parser: whose usage to show.
      word: what was given.
      choices: what there is.

    Raises:
      SystemExit: always, with code 2.
    """
    hint = suggest(word.partition("=")[0], choices) or f"; choose from {', '.join(choices)}"
    parser.error(f"unknown argument {word!r}{hint}")


def complain(message: str) -> None:
    """Says one line on standard error."""
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]eejax:[/] {escape(message)}", soft_wrap=True)
