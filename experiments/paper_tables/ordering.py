"""Does an ordering of the paper hold here? Rank correlation and pairs, with intervals over subjects.

Letters: M rows of a table; S subjects; B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jedi_diffusion.errors import UsageError
from jedi_diffusion.estimates import Estimate, bootstrap_means

Array = NDArray[np.float64]
MOST_ROWS = 8


@dataclass(frozen=True)
class Chance:
    """What orders at random agree with the paper's: the mean over all orders of the rows, and the range that
    holds 95% of them. as_many: the share of orders that keep as many pairs as were kept here, or more.
    """

    kept: Estimate
    correlation: Estimate | None
    as_many: float

    def record(self) -> dict[str, Any]:
        rank = None if self.correlation is None else self.correlation.record()
        return {"kept": self.kept.record(), "correlation": rank, "as_many": round(self.as_many, 6)}


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
    chance: Chance

    def __str__(self) -> str:
        rank = "no rank correlation" if self.correlation is None else f"rank correlation {self.correlation}"
        return (
            f"{self.score}: {self.kept} of {self.pairs} pairs in the paper's order ({self.clear} clearly so, "
            f"{self.turned} clearly reversed), {rank}; rows in random order keep {_range(self.chance.kept)}, "
            f"as many or more in {self.chance.as_many:.0%} of orders"
        )

    @property
    def brief(self) -> str:
        """For a cell of a table."""
        by_chance = self.chance.kept
        counts = (
            f"{self.kept} of {self.pairs} ({self.clear} clear, {self.turned} reversed), by chance "
            f"{by_chance.low:g} to {by_chance.high:g}"
        )
        if self.correlation is None:
            return counts
        mean, low, high = self.correlation
        return f"{counts}; {mean:.2f} ({low:.2f} to {high:.2f})"

    def record(self) -> dict[str, Any]:
        found = asdict(self)
        found["correlation"] = None if self.correlation is None else self.correlation.record()
        return found | {"chance": self.chance.record()}


def _range(kept: Estimate) -> str:
    return f"{kept.mean:g} ({kept.low:g} to {kept.high:g})"


def compare(score: str, paper: Mapping[str, float], here: Mapping[str, Array]) -> Agreement | None:
    """Return the orderings of the rows that both have; here: (S,) a value for each subject, the same S
    everywhere.

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
    rank = _estimate(theirs, means, draws)
    found = chance(theirs, int(kept))
    return Agreement(score, rank, len(places), int(kept), int(clear), int(turned), found)


def chance(theirs: Array, kept: int) -> Chance:
    """Return what all orders of the rows agree with the paper's numbers `theirs` (M,), M up to MOST_ROWS."""
    if len(theirs) > MOST_ROWS:
        raise ValueError(f"{len(theirs)} rows have too many orders to go through.")
    orders = np.array(list(permutations(range(len(theirs)))), dtype=float).T  # (M, B)
    counts = np.zeros(orders.shape[1])
    for i, j in combinations(range(len(theirs)), 2):
        counts += (theirs[i] - theirs[j]) * (orders[i] - orders[j]) > 0
    ranks = rank_correlation(theirs, orders)
    rank = None if np.isnan(ranks).any() else _spread(ranks)
    return Chance(_spread(counts), rank, float((counts >= kept).mean()))


def _spread(values: Array) -> Estimate:
    """Return ends that occur: where one order is more than 2.5% of all, no end leaves it out."""
    low, high = np.percentile(values, 2.5, method="lower"), np.percentile(values, 97.5, method="higher")
    return Estimate(float(values.mean()), float(low), float(high))


def differences(here: Mapping[str, Array]) -> list[dict[str, Any]]:
    """For every two rows, {"of", "minus", "mean", "low", "high"}: what the first has more, with the 95%
    interval over subjects; here: (S,) a value for each subject, the same S everywhere.
    """
    if not here:
        return []
    names, draws = list(here), bootstrap_means(np.stack(list(here.values())))
    found = []
    for i, j in combinations(range(len(names)), 2):
        mean = float(here[names[i]].mean() - here[names[j]].mean())
        low, high = np.percentile(draws[i] - draws[j], [2.5, 97.5])
        estimate = Estimate(mean, float(low), float(high))
        found.append({"of": names[i], "minus": names[j], **estimate.record()})
    return found


def _estimate(theirs: Array, means: Array, draws: Array) -> Estimate | None:
    (point,) = rank_correlation(theirs, means[:, None])
    sampled = rank_correlation(theirs, draws)
    sampled = sampled[~np.isnan(sampled)]
    if np.isnan(point) or not len(sampled):
        return None
    low, high = np.percentile(sampled, [2.5, 97.5])
    return Estimate(float(point), float(low), float(high))


def rank_correlation(one: Array, others: Array) -> Array:
    """Return (B,) Spearman's rank correlation of (M,) with each column of (M, B); NaN where all ranks are
    equal.

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
    """Raise UsageError with the way to install scipy."""
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
    """Return one line: whether the paper's ordering holds here, and how well in each score."""
    starts = {
        "nothing to compare": "No two rows are shared with the paper: nothing to order.",
        "holds": "The paper's ordering holds here.",
        "does not hold": "The paper's ordering does not hold here.",
        "open": "The paper's ordering is open here: some pairs are reversed, none of them clearly.",
    }
    details = "; ".join(map(str, agreements))
    return f"{starts[answer(agreements)]} {details}.".removesuffix(" .")
