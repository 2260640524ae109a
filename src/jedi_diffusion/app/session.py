"""What one visitor of the page has: photos and their crops, pictures that were made, the job under way."""

from __future__ import annotations

import html
import json
import math
import os
import re
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from PIL import Image, ImageOps

from jedi_diffusion.app.fields import MAX_PICTURES, QUALITY, leaning, steps_of
from jedi_diffusion.app.jobs import Ask, Job, size_of
from jedi_diffusion.app.results import file_of, parameters_of
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.credentials import Seal, unsigned
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import lines_of
from jedi_diffusion.options import Between, Sampling, Seed, Settings, check_text, read
from jedi_diffusion.pictures import open_picture, within_pixels
from jedi_diffusion.references import OwnShape, Reference

MAX_PHOTOS = 8
MAX_MADE = 100
"""Pictures that a session keeps; the oldest go first."""
PHOTO_PIXELS = 1024**2
"""Photos are kept no larger than this."""
SEEDS = 10**6
"""Seeds are drawn below this: people can read them out."""
COUNTS = (1, 2, 3, 4)
"""Pictures of each prompt."""
QUALITIES = {"fast": QUALITY["low"], "balanced": QUALITY["medium"], "best": QUALITY["high"]}
"""Steps, in shares of the model's own."""


@dataclass
class Photo:
    """A reference, upright RGB, with the place of its square crop, where the model reads squares: 0.5, 0.5 is
    the centre. Examples make room for a visitor's own photos.

    mask: 8-bit grays of the picture's size, white on what is read; None: all of it. strength: as a
    `Reference` has it. undone: earlier masks as PNG, empty for none; painted: number of the last stroke that
    was drawn (`brush`). key: what strokes call it.
    """

    picture: Image.Image
    name: str
    across: float = 0.5
    down: float = 0.5
    is_example: bool = False
    mask: Image.Image | None = None
    strength: float = 1.0
    undone: tuple[bytes, ...] = ()
    painted: int = 0
    key: str = field(default_factory=lambda: secrets.token_urlsafe(8))

    def seen_by(self, card: ModelCard) -> tuple[Image.Image, Image.Image | None]:
        """Return picture and mask as the model reads them: whole where that keeps shapes."""
        if card.own_shape is not None:
            return self.picture, self.mask
        side, mask = card.size, self.mask
        kept = None if mask is None else self._cropped(mask, side, side, Image.Resampling.BOX)
        return self.crop(side, side), kept

    def crop(self, width: int, height: int) -> Image.Image:
        return self._cropped(self.picture, width, height, Image.Resampling.LANCZOS)

    def reference(self, card: ModelCard) -> Image.Image | Reference:
        """Return it as the pipeline reads it. Raises UsageError where nothing of it is read."""
        picture, mask = self.seen_by(card)
        if mask is None and self.strength == 1:
            return picture
        if mask is not None and mask.getextrema()[1] == 0:
            raise UsageError(
                f"Nothing of {self.name} is read: its mask leaves out all that the model sees of it. Paint "
                "its subject, or read all of it."
            )
        return Reference(picture, mask=mask, strength=self.strength)

    def _cropped(self, picture: Image.Image, width: int, height: int, by: Image.Resampling) -> Image.Image:
        return ImageOps.fit(picture, (width, height), by, centering=(self.across, self.down))


@dataclass(frozen=True)
class Example:
    """A subject to try: what it is ("a robot") and a picture of it."""

    what: str
    picture: Image.Image


class Examples(Protocol):
    """Subjects that the loaded model knows, none of them from its training."""

    def fixed(self) -> Sequence[Example]: ...

    def surprise(self, seed: int) -> Example: ...


class Plain(Settings):
    """What every visitor sets; balance -1 is all for the photos, +1 all for the prompt."""

    what: str = ""
    prompts: str = ""
    count: Annotated[int, Between(1, MAX_PICTURES)] = 1
    balance: Annotated[float, Between(-1, 1)] = 0.0
    quality: Literal["fast", "balanced", "best"] = "balanced"
    seed: Seed | None = None
    by_hand: bool = False


