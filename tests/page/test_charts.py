"""Bars and lines: lengths, places, and how the page draws them."""

import math
import re

import pytest

from jedi_diffusion.page.charts import BOTTOM, LEFT, RIGHT, TOP, Bars, Lines
from jedi_diffusion.page.html import render_page


def test_bars_are_as_long_as_their_numbers() -> None:
    assert Bars("B", [("<a>", 1000), ("b", 250), ("c", 0)]).rows() == [
        ("<a>", "1,000 (80.0%)", 100.0),
        ("b", "250 (20.0%)", 25.0),
        ("c", "0 (0.0%)", 0.0),
    ]
    assert Bars("B", [("a", 5)], total=20).rows() == [("a", "5 (25.0%)", 100.0)]
    assert Bars("B", []).rows() == []


def test_lines_fill_their_frame() -> None:
    points = [(0.2, 0.0), (0.3, math.nan), (0.4, 0.5), (0.6, 1.0)]
    frame = Lines("L", {"one": points}, "x", [(0.4, "here")]).frame()
    ((name, drawn),) = frame.lines
    assert name == "one"
    found = [tuple(map(float, each.split(","))) for each in drawn.split()]
    assert found == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (RIGHT, TOP)]
    assert frame.marks == [((LEFT + RIGHT) / 2, "here")]
    assert [label for _, label in frame.columns] == ["0.20", "0.28", "0.36", "0.44", "0.52", "0.60"]
    assert frame.rows[0] == (BOTTOM, "0.0")
    assert frame.rows[-1] == (TOP, "1.0")


def test_a_page_draws_them_in_colors_of_its_themes() -> None:
    chart = Lines("L & M", {"<one>": [(0, 0.5), (1, 1)], "two": [(0, 1), (1, 0)]}, "x", note="why")
    html = render_page("T", "S", [Bars("B", [("<a>", 2), ("b", 1)]), chart])
    assert "&lt;a&gt;" in html
    assert "&lt;one&gt;" in html
    assert re.findall(r'<div style="width: ([\d.]+)%"></div>', html) == ["100.0", "50.0"]
    assert html.count('class="line-1"') == 2  # the line, and its sample beside the name
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert "#" not in svg
    for name in ("--first", "--second", "--third"):
        assert html.count(f"{name}:") == 2
    assert not re.search(r"https?://|url\(|<script", html)


def test_an_empty_chart_is_a_frame() -> None:
    assert Lines("L", {"one": []}, "x").frame().lines == [("one", "")]
    with pytest.raises(AttributeError):
        Lines("L", {}, "x").title = "other"  # type: ignore[misc]
