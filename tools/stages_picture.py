"""Takes the picture of the stages in docs/synthesis.md: a collage of the toybox, from its prompt to its set.

    python tools/stages_picture.py docs/images/synthesis_stages.png

Needs the extras `dev` and `synthesis` and Debian's package chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from jedi_diffusion.cli import main as jedi

OBJECT, COLLAGE = "bus", 1
"""On tiles, with a look-alike and a view that a seam cuts off."""
WIDTH, COLORS = 760, 256


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "stages.html"
        words = ["--object", OBJECT, "--collages", str(COLLAGE + 1), "--out", str(page)]
        if status := jedi(["synthesize", "stages", "toybox", *words]):
            sys.exit(status)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            tab = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
            tab.goto(page.as_uri())
            shot = tab.locator(f"#part-{COLLAGE + 1}").screenshot()
            browser.close()
    # Few colors: the picture is read with the text, and stays small.
    picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLORS)
    picture.save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