class Controls(Sampling, Plain):
    """What a visitor has set; balance and quality decide how pictures are sampled unless `by_hand`."""


@dataclass(frozen=True)
class Made:
    """A picture of the session: its file, its prompt and seed, and what made it."""

    path: Path
    prompt: str
    seed: int
    controls: Controls
    parameters: dict[str, Any]


@dataclass
class Session:
    """Of one tab of a browser. asked: what was set for `job`; is_kept: whether its pictures are in `made`."""

    photos: list[Photo] = field(default_factory=list)
    chosen: int = 0
    made: list[Made] = field(default_factory=list)
    selected: int | None = None
    job: Job | None = None
    asked: Controls | None = None
    is_kept: bool = True
    has_lost_photos: bool = False

    @property
    def bytes(self) -> int:
        """Memory that the photos and their masks hold: some 32 MB at most, which follows from MAX_PHOTOS and
        PHOTO_PIXELS."""
        masks = [each.mask.width * each.mask.height for each in self.photos if each.mask is not None]
        earlier = [len(mask) for each in self.photos for mask in each.undone]
        return size_of(each.picture for each in self.photos) + sum(masks) + sum(earlier)

    @property
    def photo(self) -> Photo | None:
        """The photo whose crop is being moved."""
        return self.photos[self.chosen] if self.chosen < len(self.photos) else None

    @property
    def picture(self) -> Made | None:
        """The picture that is selected."""
        inside = self.selected is not None and self.selected < len(self.made)
        return self.made[self.selected] if inside and self.selected is not None else None

    def give_photos(self, photos: Sequence[Photo]) -> None:
        """Replace the photos. Raises UsageError for too many."""
        if len(photos) > MAX_PHOTOS:
            raise UsageError(f"{len(photos)} photos are given; this page takes up to {MAX_PHOTOS}.")
        self.photos, self.chosen, self.has_lost_photos = list(photos), 0, False


def read_photo(path: str | Path, name: str, own_shape: OwnShape | None = None) -> Photo:
    """Return an upload. Raises PictureError that gives its name, UsageError for a shape that is not read."""
    picture = open_picture(Path(path).read_bytes(), name)
    if own_shape is not None:
        own_shape.check(picture.size, name)
    return Photo(within_pixels(picture, PHOTO_PIXELS), name)


def read_controls(values: Mapping[str, Any]) -> Controls:
    """Return the controls with these values. Raises UsageError, in words for the page."""
    return read(Controls, values, label)


def label(name: str) -> str:
    """Return what a setting is called on the page: "Image guidance"."""
    return name.replace("_", " ").capitalize()


def sampling_of(controls: Controls, own: Sampling) -> Sampling:
    """Return how the pictures are sampled; own: the model's own settings.

    A negative prompt counts in either way, where the model has guidance that could lead away from it.
    """
    if controls.by_hand:
        return controls
    image = own.guidance if own.image_guidance is None else own.image_guidance
    chosen: dict[str, Any] = {"steps": steps_of(own, QUALITIES[controls.quality]), "image_guidance": image}
    if own.guidance != 1:
        chosen["negative_prompt"] = controls.negative_prompt
    if abs(controls.balance) >= 0.05:
        chosen |= leaning(own, controls.balance)
    return own.model_copy(update=chosen)


def check_texts(controls: Controls) -> None:
    """Raise UsageError, in words for the page, for texts with which no picture can be made."""
    for words in (*prompts_of(controls.prompts), controls.what):
        check_text(words)


def prompts_of(text: str) -> list[str]:
    """Return the prompts of the page's field, one a line; empty lines are none."""
    return [line.strip() for line in lines_of(text) if line.strip()]


