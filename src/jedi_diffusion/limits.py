"""What one request may ask for, whichever way it comes in, and the checks of single values."""

from __future__ import annotations

from collections.abc import Mapping

from jedi_diffusion.errors import UsageError

MAX_REFERENCES = 16
MAX_PICTURES = 10_000
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_PROMPT = 10_000
"""Characters; text encoders read some 77 words, so longer prompts are mistakes."""
MAX_SEED = 2**62
SIZES = range(16, 2049)
MAX_SET = 32
"""Pictures in one set with `--joint-targets`: attention grows with their square."""


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises UsageError unless the value lies between low and high; NaN does not."""
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}, but must lie between {low} and {high}.")


def check_options(given: object, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raises UsageError for an option of a command, a field of `given`, that is not within its limits. None
    is an option that is not given."""
    for name, (low, high) in limits.items():
        value = getattr(given, name)
        if value is not None:
            check_range("--" + name.replace("_", "-"), value, low, high)


def check_side(name: str, side: int) -> None:
    """Raises UsageError for a side in pixels that no model here can make."""
    check_range(name, side, SIZES.start, SIZES.stop - 1)
    if side % 8:
        raise UsageError(f"{name} is {side}, but must be a multiple of 8.")


def check_text(prompt: str) -> None:
    """Raises UsageError for a prompt that is too long, holds control characters, or is no valid Unicode."""
    if len(prompt) > MAX_PROMPT:
        raise UsageError(f"A prompt has {len(prompt)} characters; at most {MAX_PROMPT} are accepted.")
    odd = next((letter for letter in prompt if ord(letter) < 32 and letter not in "\t\n\r"), None)
    if odd is not None:
        raise UsageError(f"A prompt holds the control character U+{ord(odd):04X}; take it out.")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in prompt):
        raise UsageError("A prompt is not valid Unicode text.")
