"""Sentences made from the tables: the published page says them, and other numbers make other sentences."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from experiments.paper_tables.findings import as_markdown, difference, findings
from experiments.paper_tables.ordering import chance, compare, differences

DOCS = Path(__file__).resolve().parents[2] / "docs"
PUBLISHED = json.loads((DOCS / "paper_tables" / "tables.json").read_text(encoding="utf-8"))
BLOCK = "<!-- what `tools/paper_findings.py` makes of tables.json: -->\n", "\n<!-- until here -->"


def sentence(told: dict, *words: str) -> str:
    (found,) = (each for each in findings(told) if all(word in each for word in words))
    return found


def test_the_page_says_what_the_published_numbers_say() -> None:
    text = (DOCS / "paper_tables.md").read_text(encoding="utf-8")
    assert text.partition(BLOCK[0])[2].partition(BLOCK[1])[0] == as_markdown(PUBLISHED)


def test_what_the_published_numbers_say() -> None:
    """By hand, from tables.json."""
    assert (
        "48 pairs of rows 23 are in the paper's order, 8 pairs clearly so; 13 are clearly reversed"
        in sentence(PUBLISHED, "Prompt (toy-T)")
    )
    assert "0 of 3 for toy-ID, 0 of 3 for Mtoy-ID" in sentence(PUBLISHED, "amounts of same-subject sets")
    strategies = sentence(PUBLISHED, "two-stage rows")
    assert "where it is 1.5, identity is 0.49 (text first) and 0.58 (image first)" in strategies
    assert "So the order turns with the scale" in strategies
    references = sentence(PUBLISHED, "With 1, 2, 3")
    assert "identity 0.50, 0.52, 0.54" in references
    assert references.endswith("+0.01 from 1 to 2, -0.04 from 2 to 8.")
    assert "prompt: DreamBooth 0.65" in sentence(PUBLISHED, "Table 9")
    assert "Custom Diffusion 0.47." in sentence(PUBLISHED, "Table 2")
    assert sum("2 repetitions of each method, too few" in each for each in findings(PUBLISHED)) == 2
    assert "without values of single subjects" in findings(PUBLISHED)[-1]


def test_other_numbers_make_other_sentences() -> None:
    told = deepcopy(PUBLISHED)
    for name, level in (("0.6M", 0.9), ("1.6M", 0.8), ("1.2M", 0.7)):
        told["tables"]["3"]["here"][name]["scores"]["toy-ID, inputs"]["mean"] = level
    assert "3 of 3 for toy-ID, 0 of 3 for Mtoy-ID" in sentence(told, "amounts of same-subject sets")
    told["figure_11"]["Text first"][0]["toy-ID"] = 0.6
    assert "The order is the same at both ends" in sentence(told, "two-stage rows")
    told["table_10"] = {"here": {"seconds": {"JeDi": [1.0] * 9}}}
    assert sentence(told, "Table 10").endswith("here: 9 repetitions of each method.")


def test_strategies_are_compared_at_equal_scales() -> None:
    """Identity that follows the references' scale and not the strategy: as often more as less."""
    told = deepcopy(PUBLISHED)
    points = [(1.5, 4.0), (4.0, 1.5), (1.5, 6.0), (6.0, 1.5)]
    for name, more in (("Text first", 0.01), ("Image first", 0.0)):
        told["figure_11"][name] = [
            {"text_scale": text, "image_scale": image, "toy-ID": image / 10 + more, "toy-T": text / 10}
            for text, image in points
        ]
    said = sentence(told, "Table 6 at equal scales")
    assert "4 pairs" in said
    assert "more identity than image first in 4, and a higher prompt score in 0" in said
    assert (
        "larger, identity is 0.51 (text first) and 0.50 (image first), where the text's is, 0.16 and 0.15"
        in said
    )


def test_orders_at_random_keep_half() -> None:
    """Of three rows: 0, 1, 1, 2, 2 and 3 pairs in six orders; of six rows 15 pairs, 2.8% keep 2 or fewer."""
    three = chance(np.array([0.1, 0.2, 0.3]), kept=2)
    assert (three.kept, three.as_many) == ((1.5, 0, 3), 0.5)
    assert three.correlation is not None
    assert three.correlation.mean == pytest.approx(0)
    six = chance(np.arange(6.0), kept=15)
    assert (six.kept.mean, six.kept.low, six.kept.high) == (7.5, 2, 13)
    assert six.as_many == pytest.approx(1 / 720)
    tied = chance(np.array([0.1, 0.1, 0.3]), kept=2)  # one pair says nothing
    assert (tied.kept.mean, tied.as_many) == (1, 1 / 3)
    with pytest.raises(ValueError, match="9 rows"):
        chance(np.arange(9.0), 0)


def test_differences_have_intervals_over_subjects() -> None:
    """Rows that share their subjects: the difference is certain where each mean is not."""
    noise = np.random.default_rng(0).normal(0, 0.3, 30)
    (found,) = differences({"a": 0.5 + noise, "b": 0.4 + noise})
    assert (found["of"], found["minus"]) == ("a", "b")
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.1, 0.1, 0.1))
    table = {"differences": {"toy-T": [found]}, "here": {}}
    assert difference(table, "toy-T", "a", "b") == "+0.10 (0.10 to 0.10)"
    assert difference(table, "toy-T", "b", "a") == "-0.10 (-0.10 to -0.10)"
    told = compare("toy-T", {"a": 2.0, "b": 1.0}, {"a": 0.5 + noise, "b": 0.4 + noise})
    assert told is not None
    assert told.brief.startswith("1 of 1 (1 clear, 0 reversed), by chance 0 to 1; ")
