"""All scores of a set of answers, and of the answers that are known: true pictures, others, copied inputs.

Sections 4 and 6 of the paper. Letters: I answers (pictures); P true photos of a subject; D features.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from jedi_diffusion.errors import UsageError
from jedi_diffusion.estimates import Estimate, share
from jedi_diffusion.evaluation import metrics
from jedi_diffusion.evaluation.cases import Case, EvaluationSet, Photo, Subject
from jedi_diffusion.evaluation.encoders import Encoder, Rows, TextEncoder, Thumbnails
from jedi_diffusion.evaluation.features import FeatureReader, Item
from jedi_diffusion.evaluation.masking import mask_beside
from jedi_diffusion.evaluation.metrics import COMPARISONS, Averaging, Comparison, Sums
from jedi_diffusion.vision.detection import SubjectFinder

Key = TypeVar("Key", bound=Hashable)
Masking = Literal["no", "given", "found"]

COPIES = "copies"
DIVERSITY = "diversity"
ORACLE = "oracle (true pictures)"
OTHER = "another subject"
COPY_INPUT = "copy the input"
KNOWN = (ORACLE, OTHER, COPY_INPUT)


class Answer(NamedTuple):
    """A picture in answer to a case. left_out: the number of the true photo that it is itself."""

    case: Case
    picture: Photo
    left_out: int | None = None


@dataclass(frozen=True)
class RowScores:
    """The scores of one method.

    scores: by column, None where nothing is compared. kinds: the same by kind of subject, with intervals;
    classes and subjects: means by class and by subject. values: (I,) by column, NaN where nothing is
    compared, in the order of `answers`. not_found: cut-outs on which there is no subject; they score 0.
    """

    name: str
    is_baseline: bool
    answers: Sequence[Answer]
    scores: dict[str, Estimate | None]
    kinds: dict[str, dict[str, Estimate | None]]
    classes: dict[str, dict[str, float | None]]
    subjects: dict[str, dict[str, float | None]]
    values: dict[str, NDArray[np.float64]]
    not_found: int = 0


@dataclass(frozen=True)
class Results:
    """Everything that a report says. columns: the scores' names in order; see `column`."""

    wanted: EvaluationSet
    encoders: Sequence[Encoder]
    averaging: Averaging
    masking: Masking
    columns: Sequence[str]
    rows: Sequence[RowScores]
    copy_threshold: float


def column(name: str, comparison: Comparison) -> str:
    """Return the name of a score that compares with photos: "DINO, others"."""
    return f"{name}, {comparison}"


