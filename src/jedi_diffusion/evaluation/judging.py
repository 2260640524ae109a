"""Evaluation sets, encoders and subject finders, by the names that recipes and options give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jedi_diffusion.errors import UsageError
from jedi_diffusion.vision.settings import GROUNDING_DINO, SAM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jedi_diffusion.evaluation.cases import EvaluationSet
    from jedi_diffusion.evaluation.encoders import Encoder
    from jedi_diffusion.evaluation.recipe import Evaluation
    from jedi_diffusion.evaluation.scoring import Scorer
    from jedi_diffusion.vision.detection import SubjectFinder

ProtocolName = Literal["dreambench", "folder"]
EncodersName = Literal["pretrained", "lite2", "lite0", "toybox"]
Inputs = Literal["picks", "all"]
Averaging = Literal["pairs", "subjects"]
Masking = Literal["no", "given", "found"]

MAX_SAMPLES = 1000
MAX_REFERENCES = 16


def open_set(
    protocol: ProtocolName,
    data: str | Path,
    references: int,
    inputs: Inputs,
    samples: int,
    subjects: Sequence[str] = (),
    seed: int = 0,
) -> EvaluationSet:
    """Return the evaluation set of a protocol. Raises UsageError, DataError."""
    from jedi_diffusion.evaluation.dreambench import open_dreambench
    from jedi_diffusion.evaluation.own_subjects import open_own_subjects

    if protocol == "dreambench":
        return open_dreambench(data, references, inputs, samples, tuple(subjects), seed)
    if subjects:
        raise UsageError("--subject chooses among the subjects of DreamBench; a folder is scored whole.")
    return open_own_subjects(data, references, inputs, samples, seed=seed)


def open_recipe_set(recipe: Evaluation, out: Path, device: str) -> EvaluationSet:
    """Return the evaluation set of a recipe; the toybox's is rendered into OUT/data first."""
    part = recipe.set
    if part.kind == "toybox":
        from jedi_diffusion.evaluation.own_subjects import open_own_subjects
        from jedi_toybox.evaluation_data import write_evaluation_data

        name = f"{part.classes}-{part.subjects}-{part.prompts}-{part.size}-{part.seed}"
        data = write_evaluation_data(
            out / "data" / name, part.subjects, part.prompts, part.size, part.classes, part.seed, device
        )
        return open_own_subjects(data, part.references, part.inputs, part.samples, "toybox", part.seed)
    subjects = part.subjects if part.kind == "dreambench" else ()
    return open_set(part.kind, part.data, part.references, part.inputs, part.samples, subjects, part.seed)


def load_encoders(
    names: Sequence[EncodersName], clip: str, dino: str, device: str, places: str | None = None
) -> list[Encoder]:
    """Return what judges pictures, by name and each once, on a device.

    places: a place classifier for EfficientNet-Lite, a file. Raises ModelError, UsageError.
    """
    found: list[Encoder] = []
    for name in dict.fromkeys(names):
        found += _encoders(name, clip, dino, device)
    if places is not None:
        found.append(_place_judge(places, found))
    return found


def _place_judge(places: str, encoders: Sequence[Encoder]) -> Encoder:
    """Return the judge of places over the one of `encoders` that its classifier was trained on."""
    from jedi_diffusion.vision.lite import LiteEncoder
    from jedi_diffusion.vision.places import PlaceClassifier, PlaceJudge

    classifier = PlaceClassifier.load(places)
    for each in encoders:
        if isinstance(each, LiteEncoder) and each.variant == classifier.encoder:
            return PlaceJudge(classifier, each)
    raise UsageError(f"--places {places} needs --encoder {classifier.encoder}, whose features it reads.")


def _encoders(name: EncodersName, clip: str, dino: str, device: str) -> list[Encoder]:
    if name == "toybox":
        from jedi_toybox.judges import load_judges

        return list(load_judges(device=device))
    if name in ("lite0", "lite2"):
        from jedi_diffusion.vision.classes import ClassJudge
        from jedi_diffusion.vision.lite import LiteEncoder

        encoder = LiteEncoder(name, device)
        return [encoder, ClassJudge(encoder)]
    from jedi_diffusion.models import quiet_libraries
    from jedi_diffusion.vision.clip import ClipEncoder
    from jedi_diffusion.vision.dino import DinoEncoder

    quiet_libraries()
    return [ClipEncoder(clip, device), DinoEncoder(dino, device)]


def load_finder(
    masks: Masking,
    encoders: Sequence[EncodersName],
    device: str,
    detector: str = GROUNDING_DINO,
    segmenter: str = SAM,
) -> SubjectFinder | None:
    """Return what finds subjects where masks are to be found: the toybox's own with its encoders, else the
    models.

    Raises ModelError.
    """
    if masks != "found":
        return None
    if "toybox" in encoders:
        from jedi_toybox.judges import ToyboxFinder

        return ToyboxFinder(device=device)
    from jedi_diffusion.models import quiet_libraries
    from jedi_diffusion.vision.detection import DetectedSubject
    from jedi_diffusion.vision.grounding_dino import GroundingDinoDetector
    from jedi_diffusion.vision.sam import SamSegmenter
    from jedi_diffusion.vision.settings import GroundingDinoSettings, SamSettings

    quiet_libraries()
    return DetectedSubject(
        GroundingDinoDetector(GroundingDinoSettings.model_validate({"model": detector}), device),
        SamSegmenter(SamSettings.model_validate({"model": segmenter}), device),
    )


def open_scorer(recipe: Evaluation, wanted: EvaluationSet, out: Path, device: str) -> Scorer:
    """Return the scorer, after it has read the true photos and the prompts: what is wrong with them or with
    the encoders shows before hours of work, not after.
    """
    from jedi_diffusion.evaluation.recipe import LiteSection, PretrainedSection
    from jedi_diffusion.evaluation.scoring import Scorer

    kinds = [each.kind for each in recipe.encoders]
    sources = next(
        (each for each in recipe.encoders if isinstance(each, PretrainedSection)),
        PretrainedSection(kind="pretrained"),
    )
    places = next((each.places for each in recipe.encoders if isinstance(each, LiteSection)), None)
    scorer = Scorer(
        wanted,
        load_encoders(kinds, sources.clip, sources.dino, device, places),
        out / "features",
        recipe.average,
        recipe.masks,
        load_finder(recipe.masks, kinds, device, sources.detector, sources.segmenter),
    )
    scorer.read_set()
    return scorer
