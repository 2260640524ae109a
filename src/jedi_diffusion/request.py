"""A call of the pipeline after its checks: what is asked for, in plain lists, before any network runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jedi_diffusion.conditioning import Picture
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.guidance import Guidance
from jedi_diffusion.joint.process import Diffusion, Scheduler, process_of
from jedi_diffusion.joint.record import AttentionRecord
from jedi_diffusion.joint.sampler import NullSet
from jedi_diffusion.options import Coupling, check_range
from jedi_diffusion.randomness import spawn_generators


@dataclass(frozen=True)
class Request:
    """One prompt and one generator a target, one caption a reference.

    size: height and width of the targets in pixels. pixels: the references in [-1, 1], (3, H, W) each.

    scheduler: a copy of the pipeline's, set to the steps of this call. temperature: scales the first noise.
    latents: the targets' first noise (T, C, H, W), None to draw it.
    """

    prompts: list[str]
    captions: list[str]
    size: tuple[int, int]
    pixels: list[Tensor]
    guidance: Guidance
    scheduler: Scheduler
    generators: list[torch.Generator]
    coupling: Coupling
    null_set: NullSet
    joint_targets: bool
    temperature: float = 1.0
    latents: Tensor | None = None
    attention_record: AttentionRecord | None = None


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises UsageError unless the value is one of the choices."""
    if value not in choices:
        *most, last = map(repr, choices)
        raise UsageError(f"{name} is {value!r}, but must be {', '.join(most)} or {last}.")


def checked_count(name: str, value: int, most: int | None = None) -> int:
    """The value, if it is a whole number from 1 to `most`. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most and value > most):
        raise UsageError(
            f"{name} must be a whole number {f'from 1 to {most}' if most else 'above 0'}, not {value}."
        )
    return value


def checked_temperature(value: float) -> float:
    """The value, if it is a number from 0 to 1. Raises UsageError."""
    check_range("temperature", value, 0, 1)
    return value


def check_recordable(references: int, guidance: Guidance) -> None:
    """Raises UsageError unless there are references, and the last branch of guidance sees them."""
    if not references:
        raise UsageError(
            "Without a reference there is nothing for attention to look at; give at least one to record it."
        )
    if not guidance.branches[-1].pictures:
        raise UsageError(
            "With these scales of guidance no pass sees the references, so there is no attention to record; "
            "take a scale above 0."
        )


def listed_references(references: Sequence[Picture] | Picture) -> list[Picture]:
    """The references as a list, be they none, one picture, several, or one tensor (R, 3, H, W)."""
    if isinstance(references, list | tuple) or (isinstance(references, Tensor) and references.ndim == 4):
        return list(references)
    return [references]  # type: ignore[list-item]


def one_caption_each(captions: str | Sequence[str] | None, references: int) -> list[str]:
    """One caption a reference: those given, one for all, or empty ones. Raises UsageError on a mismatch."""
    if captions is None or isinstance(captions, str):
        return [captions or ""] * references
    if len(captions) != references:
        raise UsageError(
            f"There are {len(captions)} reference prompts for {references} references; "
            "give one for each, a single one for all, or none."
        )
    return list(captions)


def one_generator_each(
    generator: torch.Generator | Sequence[torch.Generator] | None, pictures: int
) -> list[torch.Generator]:
    """One generator a picture: the given ones, or a single one and its children (`family_of`), or children
    of a seed from torch's global state (None).

    Raises UsageError for another count.
    """
    if generator is None:
        return spawn_generators(int(torch.randint(2**63 - 1, ())), pictures)
    if isinstance(generator, torch.Generator):
        return family_of(generator, pictures)
    if len(generator) != pictures:
        raise UsageError(
            f"There are {len(generator)} generators for {pictures} pictures; give one each, or one."
        )
    return list(generator)


def family_of(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """The generator itself, then children of the state that it has now, which stays as it is.

    As everywhere in diffusers, the first picture draws from the generator that was given, so that it is the
    one that a list of it alone gives, and the next call goes on where this one ended. Unlike there, picture
    k does not depend on how much is drawn for those before it.
    """
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    seed = int(torch.randint(2**63 - 1, (), generator=twin, device=twin.device))
    return [generator, *spawn_generators(seed, count - 1, twin.device)]


def check_latents(latents: Tensor, shape: tuple[int, ...]) -> None:
    """Raises UsageError for first latents of another shape, or that hold NaN or infinity."""
    if tuple(latents.shape) != shape:
        raise UsageError(f"latents have the shape {tuple(latents.shape)}, but must have {shape}.")
    if not bool(torch.isfinite(latents).all()):
        raise UsageError("latents hold NaN or infinity.")


def fresh_scheduler(
    scheduler: Scheduler, steps: int, set_timesteps: Callable[[Scheduler], None]
) -> Scheduler:
    """A copy of the scheduler, set to `steps` steps: a call leaves no state behind. Raises UsageError."""
    checked_count("num_inference_steps", steps, scheduler.config.num_train_timesteps)
    scheduler = copy.deepcopy(scheduler)
    try:
        set_timesteps(scheduler)
    except ValueError as error:
        raise UsageError(f"{type(scheduler).__name__} cannot sample in {steps} steps: {error}") from error
    last = scheduler.config.num_train_timesteps - isinstance(process_of(scheduler), Diffusion)
    if float(scheduler.timesteps.max()) > last:  # an offset moves the first of very many steps there
        raise UsageError(f"{type(scheduler).__name__} cannot sample in {steps} steps; take fewer.")
    return scheduler


def picture_size(
    height: int | None,
    width: int | None,
    own: tuple[int | None, int | None],
    factor: int,
    multiple: int = 1,
) -> tuple[int, int]:
    """Height and width in pixels, by default the network's own.

    own: that in latents; None where the network does not say; factor: pixels a latent; multiple: what sides
    in latents are multiples of. Raises UsageError for other sides.
    """
    rows, columns = own
    sides = []
    for name, side, latents in (("height", height, rows), ("width", width, columns)):
        if side is None:
            if latents is None:
                raise UsageError(f"This model's network states no size of its own; give the {name}.")
            side = latents * factor
        pixels = checked_count(name, side)
        if pixels % (factor * multiple):
            raise UsageError(f"{name} must be a multiple of {factor * multiple} pixels, not {pixels}.")
        sides.append(pixels)
    return sides[0], sides[1]
