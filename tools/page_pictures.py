"""Takes the pictures of the page: `page.png`, a whole screen, `page_narrow.png`, a dark phone, and
`page_mask.png`, the brush over a photo.

    jedi serve --port 7860
    python tools/page_pictures.py http://127.0.0.1:7860 docs/images

Needs the extra `dev` and Debian's package chromium. Says so and fails if the page asked another machine for
anything.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

WAIT = 300_000
"""Milliseconds for four pictures on a slow machine."""
SCREENS: dict[str, dict[str, Any]] = {
    "page.png": {"viewport": {"width": 1180, "height": 1060}},
    "page_narrow.png": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
WHAT = "document.querySelector('#what textarea, #what input').value"
EXAMPLE = 1
"""Which of the offered subjects is shown, from 0."""
ENDINGS = ("on the beach", "in the snow", "in a forest", "at night")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    address, folder = sys.argv[1].rstrip("/"), Path(sys.argv[2])
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, settings in SCREENS.items():
            tab = browser.new_page(**settings)
            tab.set_default_timeout(WAIT)
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(address)
            pick(tab)
            if name == "page.png":
                paint(tab, folder / "page_mask.png")
            generate(tab)
            if name == "page_narrow.png":
                tab.evaluate("document.querySelector('#more').scrollIntoView()")
            else:
                tab.evaluate("scrollTo(0, 0)")
            tab.mouse.move(1, 1)
            tab.wait_for_timeout(1000)
            tab.screenshot(path=folder / name)
            shrink(folder / name)
        browser.close()
    outside = [each for each in asked if not each.startswith((address, "data:", "blob:"))]
    if outside:
        sys.exit(f"The page asked for {', '.join(outside)}.")


def pick(tab: Any) -> None:
    """Pick an example and wait for what it is called; `wait_for_function` needs eval, which pages forbid."""
    tab.click(f"#examples .thumbnail-item >> nth={EXAMPLE}")
    tab.wait_for_selector("#crops .thumbnail-item")
    while not tab.evaluate(WHAT):
        tab.wait_for_timeout(100)


def paint(tab: Any, path: Path) -> None:
    """Find the subject, leave a part of it out with the brush, take a picture of that, and take it back."""
    tab.click("#painting button")
    tab.wait_for_selector("#brush")
    tab.click("#find")
    tab.wait_for_selector("#brushed .veil", state="attached")
    tab.locator("#brush").scroll_into_view_if_needed()
    box = tab.locator("#brush").bounding_box()
    x, y = (box[name] + 0.3 * box[side] for name, side in (("x", "width"), ("y", "height")))
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 0.3 * box["width"], y, steps=8)
    tab.mouse.up()
    tab.wait_for_selector("#brushed [data-painted='1']", state="attached")
    tab.wait_for_timeout(500)
    tab.locator("#painting").screenshot(path=path)
    shrink(path)
    tab.click("#undo")
    tab.wait_for_timeout(1000)
    tab.click("#painting button")


def generate(tab: Any) -> None:
    """Wait for four pictures of what was picked."""
    what = tab.evaluate(WHAT)
    tab.fill("#prompts textarea", "\n".join(f"{what} {ending}" for ending in ENDINGS))
    tab.click("#generate")
    tab.wait_for_selector("#status:has-text('Done in')")
    tab.wait_for_selector(f"#made .thumbnail-item >> nth={len(ENDINGS) - 1}")


def shrink(path: Path) -> None:
    """To 256 colours, which no eye misses on a page this plain."""
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