@dataclass
class Scorer:
    """Scores answers to the cases of an evaluation set.

    encoders: at least one; folder: where features are kept; finder: for masking "found". Raises the errors
    of `FeatureReader`.
    """

    wanted: EvaluationSet
    encoders: Sequence[Encoder]
    folder: Path
    averaging: Averaging = "pairs"
    masking: Masking = "no"
    finder: SubjectFinder | None = None
    reader: FeatureReader = field(init=False)
    thumbnails: Thumbnails = field(default_factory=Thumbnails, init=False)

    def __post_init__(self) -> None:
        self.reader = FeatureReader([*self.encoders, self.thumbnails], self.folder, self.finder)

    def score(self, pictures: Mapping[str, Mapping[Case, Path]]) -> Results:
        """Return the scores of each method's pictures, one a case, with the known answers first.

        Raises UsageError for a method that is called like one of those.
        """
        taken = sorted(set(KNOWN) & pictures.keys())
        if taken:
            raise UsageError(f"{taken[0]!r} is scored beside every method; give yours another name.")
        known = {
            ORACLE: oracle_answers(self.wanted),
            OTHER: other_answers(self.wanted),
            COPY_INPUT: copy_answers(self.wanted),
        }
        made = {
            name: [Answer(case, Photo(path, mask_beside(path))) for case, path in found.items()]
            for name, found in pictures.items()
        }
        truths = _Truths.read(self)
        rows = [self._row(name, answers, truths) for name, answers in {**known, **made}.items() if answers]
        return Results(
            self.wanted,
            self.encoders,
            self.averaging,
            self.masking,
            list(rows[0].scores) if rows else [],
            rows,
            truths.threshold,
        )

    def read_set(self) -> None:
        """Read the prompts and the true photos, which `score` then finds in the cache."""
        self.reader.texts([case.text for case in self.wanted.cases])
        _Truths.read(self)

    @property
    def image_encoders(self) -> list[Encoder]:
        return [each for each in self.encoders if each.image_column is not None]

    def item(self, case: Case, picture: Photo) -> Item:
        """Return the cut-out of a picture."""
        if self.masking == "found":
            return Item(picture.path, noun=case.subject.noun)
        return Item(picture.path, mask=picture.mask or mask_beside(picture.path))

    def _row(self, name: str, answers: Sequence[Answer], truths: _Truths) -> RowScores:
        plain = self.reader.read(
            [Item(answer.picture.path) for answer in answers], [*self.encoders, self.thumbnails], name
        )
        cut: dict[str, Rows] = {}
        if self.masking != "no":
            items = [self.item(answer.case, answer.picture) for answer in answers]
            cut = self.reader.read(items, self.image_encoders, f"{name}, cut out")
        sums: dict[str, Sums] = {}
        for encoder in self.encoders:
            if isinstance(encoder, TextEncoder):
                sums[encoder.text_column] = self._text_sums(encoder, answers, plain[encoder.name])
            if encoder.image_column is None:
                continue
            both = {
                encoder.image_column: (plain, truths.plain),
                f"M{encoder.image_column}": (cut, truths.cut),
            }
            for title, (ours, true) in both.items():
                if encoder.name in ours:
                    sums |= _image_sums(title, answers, ours[encoder.name], true[encoder.name])
        sums[COPIES] = self._copies(answers, plain[self.thumbnails.name], truths)
        for encoder in self.image_encoders:
            sums[f"{DIVERSITY}, {encoder.image_column}"] = _diversity(answers, plain[encoder.name])
        lost = [int(np.isnan(rows).all(1).sum()) for rows in cut.values()]
        return self._summed(name, answers, sums, max(lost, default=0))

    def _text_sums(self, encoder: TextEncoder, answers: Sequence[Answer], rows: Rows) -> Sums:
        texts = self.reader.texts([answer.case.text for answer in answers])[encoder.name]
        return metrics.text_sums(rows, np.stack([texts[answer.case.text] for answer in answers]))

    def _copies(self, answers: Sequence[Answer], rows: Rows, truths: _Truths) -> Sums:
        """1 for each picture that is a copy of one of its inputs."""
        shown = metrics.as_thumbnails(rows)
        copied = np.zeros(len(answers))
        for places in _places(answers, _source).values():
            case = answers[places[0]].case
            inputs = truths.thumbnails[case.subject.name][list(case.inputs)]
            copied[places] = metrics.copy_distances(shown[places], inputs) < truths.threshold
        return Sums(copied, np.ones(len(answers), np.int64))

    def _summed(
        self, name: str, answers: Sequence[Answer], sums: Mapping[str, Sums], not_found: int
    ) -> RowScores:
        numbers = {subject.name: number for number, subject in enumerate(self.wanted.subjects)}
        subjects = np.array([numbers[answer.case.subject.name] for answer in answers])
        by_kind, by_class, by_name = (
            _places(answers, key)
            for key in (
                lambda answer: answer.case.subject.kind,
                lambda answer: answer.case.subject.noun,
                lambda answer: answer.case.subject.name,
            )
        )

        def estimate(title: str, places: NDArray[np.int64]) -> Estimate | None:
            some = sums[title].at(places)
            if title == COPIES:
                return share(some.total > 0)
            return metrics.average(some, subjects[places], self.averaging)

        def mean(title: str, places: NDArray[np.int64]) -> float | None:
            some = sums[title].at(places)
            values, weights = metrics.subject_means(some, subjects[places], self.averaging)
            return float((values * weights).sum() / weights.sum()) if len(values) else None

        every = np.arange(len(answers))
        return RowScores(
            name=name,
            is_baseline=name in KNOWN,
            answers=answers,
            scores={title: estimate(title, every) for title in sums},
            kinds={
                kind: {title: estimate(title, places) for title in sums}
                for kind, places in by_kind.items()
                if kind
            },
            classes={noun: {title: mean(title, some) for title in sums} for noun, some in by_class.items()},
            subjects={each: {title: mean(title, some) for title in sums} for each, some in by_name.items()},
            values={
                name: each.total / np.where(each.pairs, each.pairs, np.nan) for name, each in sums.items()
            },
            not_found=not_found,
        )