def ask_of(session: Session, controls: Controls, card: ModelCard) -> Ask:
    """Return what the engine is asked. Raises UsageError in words for the page."""
    prompts = prompts_of(controls.prompts)
    if session.has_lost_photos:
        raise UsageError("The server needed the room that your photos took; add them again.")
    if not session.photos:
        raise UsageError("Add a photo of your subject first, or pick one of the examples.")
    if not prompts:
        raise UsageError("Write what to show, one prompt a line.")
    check_texts(controls)
    pictures = [prompt for prompt in prompts for _ in range(controls.count)]
    if len(pictures) > MAX_PICTURES:
        raise UsageError(f"{len(pictures)} pictures are asked for; up to {MAX_PICTURES} are made at once.")
    seed = secrets.randbelow(SEEDS) if controls.seed is None else controls.seed
    return Ask(
        prompts=tuple(pictures),
        # As in `jedi generate`: picture k of every prompt has seed + k.
        seeds=tuple(seed + number % controls.count for number in range(len(pictures))),
        references=tuple(photo.reference(card) for photo in session.photos),
        captions=(controls.what.strip(),) if controls.what.strip() else (),
        sampling=sampling_of(controls, card.own).at(card.size, card.size),
    )


def keep(
    session: Session, job: Job, controls: Controls, card: ModelCard, folder: Path, seal: Seal = unsigned
) -> None:
    """Write the finished pictures of a job that is over into the folder and add them to the session. Files of
    pictures that the session no longer has are deleted. Raises what `seal` raises."""
    new = []
    for number in job.done:
        prompt, seed = job.ask.prompts[number], job.ask.seeds[number]
        words = "-".join(re.findall(r"\w+", prompt.lower()))[:48].strip("-") or "picture"
        path = folder / job.id / f"{words}_{seed}_{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file_of(job, number, card, seal))
        new.append(Made(path, prompt, seed, controls, parameters_of(job, number, card)))
    session.made = [*new, *session.made]
    forget(session, MAX_MADE)


def take_over(session: Session, old: Session, folder: Path) -> None:
    """Give a session what another one of the same visitor has; both keep it, in files of their own."""
    session.photos = [replace(photo) for photo in old.photos]
    session.asked = old.asked
    for each in old.made:
        path = folder / secrets.token_hex(8) / each.path.name
        path.parent.mkdir()
        os.link(each.path, path)
        session.made.append(replace(each, path=path))


def forget(session: Session, most: int = 0) -> None:
    """Drop all but the newest pictures, files included."""
    for each in session.made[most:]:
        each.path.unlink(missing_ok=True)
    session.made = session.made[:most]


def write_zip(session: Session, folder: Path) -> Path:
    """Return all pictures of the session, with their settings, in a file of their own."""
    path = folder / f"pictures-{secrets.token_hex(8)}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, each in enumerate(session.made, start=1):
            archive.write(each.path, f"{number:03d}_{each.path.name}")
        rows = [each.parameters for each in session.made]
        archive.writestr("settings.json", json.dumps(rows, indent=2, ensure_ascii=False))
    return path


def marked(prompts: str, unknown: Sequence[str]) -> str:
    """Return the prompts with words that the model leaves out, as HTML with these marked; empty
    without any.
    """
    words = set(unknown)

    def mark(piece: str) -> str:
        shown = html.escape(piece)
        return f"<mark>{shown}</mark>" if piece.lower() in words else shown

    lines = ["".join(map(mark, re.split(r"([^\W_]+)", line))) for line in lines_of(prompts)]
    text = "\n".join(line for line in lines if "<mark>" in line)
    return f"<p>The model does not know the marked words and leaves them out:\n{text}</p>" if text else ""


def status_of(job: Job, seconds_left: float | None) -> str:
    """Return a job's progress as HTML that screen readers announce."""
    done = len(job.done)
    if job.state == "queued":
        text = "Waiting for its turn."
    else:
        text = f"{done} of {len(job.pictures)} pictures are done."
    if seconds_left is not None:
        text += f" About {math.ceil(seconds_left)} s left."
    bar = f'<progress value="{job.progress:.3f}" max="1" aria-label="Progress"></progress>'
    return f'<div role="status" aria-live="polite">{bar} {html.escape(text)}</div>'
