"""Stages 5 to 8: scenes around the instances, styles, captions, sets (Algorithm 1, lines 16 to 25).

Letters: W, H a picture's width and height in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from jedi_diffusion.data.record import SEPARATOR
from jedi_diffusion.randomness import derive_generator, derive_seed
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.synthesis.prompts import judge_answer, scene_request
from jedi_diffusion.synthesis.protocols import (
    Captioner,
    Inpainter,
    PromptWriter,
    Stylizer,
    checked_pictures,
    one_each,
)
from jedi_diffusion.synthesis.records import (
    Group,
    History,
    Instance,
    Key,
    Outcome,
    Reason,
    Rejection,
    Scene,
    Stage,
    Step,
)
from jedi_diffusion.synthesis.settings import StageSettings

EMPTY = (127, 127, 127)
"""Color of the empty picture that an instance is pasted on."""


@dataclass(frozen=True, eq=False)
class Draft:
    """A pasted instance whose surroundings are still empty.

    canvas: RGB and square. mask: 8-bit picture of the same size, 255 on the subject. prompt: of the scene.
    """

    key: Key
    canvas: Image.Image
    mask: Image.Image
    prompt: str
    history: History


def _numbers(key: Key) -> tuple[int, ...]:
    """Return what tells a record of an object from its others, for seeds."""
    return tuple(number for number in (key.collage, key.group, key.instance) if number is not None)


def draft_scenes(
    groups: Sequence[Group], writer: PromptWriter, settings: StageSettings, seed: int
) -> Outcome[Draft]:
    """Stage 5, first half: a scene-centric prompt for each instance, which is pasted on an empty picture."""
    requests = [
        scene_request(group.key.item, len(group.instances), settings.prompt_words) for group in groups
    ]
    seeds = [
        derive_seed(seed, group.key.item.name, f"{Stage.SCENE} prompt", *_numbers(group.key))
        for group in groups
    ]
    answers = one_each(writer, writer.write(requests, seeds) if groups else [], len(groups))
    results: list[Draft | Rejection] = []
    for group, answer, request_seed in zip(groups, answers, seeds, strict=True):
        keys = [instance.key for instance in group.instances]
        judged = judge_answer(answer, keys, settings, Stage.SCENE, set())
        for instance, prompt in zip(group.instances, judged, strict=True):
            if isinstance(prompt, Rejection):
                results.append(prompt)
                continue
            asked = {"prompt": prompt, "prompt_seed": request_seed, "prompt_model": writer.fingerprint}
            results.append(_draft(instance, prompt, asked, settings, seed))
    return Outcome.of(results)


def _draft(
    instance: Instance, prompt: str, asked: dict[str, Any], settings: StageSettings, seed: int
) -> Draft | Rejection:
    key = instance.key
    chance = derive_generator(seed, key.item.name, f"{Stage.SCENE} place", *_numbers(key))
    canvas, mask, place = paste(instance, settings, chance)
    if mask.getbbox() is None:
        return Rejection(key, Stage.SCENE, Reason.EMPTY_MASK, f"nothing is left of it at {place[2:]} pixels")
    step = Step(Stage.SCENE, {**asked, "place": list(place)})
    return Draft(key, canvas, mask, prompt, (*instance.history, step))


def paste(
    instance: Instance, settings: StageSettings, chance: np.random.Generator
) -> tuple[Image.Image, Image.Image, tuple[int, int, int, int]]:
    """Return the instance at a random place and scale on an empty square (line 20 of Algorithm 1), whole.

    Gives the RGB picture, its 8-bit mask (255 on the instance), and (left, top, width, height) in pixels.
    """
    side, longest = settings.scene_size, max(instance.cutout.size)
    wanted = side * chance.uniform(settings.min_scale, settings.max_scale)
    scale = min(wanted / longest, settings.max_enlargement)
    width, height = (max(1, min(side, round(length * scale))) for length in instance.cutout.size)
    left, top = (int(chance.integers(side - length + 1)) for length in (width, height))
    smaller = instance.cutout.resize((width, height), Image.Resampling.LANCZOS)
    outline = Image.fromarray(instance.mask.astype(np.uint8) * 255).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    outline = outline.point([0] * 128 + [255] * 128)
    canvas, mask = Image.new("RGB", (side, side), EMPTY), Image.new("L", (side, side))
    canvas.paste(smaller, (left, top), outline)
    mask.paste(outline, (left, top))
    return canvas, mask, (left, top, width, height)


def inpaint_scenes(
    drafts: Sequence[Draft], inpainter: Inpainter, settings: StageSettings, seed: int
) -> Outcome[Scene]:
    """Stage 5, second half: the surroundings are inpainted. The subject keeps its pixels exactly."""
    if not drafts:
        return Outcome(())
    seeds = [derive_seed(seed, each.key.item.name, Stage.SCENE, *_numbers(each.key)) for each in drafts]
    filled = inpainter.inpaint(
        [draft.canvas for draft in drafts],
        [ImageChops.invert(draft.mask) for draft in drafts],
        [draft.prompt for draft in drafts],
        seeds,
    )
    checked_pictures(inpainter, filled, [draft.canvas.size for draft in drafts])
    scenes = []
    for draft, picture, own_seed in zip(drafts, filled, seeds, strict=True):
        # An autoencoder changes what it was to keep.
        whole = Image.composite(draft.canvas, picture, draft.mask)
        last = draft.history[-1]
        step = Step(Stage.SCENE, {**last.details, "seed": own_seed, "model": inpainter.fingerprint})
        scenes.append(Scene(draft.key, whole, draft.mask, (*draft.history[:-1], step)))
    return Outcome(tuple(scenes))


def draw_style(key: Key, settings: StageSettings, seed: int) -> str | None:
    """Return the style of one picture, None for none: drawn with the probability of section 3.1, 0.5."""
    chance = derive_generator(seed, key.item.name, f"{Stage.STYLE} choice", *_numbers(key))
    styled, choice = chance.random() < settings.style_probability, chance.integers(len(settings.styles))
    return settings.styles[choice] if styled else None


def stylize_scenes(
    scenes: Sequence[Scene], stylizer: Stylizer, settings: StageSettings, seed: int
) -> Outcome[Scene]:
    """Stage 6: some pictures are redrawn in a style, each in one of its own."""
    styles = [draw_style(scene.key, settings, seed) for scene in scenes]
    seeds = [derive_seed(seed, scene.key.item.name, Stage.STYLE, *_numbers(scene.key)) for scene in scenes]
    chosen = [(scene, style, own) for scene, style, own in zip(scenes, styles, seeds, strict=True) if style]
    pictures = [scene.picture for scene, _, _ in chosen]
    made = (
        stylizer.stylize(pictures, [style for _, style, _ in chosen], [own for _, _, own in chosen])
        if chosen
        else []
    )
    waiting = iter(checked_pictures(stylizer, made, [picture.size for picture in pictures]))
    done = []
    for scene, style, own in zip(scenes, styles, seeds, strict=True):
        if style is None:
            done.append(replace(scene, history=(*scene.history, Step(Stage.STYLE, {"style": None}))))
            continue
        step = Step(Stage.STYLE, {"style": style, "seed": own, "model": stylizer.fingerprint})
        done.append(replace(scene, picture=next(waiting), history=(*scene.history, step)))
    return Outcome(tuple(done))


def caption_scenes(
    scenes: Sequence[Scene], captioner: Captioner, settings: StageSettings, seed: int
) -> Outcome[Scene]:
    """Stage 7: a caption of the finished picture; the prompts that led to it vary too little (section 6)."""
    if not scenes:
        return Outcome(())
    seeds = [derive_seed(seed, scene.key.item.name, Stage.CAPTION, *_numbers(scene.key)) for scene in scenes]
    answers = one_each(captioner, captioner.caption([scene.picture for scene in scenes], seeds), len(scenes))
    results: list[Scene | Rejection] = []
    for scene, answer, own in zip(scenes, answers, seeds, strict=True):
        caption = clean_caption(answer, settings.caption_letters)
        if not caption:
            results.append(Rejection(scene.key, Stage.CAPTION, Reason.EMPTY_CAPTION, answer[:200]))
            continue
        step = Step(Stage.CAPTION, {"seed": own, "model": captioner.fingerprint})
        results.append(replace(scene, caption=caption, history=(*scene.history, step)))
    return Outcome.of(results)


def clean_caption(answer: str, letters: int) -> str:
    """Return a caption on one line, without the set format's separator or unprintable signs, cut at
    a word.
    """
    printable = "".join(sign if sign.isprintable() else " " for sign in answer.replace(SEPARATOR, " "))
    caption = " ".join(printable.split())
    if len(caption) <= letters:
        return caption
    return caption[: letters + 1].rpartition(" ")[0] or caption[:letters]


def assemble_sets(scenes: Sequence[Scene], settings: StageSettings, seed: int) -> Outcome[ImageSet]:
    """Stage 8: captioned pictures of one subject become sets; those of one group must stand together.

    A set's `info` is its provenance: object, category, collage, group, number, and for each picture the
    instance and what every stage did.
    """
    results: list[ImageSet | Rejection] = []
    for _, members in groupby(scenes, key=lambda scene: replace(scene.key, instance=None)):
        results += _sets_of(list(members), settings, seed)
    return Outcome.of(results)


def _sets_of(scenes: list[Scene], settings: StageSettings, seed: int) -> Iterator[ImageSet | Rejection]:
    key = replace(scenes[0].key, instance=None)
    chance = derive_generator(seed, key.item.name, Stage.SET, *_numbers(key))
    waiting = [scenes[index] for index in chance.permutation(len(scenes))]
    for number, size in enumerate(set_sizes(len(scenes), settings.min_pictures, settings.max_pictures)):
        chosen, waiting = waiting[:size], waiting[size:]
        yield _set(key, number, chosen, seed)
    reason = Reason.TOO_FEW_PICTURES if len(scenes) < settings.min_pictures else Reason.TOO_MANY_PICTURES
    for scene in waiting:
        yield Rejection(scene.key, Stage.SET, reason, f"{len(scenes)} pictures of the subject")


def set_sizes(pictures: int, least: int, most: int) -> list[int]:
    """Return how many pictures each set of one subject gets: as few sets as hold all, as even as possible.

    Where that would make sets of fewer than `least`, full sets are made and the rest is left over.
    """
    count = -(-pictures // most)
    if count and pictures // count >= least:
        return [pictures // count + (number < pictures % count) for number in range(count)]
    return [most] * (pictures // most)


def _set(key: Key, number: int, scenes: Sequence[Scene], seed: int) -> ImageSet:
    made = [
        {"instance": scene.key.instance, "steps": [step.as_json() for step in scene.history]}
        for scene in scenes
    ]
    return ImageSet(
        pictures=tuple(scene.picture for scene in scenes),
        captions=tuple(scene.caption for scene in scenes),
        masks=tuple(scene.mask for scene in scenes),
        info={**key.as_json(), "set": number, "seed": seed, "pictures": made},
    )