@dataclass(frozen=True)
class _Truths:
    """Features of the true photos, (P, D) by encoder and subject; thumbnails (P, 3, T, T) by subject."""

    plain: dict[str, dict[str, Rows]]
    cut: dict[str, dict[str, Rows]]
    thumbnails: dict[str, NDArray[np.uint8]]
    threshold: float

    @classmethod
    def read(cls, scorer: Scorer) -> _Truths:
        pairs = [(subject, photo) for subject in scorer.wanted.subjects for photo in subject.photos]
        ends = np.cumsum([len(subject.photos) for subject in scorer.wanted.subjects])[:-1]
        names = [subject.name for subject in scorer.wanted.subjects]

        def parted(rows: Mapping[str, Rows]) -> dict[str, dict[str, Rows]]:
            return {
                encoder: dict(zip(names, np.split(each, ends), strict=True)) for encoder, each in rows.items()
            }

        plain = parted(
            scorer.reader.read(
                [Item(photo.path) for _, photo in pairs],
                [*scorer.image_encoders, scorer.thumbnails],
                "true photos",
            )
        )
        cut = {}
        if scorer.masking != "no":
            items = [scorer.item(Case(subject, (), 0, 0), photo) for subject, photo in pairs]
            cut = parted(scorer.reader.read(items, scorer.image_encoders, "true photos, cut out"))
        shown = {
            name: metrics.as_thumbnails(rows) for name, rows in plain.pop(scorer.thumbnails.name).items()
        }
        return cls(plain, cut, shown, metrics.copy_threshold(list(shown.values())))


def oracle_answers(wanted: EvaluationSet) -> list[Answer]:
    """Return the true picture of each prompt where there is one; else each photo that is not an input, for
    each prompt, never compared with itself.
    """
    answers = []
    for case in wanted.cases:
        if case.sample:
            continue
        if case.subject.truths:
            answers.append(Answer(case, case.subject.truths[case.prompt]))
            continue
        photos = enumerate(case.subject.photos)
        answers += [Answer(case, photo, number) for number, photo in photos if number not in case.inputs]
    return answers


def other_answers(wanted: EvaluationSet) -> list[Answer]:
    """Return each photo of another subject, for each prompt; none where there is one subject only."""
    rivals = {subject.name: rival(subject, wanted.subjects) for subject in wanted.subjects}
    return [
        Answer(case, photo)
        for case in wanted.cases
        if not case.sample
        if (other := rivals[case.subject.name]) is not None
        for photo in other.photos
    ]


def rival(subject: Subject, subjects: Sequence[Subject]) -> Subject | None:
    """Return the next subject of the same class, else of the same kind, else any; None where it is alone."""
    place = subjects.index(subject)
    others = [*subjects[place + 1 :], *subjects[:place]]
    same_class = [each for each in others if each.noun == subject.noun]
    same_kind = [each for each in others if each.kind == subject.kind]
    return next(iter([*same_class, *same_kind, *others]), None)


def copy_answers(wanted: EvaluationSet) -> list[Answer]:
    """Return each input, for each prompt."""
    return [
        Answer(case, case.subject.photos[number])
        for case in wanted.cases
        if not case.sample
        for number in case.inputs
    ]


def _image_sums(
    title: str, answers: Sequence[Answer], rows: Rows, true: Mapping[str, Rows]
) -> dict[str, Sums]:
    """Return the three comparisons of one encoder."""
    totals = {each: np.zeros(len(answers)) for each in COMPARISONS}
    counts = {each: np.zeros(len(answers), np.int64) for each in COMPARISONS}
    for name, places in _places(answers, lambda answer: answer.case.subject.name).items():
        similar = metrics.cosines(rows[places], true[name])
        for comparison in COMPARISONS:
            compared = [
                _compared(comparison, similar.shape[1], answers[each].case.inputs, answers[each].left_out)
                for each in places
            ]
            found = metrics.pair_sums(similar, np.stack(compared))
            totals[comparison][places], counts[comparison][places] = found
    return {column(title, each): Sums(totals[each], counts[each]) for each in COMPARISONS}


_compared = cache(metrics.is_compared)


def _diversity(answers: Sequence[Answer], rows: Rows) -> Sums:
    """Return the mean pairwise distance of each prompt's pictures, once for each prompt (at its first
    picture).

    Only between pictures from seeds: known answers have none.
    """
    total, count = np.zeros(len(answers)), np.zeros(len(answers), np.int64)
    for places in _places(answers, lambda answer: (_source(answer), answer.case.prompt)).values():
        if len({answers[each].case.sample for each in places}) > 1:
            total[places[0]] = metrics.mean_pairwise_distance(rows[places])
            count[places[0]] = 1
    return Sums(total, count)


def _source(answer: Answer) -> tuple[str, tuple[int, ...]]:
    """Return the subject and the numbers of its photos that the picture is made from."""
    return answer.case.subject.name, answer.case.inputs


def _places(answers: Sequence[Answer], key: Callable[[Answer], Key]) -> dict[Key, NDArray[np.int64]]:
    """Return the numbers of the answers with each key, in order."""
    found: dict[Key, list[int]] = {}
    for number, answer in enumerate(answers):
        found.setdefault(key(answer), []).append(number)
    return {each: np.array(numbers) for each, numbers in found.items()}
