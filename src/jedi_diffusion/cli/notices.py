"""What the package has to say while a command runs: on stderr, once, clear of the progress bar."""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm


class _Notices(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.said:
            self.said.add(message)
            tqdm.write(f"jedi: {message}", file=sys.stderr)


def show_notices() -> None:
    """Send the package's warnings (words cut from a prompt, words unknown to a model) to stderr."""
    logger = logging.getLogger("jedi_diffusion")
    logger.handlers = [each for each in logger.handlers if not isinstance(each, _Notices)]
    logger.addHandler(_Notices())
    logger.propagate = False
