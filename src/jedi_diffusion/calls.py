"""One call of the pipeline in plain values, as the command line, the batch and the server make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from PIL import Image

from jedi_diffusion.errors import JeDiError
from jedi_diffusion.options import SizedSampling
from jedi_diffusion.references import Reference

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says of devices without memory, in small letters."""
LESS_MEMORY = "take a smaller size, fewer references, fewer pictures at once (--batch), or --dtype bfloat16"

if TYPE_CHECKING:
    from torch import Tensor

    from jedi_diffusion.joint.record import AttentionRecord
    from jedi_diffusion.joint.references import EncodedReferences
    from jedi_diffusion.pipeline import JeDiPipeline, JeDiPipelineOutput
    from jedi_diffusion.remembered import ReferenceMemory


@dataclass(frozen=True)
class Call:
    """One prompt and one seed a picture; references with one caption for all, one each, or none.

    joint_targets: whether all prompts make one set. previews: whether somebody looks at the pictures while
    they are made; changes nothing about them. owner: who may be given these references again by a
    `ReferenceMemory`, None for nobody.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    references: Sequence[Image.Image | Reference]
    captions: Sequence[str]
    sampling: SizedSampling
    joint_targets: bool = False
    previews: bool = False
    owner: str | None = None


def first_seed(seed: int, number: int, images_per_prompt: int, joint_targets: bool) -> int:
    """Return the seed of the first picture of prompt `number`, from 0; those after it count on.

    Targets of one set need noise of their own; separate prompts share it, so that they can be compared.
    """
    return seed + (number * images_per_prompt if joint_targets else 0)


def run_call(
    pipe: JeDiPipeline,
    call: Call,
    after_step: Callable[[int, Tensor], None],
    attention_record: AttentionRecord | None = None,
    during_step: Callable[[], None] | None = None,
    memory: ReferenceMemory | None = None,
) -> list[Image.Image]:
    """Return a picture for each prompt, from its own seed.

    after_step(step from 0, clean latents (T, C, H, W)): what the network takes the pictures to be by then.

    during_step() runs between the layers of the networks, many times a step. What either raises ends the
    call. attention_record: see `JeDiPipeline.__call__`. memory: what references of coupling "cached" are
    taken from and kept in; it gives way when memory runs out. Raises JeDiError, also then.
    """

    from jedi_diffusion.randomness import seeded_generator

    def callback(_pipe: JeDiPipeline, step: int, _timestep: Tensor, tensors: dict[str, Tensor]) -> None:
        after_step(step, tensors["clean_latents"])

    captions = list(call.captions) if call.references else []
    coupling = call.sampling.coupling or pipe.own_coupling
    with _between_layers(pipe, during_step), _memory_said(call, memory):
        references: list[Image.Image | Reference] | EncodedReferences = list(call.references)
        if memory is not None and references and coupling == "cached" and not call.joint_targets:
            references = memory.encoded(pipe, call.owner, call.references, captions, call.sampling)
            captions = []
        made = pipe(
            prompt=list(call.prompts),
            references=references,
            reference_prompts=captions[0] if len(captions) == 1 else captions or None,
            **call.sampling.arguments(),
            joint_targets=call.joint_targets,
            generator=[seeded_generator(seed) for seed in call.seeds],
            callback_on_step_end=callback,
            attention_record=attention_record,
        )
        if memory is not None:
            memory.trim()
    return cast("JeDiPipelineOutput", made).images  # type: ignore[return-value]  # "pil"


@contextmanager
def _between_layers(pipe: JeDiPipeline, during_step: Callable[[], None] | None) -> Iterator[None]:
    """Call `during_step` before each layer of the networks that take time."""
    hooks = []
    if during_step is not None:
        layers = [layer for network in (pipe.network, pipe.vae) for layer in network.modules()]
        hooks = [layer.register_forward_pre_hook(lambda *_: during_step()) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _memory_said(call: Call, memory: ReferenceMemory | None) -> Iterator[None]:
    """Turn the many ways in which memory runs out into one sentence, and drop what is kept then."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has a class of its own for graphics cards alone
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in NO_MEMORY):
            raise
        if memory is not None:
            memory.clear()
        how = call.sampling
        raise JeDiError(
            f"There is not enough memory for {pictures_said(len(call.prompts), how)} at once; {LESS_MEMORY}."
        ) from error


def pictures_said(count: int, how: SizedSampling) -> str:
    """Return a call in words: "2 pictures of 512x512 pixels"."""
    return f"{count} picture{'s' * (count > 1)} of {how.width}x{how.height} pixels"


def references_said(count: int) -> str:
    return f"{count} reference{'s' * (count != 1)}"
