"""What every personalization method does: references and prompts in, pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL import Image


class Personalizer(Protocol):
    """Makes pictures of the subject that the references show.

    references: one or more pictures of one subject; reference_prompts: their captions, one each; prompts: one
    new picture each; seeds: one a prompt, each picture a function of (references, its prompt, its seed).
    Returns RGB pictures, one a prompt, in order.
    """

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]: ...
