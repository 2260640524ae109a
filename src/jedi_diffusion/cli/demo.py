"""`jedi demo`: a model on toybox subjects that it has never seen, or on photos, beside new scenes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tqdm import tqdm

from jedi_diffusion import devices, models
from jedi_diffusion.cli import demo_photos, show_notices
from jedi_diffusion.cli.demo_photos import PhotoRow
from jedi_diffusion.cli.options import Repeated
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import free_suffix, make_folder, slugs, with_suffix
from jedi_diffusion.options import Between, Compute, Sampling, check_text
from jedi_diffusion.pictures import contact_sheet, save_png
from jedi_diffusion.vision.enlarge import enlarger_of

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.pipeline import JeDiPipeline
    from jedi_toybox.world import PictureSpec

SHEET = "demo.png"
CELL = 256  # side of a picture on the sheet


class DemoOptions(Sampling, Compute):
    """The bundled model on subjects it has never seen: reference pictures beside what the prompts ask for.

    With --photos, on your own. Every row of demo.png is one subject. Existing files are kept: a run whose
    names are taken adds -2, -3 ...
    """

    out: str = "out/demo"
    """Folder for the results."""
    photos: str | None = None
    """Folder of photos, or of subfolders, of which the first picture each is taken: all of them are rows."""
    prompt: Repeated = ()
    """What to show of photos, in words: "a toy in the snow". May be given several times."""
    subjects: Annotated[int, Between(1, 100)] = 4
    """Toybox subjects, each a row."""
    references: Annotated[int, Between(1, 8)] = 1
    """Reference pictures of each toybox subject."""
    prompts: Annotated[int, Between(1, 20)] = 3
    """New pictures of each subject; of photos at most 6, if no --prompt is given."""
    enlarge: Literal[4] | None = None
    """4: new pictures with sides four times as long, by Real-ESRGAN. Needs the extra `enlarge`."""
    seed: Annotated[int, Between(0, 2**31)] = 0
    """Other seeds show other subjects."""
    model: str = "toybox"
    """"toybox" (bundled), or the folder of another model trained on the toybox."""
    overwrite: bool = False
    """Replace files of earlier runs."""


@dataclass(frozen=True)
class Row:
    """A subject of the toybox: its rendered references, and the pictures that are asked for."""

    references: list[PictureSpec]
    targets: list[PictureSpec]

    @property
    def labels(self) -> list[str]:
        """What stands below each picture on the sheet."""
        return [f"reference: {spec.caption}" for spec in self.references] + self.prompts

    @property
    def prompts(self) -> list[str]:
        return [spec.caption for spec in self.targets]

    def files(self, number: int) -> list[str]:
        """Return one name a picture: "1-reference-1.png", "1-a-robot-on-the-beach.png"."""
        references = [f"{number}-reference-{k}.png" for k in range(1, len(self.references) + 1)]
        return references + [f"{number}-{name}.png" for name in slugs(self.prompts)]


def run(arguments: list[str]) -> None:
    """Render references, make pictures, write them and the sheet. Raises JeDiError."""
    given = parsed(DemoOptions, arguments, "jedi demo")
    check(given)
    show_notices()
    models.check_model_name(given.model)
    rows: Sequence[Row | PhotoRow] = rows_of(given)
    enlarge = enlarger_of(given.enlarge)
    folder = make_folder(given.out)
    files = [row.files(number) for number, row in enumerate(rows, start=1)]
    taken = [SHEET, *(name for names in files for name in names)]
    suffix = "" if given.overwrite else free_suffix(folder, taken)
    device = devices.pick_device(given.device)
    pipe = models.load_model(given.model, device, devices.pick_dtype(given.dtype, device))
    cells = []
    for number, row in enumerate(tqdm(rows, unit="subject", file=sys.stderr)):
        pictures = make(given, pipe, row, number)
        first = len(pictures) - len(row.prompts)
        pictures[first:] = map(enlarge, pictures[first:])
        for name, picture in zip(files[number], pictures, strict=True):
            save_png(folder / with_suffix(name, suffix), picture)
        cells.append(list(zip(pictures, row.labels, strict=True)))
    sheet = folder / with_suffix(SHEET, suffix)
    title = "References, and new pictures of the same subjects"
    save_png(sheet, contact_sheet(cells, CELL * (2 if given.enlarge else 1), title))
    print(f"{sum(map(len, files))} pictures are in {folder}")
    print(f"All of them side by side: {sheet}")


def check(given: DemoOptions) -> None:
    """Raise UsageError for numbers out of range, and for prompts without photos."""
    if given.prompt and given.photos is None:
        raise UsageError("--prompt says what to show of photos: give their folder with --photos.")
    if given.photos and not given.prompt and given.prompts > len(demo_photos.SCENES):
        most = len(demo_photos.SCENES)
        raise UsageError(
            f"--prompts is {given.prompts}; for more than {most} say what to show with --prompt."
        )
    for prompt in given.prompt:
        check_text(prompt)


def subject_row(given: DemoOptions, number: int) -> Row:
    """Return subject `number`: plain references, then pictures in other scenes, the last one in a
    style too.
    """
    from jedi_toybox import world

    subject = world.sample_subject(given.seed * 1000 + number, split="held_out")
    references = [world.sample_picture(subject, k, style="", attribute="") for k in range(given.references)]
    used = {spec.scene for spec in references}
    free = [scene for scene in world.SCENES if scene not in used]
    targets = []
    for k in range(given.prompts):
        scene = free[(subject.seed * 7 + k * 5 + number) % len(free)]
        is_styled = k == given.prompts - 1 and k > 0
        style = world.STYLES[subject.seed % len(world.STYLES)] if is_styled else ""
        targets.append(world.sample_picture(subject, given.references + k, scene, style, attribute=""))
    return Row(references, targets)


def rows_of(given: DemoOptions) -> Sequence[Row] | Sequence[PhotoRow]:
    """Return the subjects that are shown. Raises UsageError for a folder without photos."""
    if given.photos is None:
        return [subject_row(given, number) for number in range(given.subjects)]
    return demo_photos.photo_rows(given.photos, given.prompts, given.prompt)


def make(given: DemoOptions, pipe: JeDiPipeline, row: Row | PhotoRow, number: int) -> list[Image.Image]:
    """Return the references, then the model's pictures for the prompts of row `number`."""
    size, seed = models.own_size(pipe), given.seed + number
    settings = given.at(size, size).arguments()
    if isinstance(row, PhotoRow):
        return demo_photos.make(pipe, row, size, seed, settings)
    return make_subject(pipe, row, size, seed, settings)


def make_subject(
    pipe: JeDiPipeline, row: Row, size: int, seed: int, settings: dict[str, Any]
) -> list[Image.Image]:
    """Return the rendered references, and the pictures, all from one seed."""
    import torch
    from PIL import Image

    from jedi_toybox import world

    rendered = world.render(row.references, size=size).pictures
    references = [Image.fromarray(each.permute(1, 2, 0).contiguous().numpy()) for each in rendered]
    out: Any = pipe(
        prompt=row.prompts,
        references=references,
        reference_prompts=[spec.caption for spec in row.references],
        **settings,
        generator=[torch.Generator().manual_seed(seed) for _ in row.targets],
    )
    return references + out.images
