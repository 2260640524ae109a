"""The page: whole, escaped, without a request; and the tables in other forms."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from jedi_diffusion.page.html import Gallery, Strip, Text, render_page
from jedi_diffusion.page.tables import Table, escape_latex, latex, markdown

TABLE = Table("Scores & more", ("method", "DINO"), (("ours_1", "0.6 | 50%"), ("<b>", "–")), note="A note.")


class Reader(HTMLParser):
    """Collects text, addresses, and which elements are open."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def test_a_page_holds_its_parts_and_asks_for_nothing() -> None:
    red = Image.new("RGB", (800, 400), (250, 0, 0))
    strip = Strip("Best <1>", [(red, "a dog & a cat"), (red.convert("L"), "gray")], note="why")
    parts = [Text("Words", ["One.", "<script>two</script>"]), TABLE, Gallery("Cases", [strip], side=100)]
    html = render_page("A <title>", "Summary.", parts)
    reader = read(html)
    text = " ".join(reader.text)
    for each in ("A <title>", "<script>two</script>", "0.6 | 50%", "<b>", "a dog & a cat", "Best <1>", "why"):
        assert each in text
    assert "<script" not in html
    assert "prefers-color-scheme: dark" in html
    links = [each for each in reader.addresses if not each.startswith("data:")]
    assert links == ["#part-1", "#part-2", "#part-3"]
    assert all(f'id="{each[1:]}"' in html for each in links)
    assert not re.search(r"https?://|url\(|@import", html)
    pictures = [each for each in reader.addresses if each.startswith("data:image/jpeg;base64,")]
    shown = [Image.open(io.BytesIO(base64.b64decode(each.split(",")[1]))) for each in pictures]
    assert [each.size for each in shown] == [(100, 50)] * 2
    assert shown[0].getpixel((5, 5))[0] > 240
    assert red.size == (800, 400)


def test_tables_in_markdown() -> None:
    assert markdown(TABLE) == (
        "**Scores & more**\n\n| method | DINO |\n|---|---:|\n| ours_1 | 0.6 \\| 50% |\n| <b> | – |\n"
        "\nA note.\n"
    )


def test_tables_in_latex() -> None:
    text = latex(TABLE)
    assert r"\caption{Scores \& more}" in text
    assert r"ours\_1 & 0.6 | 50\% \\" in text
    assert r"\begin{tabular}{lr}" in text
    assert text.count(r"\begin") == text.count(r"\end")
    assert (
        escape_latex("a\\b~c^d{e}$#") == r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\{e\}\$\#"
    )


def test_a_table_with_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match="'T' has rows that are not 2"):
        Table("T", ("a", "b"), (("1",),))
