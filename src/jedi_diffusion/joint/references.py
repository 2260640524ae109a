"""References that were read once, for any number of later calls (coupling "cached").

Plain calls make such an object for themselves and drop it. One that is kept holds keys and values of its
references for one model as it is: `check` refuses another, or one whose weights or adapters have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.cache import ReferenceCache
from jedi_diffusion.joint.sampler import CachedReferences
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.weights import network_stamp


class EncodedReferences:
    """A set of references as coupling "cached" reads it: what `JeDiPipeline.encode_references` returns.

    captioned: the references alone, as one set, with their captions. silent: the same with empty ones; None
    where that makes no difference. size: height and width in pixels of the targets that they were fitted to;
    None where any will do.
    """

    def __init__(
        self,
        captioned: SetBatch,
        silent: SetBatch | None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._sets = {True: captioned, False: silent or captioned}
        self._filled: dict[bool, tuple[ReferenceCache, int]] = {}
        self.size = size
        self._stamp = ""
        self._layers: frozenset[str] | None = None

    def __len__(self) -> int:
        return len(self._sets[True].mask)

    @property
    def has_captions(self) -> bool:
        """Whether captions make a difference."""
        return self._sets[True] is not self._sets[False]

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values, latents and text."""
        caches = {id(cache): cache.nbytes for cache, _ in self._filled.values()}
        batches = {id(batch): batch for batch in self._sets.values()}
        tensors = [each for batch in batches.values() for each in (batch.latents, *batch.conditions.values())]
        return sum(caches.values()) + sum(each.nbytes for each in tensors)

    def bind(self, network: nn.Module, coupled_layers: frozenset[str] | None) -> None:
        """Note what reads them: a network as it is, coupled in these layers. They serve nothing else."""
        self._stamp, self._layers = network_stamp(network), coupled_layers

    def check(self, network: nn.Module, coupled_layers: frozenset[str] | None) -> None:
        """Raise UsageError unless they are bound to the network as it is, coupled in these layers."""
        if self._layers != coupled_layers:
            raise UsageError(
                "These references were encoded for other coupled_layers than the call's: give both the same."
            )
        if self._stamp != network_stamp(network):
            raise UsageError(
                "These references were encoded by another model, or before its weights, adapters or dtype "
                "changed: encode them anew with pipe.encode_references."
            )

    def read(self, captions: Sequence[bool], fill: Callable[[SetBatch], ReferenceCache]) -> CachedReferences:
        """Return what branches of guidance with (True) or with empty captions (False) read.

        What has not been read yet runs once, all of it in one pass of `fill`, the backbone's `fill_cache`.
        """
        wanted = {text: text or not self.has_captions for text in captions}
        missing = sorted(set(wanted.values()) - self._filled.keys(), reverse=True)
        if missing:
            cache = fill(SetBatch.concatenate([self._sets[text] for text in missing]))
            self._filled |= {text: (cache, number) for number, text in enumerate(missing)}
        found = {text: self._filled[text] for text in set(wanted.values())}
        caches = list({id(cache): cache for cache, _ in found.values()}.values())
        starts, start = {}, 0
        for cache in caches:
            starts[id(cache)] = start
            start += len(cache.set_sizes)
        whole = caches[0] if len(caches) == 1 else ReferenceCache.joined(caches)
        place = {text: starts[id(cache)] + number for text, (cache, number) in found.items()}
        return CachedReferences(whole, {text: place[own] for text, own in wanted.items()})
