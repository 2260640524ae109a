"""`jedi photos score`: how well a model puts photographed subjects into new places, without a download."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jedi_diffusion import devices, models
from jedi_diffusion.cli import show_notices
from jedi_diffusion.cli.options import Repeated
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.files import make_folder
from jedi_diffusion.options import Between, Compute, SquareSampling
from jedi_diffusion.pictures import save_png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jedi_diffusion.evaluation.encoders import Encoder
    from jedi_diffusion.vision.lite import LiteEncoder

logger = logging.getLogger(__name__)

ENCODER: Literal["lite2"] = "lite2"
SHEET = "sheet.png"


class PhotosOptions(SquareSampling, Compute):
    """Score a model on photographed subjects: one photo of each, to be shown in a few places.

    identity: likeness to the subject's other photos by EfficientNet-Lite2; 0 is another subject of its class
    (of another where it has none), 1 another photo of the subject. place: the probability of the right place.
    copies: the share of pictures nearer to the photo than photos of one subject ever are. 95% intervals, over
    subjects. Goes on where it stopped. Needs pip install 'jedi-diffusion[imagenet]'.
    """

    folder: tyro.conf.Positional[str]
    """A clone of github.com/google/dreambooth, or a folder with a subfolder of photos for each subject."""
    out: str
    """Folder for the pictures, sheet.png, scores.json and report.html."""
    model: str = "toybox"
    """"toybox" (bundled), a folder, or a Hub id."""
    place: Repeated = ()
    """Where to show the subjects: "in the snow". May be given several times; three places if not given."""
    places: str | None = None
    """What judges the place: a file of `jedi evaluate places`; the bundled scorer, which knows the
    toybox's scenes, if not given."""
    called: str | None = None
    """What every subject is called in prompts, such as toy; its own class if not given."""
    seed: Annotated[int, Between(0, 2**31)] = 0
    """Draws the photo that is given, where the data fix none."""


def run(arguments: list[str]) -> None:
    """Check the folder, make the pictures that are missing, score, write. Raises JeDiError."""
    given = parsed(PhotosOptions, arguments, "jedi photos score")
    show_notices()
    models.check_model_name(given.model)
    from jedi_diffusion.evaluation import photo_score
    from jedi_diffusion.evaluation.generate import generate, open_method_folder
    from jedi_diffusion.evaluation.layout import find_pictures
    from jedi_diffusion.evaluation.outputs import write_results
    from jedi_diffusion.evaluation.photo_subjects import PLACES, open_photo_subjects
    from jedi_diffusion.evaluation.scoring import Scorer
    from jedi_diffusion.methods.joint import Joint
    from jedi_diffusion.vision.classes import ClassJudge
    from jedi_diffusion.vision.lite import LiteEncoder

    places = given.place or PLACES
    wanted = open_photo_subjects(given.folder, places, given.called, given.seed)
    device = devices.pick_device(given.device)
    pipe = models.load_model(given.model, device, devices.pick_dtype(given.dtype, device))
    size = given.size or models.own_size(pipe)
    # Judges that are missing or do not fit show before hours of work, not after.
    encoder = LiteEncoder(ENCODER, str(device), side=size)
    judges: list[Encoder] = [encoder, ClassJudge(encoder)]
    of_place, place_record = place_judge(given.places, places, encoder)
    if of_place is not None:
        judges.append(of_place)
    settings = given.at(size, size).arguments()
    record = {"model": models.fingerprint(pipe), "settings": settings, "set": wanted.settings}
    out = make_folder(given.out)
    folder = open_method_folder(out / "pictures", record)
    generate(wanted, Joint(pipe, settings), folder, batch=len(places))
    made = find_pictures(folder, wanted)
    scorer = Scorer(wanted, judges, make_folder(out / "features"), "subjects")
    results = scorer.score({photo_score.MODEL: made, **photo_score.swapped(made, wanted)})
    psnr = photo_score.psnr_of(pipe, wanted, size)
    described = {
        **given.model_dump(mode="json"),
        "size": size,
        "fingerprint": record["model"],
        "place_classifier": place_record,
        "autoencoder_psnr": psnr,
    }
    files = write_results(out, results, described)
    save_png(out / SHEET, photo_score.sheet(made, results, ENCODER, size))
    print(photo_score.table(results, ENCODER))
    print(f"The autoencoder's PSNR on the photos: {psnr:.1f} dB on average")
    print(f"Pictures:  {out / SHEET}\nReport:    {files[-1]}")


def place_judge(
    file: str | None, places: Sequence[str], encoder: LiteEncoder
) -> tuple[Encoder | None, dict[str, object] | None]:
    """Return what judges these places, and its record: the classifier of the file, else the bundled scorer of
    the toybox, else (where that does not know them all) nothing, with a warning.

    Raises ModelError, and UsageError for a place that the file's classifier does not know.
    """
    from jedi_diffusion.vision.places import PlaceClassifier, PlaceJudge
    from jedi_toybox import world
    from jedi_toybox.judges import scene_judge

    if file is not None:
        classifier = PlaceClassifier.load(file)
        classifier.check_knows(places)
        return PlaceJudge(classifier, encoder), classifier.record
    unknown = [place for place in places if place not in world.SCENES]
    if unknown:
        logger.warning(
            "Places are not scored: the bundled scorer does not know %r. Train one that does with "
            "`jedi evaluate places`.",
            unknown[0],
        )
        return None, None
    judge = scene_judge(encoder.device)
    return judge, {"bundled": judge.fingerprint}
