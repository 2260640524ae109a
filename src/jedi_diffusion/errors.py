"""The exceptions that users see.

Each message is one sentence (or two) that says what is wrong, where, and what to do. The command line prints
the message alone and exits with `exit_code`; library users catch `JeDiError`.
"""


class JeDiError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class UsageError(JeDiError, ValueError):
    """The request itself is wrong: counts that do not match, a value out of range, an unknown name."""

    exit_code = 2


class PictureError(JeDiError):
    """A picture file cannot be used: not a picture, damaged, too large, or a format that is not allowed."""


class DataError(JeDiError):
    """Training data cannot be used: a damaged tar, a stale index, captions that do not match the pictures."""


class ModelError(JeDiError, ValueError):
    """A model folder or checkpoint cannot be used: a missing, damaged, pickled or ill-shaped file.

    A ValueError too, as diffusers' loaders raise for the same.
    """


class RecipeError(UsageError):
    """A recipe (YAML) does not parse, names an unknown key, or holds a value out of range."""


class OutputError(JeDiError):
    """A result cannot be written: the disk is full, the folder is read-only, the path is taken."""
