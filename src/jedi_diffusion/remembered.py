"""References of the latest calls, kept as the model read them: calls with the same spare that pass."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import SizedSampling
from jedi_diffusion.references import Reference

if TYPE_CHECKING:
    from jedi_diffusion.joint.references import EncodedReferences
    from jedi_diffusion.pipeline import JeDiPipeline


class ReferenceMemory:
    """The latest references of each owner, within a limit of memory; those used longest ago go first.

    most_bytes: that all hold together between calls; what alone holds more is not kept. most: sets of
    references. One owner's are never given to another, not even where both sent the same photos: how fast an
    answer comes would tell. Not for several threads at once.
    """

    def __init__(self, most_bytes: int, most: int = 8) -> None:
        self.most_bytes, self.most = most_bytes, most
        self._kept: OrderedDict[str, EncodedReferences] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes that all hold together."""
        return sum(each.nbytes for each in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def encoded(
        self,
        pipe: JeDiPipeline,
        owner: str | None,
        pictures: Sequence[Image.Image | Reference],
        captions: Sequence[str],
        sampling: SizedSampling,
    ) -> EncodedReferences:
        """Return the references as the model reads them, encoded now or at an earlier call of this owner.

        owner: None for references that nobody can have again. captions: one for all, one each, or none.
        """
        key = _key(owner, pictures, captions, sampling)
        kept = self._kept.get(key)
        if kept is not None and _fits(kept, pipe, sampling):
            self._kept.move_to_end(key)
            return kept
        self._kept.pop(key, None)
        made = pipe.encode_references(
            list(pictures),
            captions[0] if len(captions) == 1 else list(captions) or None,
            sampling.height,
            sampling.width,
            sampling.coupled_layers,
            sampling.auto_mask,
            sampling.masking,
        )
        if owner is not None:
            self._kept[key] = made
        return made

    def trim(self) -> None:
        """Drop what is beyond the limits, after a call, which may have added to what it read."""
        for key in [key for key, each in self._kept.items() if each.nbytes > self.most_bytes]:
            del self._kept[key]
        while self._kept and (len(self._kept) > self.most or self.nbytes > self.most_bytes):
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Drop all."""
        self._kept.clear()


def _key(
    owner: str | None,
    pictures: Sequence[Image.Image | Reference],
    captions: Sequence[str],
    sampling: SizedSampling,
) -> str:
    digest = hashlib.sha256(repr((owner, tuple(captions), sampling.height, sampling.width)).encode())
    digest.update(repr((sampling.coupled_layers, sampling.auto_mask, sampling.masking)).encode())
    for each in pictures:
        reference = each if isinstance(each, Reference) else Reference(each)
        how = (reference.caption, reference.strength, reference.subject, reference.region)
        digest.update(repr(how).encode())
        for picture in (reference.picture, reference.mask):
            values = np.asarray(b"" if picture is None else picture)
            digest.update(f"{getattr(picture, 'mode', '')} {values.dtype} {values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def _fits(kept: EncodedReferences, pipe: JeDiPipeline, sampling: SizedSampling) -> bool:
    try:
        kept.check(pipe.network, pipe.backbone.layers_named(sampling.coupled_layers))
    except UsageError:  # weights or adapters have changed since
        return False
    return True
