"""Does an ordering of the paper hold here? Rank correlation and pairs, with intervals over subjects.

Letters: M rows of a table; S subjects; B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jedi_diffusion.errors import UsageError
from jedi_diffusion.estimates import Estimate, bootstrap_means

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """One score's ordering here beside the paper's.

    correlation: Spearman's of the rows' means, its interval over subjects; None where either side has all
    rows equal. pairs: pairs of rows that differ in the paper; kept: those in the same order here; clear,
    turned: those whose 95% interval of the difference says so, in the paper's order and against it.
    """

    score: str
    correlation: Estimate | None
    pairs: int
    kept: int
    clear: int
    turned: int

    def __str__(self) -> str:
        rank = "no rank correlation" if self.correlation is None else f"rank correlation {self.correlation}"
        return (
            f"{self.score}: {self.kept} of {self.pairs} pairs in the paper's order ({self.clear} clearly so, "
            f"{self.turned} clearly reversed), {rank}"
        )

    @property
    def brief(self) -> str:
        """For a cell of a table."""
        rank = "" if self.correlation is None else f", {self.correlation}"
        return f"{self.kept} of {self.pairs}{rank}"

    def record(self) -> dict[str, Any]:
        found = asdict(self)
        found["correlation"] = None if self.correlation is None else self.correlation.record()
        return found


def compare(score: str, paper: Mapping[str, float], here: Mapping[str, Array]) -> Agreement | None:
    """The orderings of the rows that both have; here: (S,) a value for each subject, the same S everywhere.

    None where fewer than two rows are shared. Raises UsageError without scipy, ValueError for rows of
    different subjects.
    """
    names = [name for name in paper if name in here]
    if len(names) < 2:
        return None
    theirs = np.array([paper[name] for name in names])
    values = np.stack([here[name] for name in names])  # (M, S)
    means, draws = values.mean(1), bootstrap_means(values)  # (M,), (M, B)
    places = [(i, j) for i, j in combinations(range(len(names)), 2) if theirs[i] != theirs[j]]
    kept = clear = turned = 0
    for i, j in places:
        sign = np.sign(theirs[i] - theirs[j])
        low, high = np.percentile(sign * (draws[i] - draws[j]), [2.5, 97.5])
        kept += sign * (means[i] - means[j]) > 0
        clear += low > 0
        turned += high < 0
    return Agreement(score, _estimate(theirs, means, draws), len(places), int(kept), int(clear), int(turned))


def _estimate(theirs: Array, means: Array, draws: Array) -> Estimate | None:
    (point,) = rank_correlation(theirs, means[:, None])
    sampled = rank_correlation(theirs, draws)
    sampled = sampled[~np.isnan(sampled)]
    if np.isnan(point) or not len(sampled):
        return None
    low, high = np.percentile(sampled, [2.5, 97.5])
    return Estimate(float(point), float(low), float(high))


def rank_correlation(one: Array, others: Array) -> Array:
    """(B,) Spearman's rank correlation of (M,) with each column of (M, B); NaN where all ranks are equal.

    Ties share their mean rank. Raises UsageError without scipy.
    """
    need_scipy()
    from scipy.stats import rankdata

    first = rankdata(one) - (len(one) + 1) / 2
    second = rankdata(others, axis=0) - (len(one) + 1) / 2
    lengths = np.sqrt(np.square(first).sum() * np.square(second).sum(0))
    found = np.full(others.shape[1], np.nan)
    np.divide(first @ second, lengths, out=found, where=lengths > 0)
    return found


def need_scipy() -> None:
    """Raises UsageError with the way to install scipy."""
    if find_spec("scipy") is None:
        raise UsageError("Rank correlations need scipy: pip install 'jedi-diffusion[evaluation]'.")


def answer(agreements: Sequence[Agreement]) -> str:
    """In a few words: "holds" where every pair is in the paper's order, "does not hold" where one is clearly
    reversed, else "open".
    """
    if not agreements:
        return "nothing to compare"
    if all(each.kept == each.pairs for each in agreements):
        return "holds"
    return "does not hold" if any(each.turned for each in agreements) else "open"


def verdict(agreements: Sequence[Agreement]) -> str:
    """One line: whether the paper's ordering holds here, and how well in each score."""
    starts = {
        "nothing to compare": "No two rows are shared with the paper: nothing to order.",
        "holds": "The paper's ordering holds here.",
        "does not hold": "The paper's ordering does not hold here.",
        "open": "The paper's ordering is open here: some pairs are reversed, none of them clearly.",
    }
    details = "; ".join(map(str, agreements))
    return f"{starts[answer(agreements)]} {details}.".removesuffix(" .")
