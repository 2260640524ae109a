"""The command `jedi`. `jedi --help` loads this file and `commands` alone; a command loads what it needs."""

from __future__ import annotations

import difflib
import io
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise

from jedi_diffusion import __version__
from jedi_diffusion.cli.commands import COMMANDS
from jedi_diffusion.errors import JeDiError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `jedi` with these arguments (default: those of the process) and return its exit status.

    0 done; 1 a fault that an input or the machine caused; 2 a request that is wrong; 130 interrupted.
    """
    return guarded(list(sys.argv[1:] if arguments is None else arguments), dispatch)


def dispatch(words: list[str]) -> None:
    """Run the command that `words` begin with, on the words after."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
    elif words[0] in ("-V", "--version"):
        print(f"jedi-diffusion {__version__}")
    else:
        name, rest = find_command(words)
        import_module(f"jedi_diffusion.cli.{COMMANDS[name].module}").run(rest)


def guarded(words: list[str], run: Callable[[list[str]], None]) -> int:
    """Run a program on its words and return its exit status; a user's fault is one sentence on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        run(words)
    except JeDiError as error:
        print(f"jedi: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as stop:  # of the parser, which has said what it misses
        if stop.code == 2 and (hint := dash_hint(words)):
            print(f"jedi: {hint}", file=sys.stderr)
        raise
    except KeyboardInterrupt as stop:
        print(f"\njedi: {str(stop) or 'Interrupted.'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def dash_hint(words: Sequence[str]) -> str | None:
    """Return how to write a value that begins with a dash, if one of the words may be meant as such."""
    for option, value in pairwise(words):
        is_value = value.startswith("-") and (not value.startswith("--") or " " in value)
        if is_value and option.startswith("--") and "=" not in option:
            return f"If {value!r} is the value of {option}, write {option}={shlex.quote(value)}"
    return None


def find_command(words: list[str]) -> tuple[str, list[str]]:
    """Return the longest command that `words` begin with ("toybox score" before "toybox"), and the words
    after.
    """
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in COMMANDS:
            return name, words[length:]
    close = difflib.get_close_matches(words[0], COMMANDS, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise UsageError(f"There is no command {words[0]!r}.{hint} `jedi --help` lists the commands.")


def help_text() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: jedi COMMAND [options]",
            "",
            "New pictures of your own subject from a few reference photos, without fine-tuning.",
            "",
            *lines,
            "",
            "`jedi COMMAND --help` shows the options of a command, `jedi --version` the version.",
        ]
    )


class _Notices(logging.Handler):
    """Each warning once, on stderr, clear of the progress bar."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.said:
            self.said.add(message)
            from tqdm import tqdm

            tqdm.write(f"jedi: {message}", file=sys.stderr)


def show_notices() -> None:
    """Send the package's warnings (words cut from a prompt, words unknown to a model) to stderr."""
    logger = logging.getLogger("jedi_diffusion")
    logger.handlers = [each for each in logger.handlers if not isinstance(each, _Notices)]
    logger.addHandler(_Notices())
    logger.propagate = False
