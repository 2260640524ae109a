"""`jedi synthesize stages` on the toybox, and what can be wrong."""

from pathlib import Path

import pytest

from jedi_diffusion.recipes import CONFIGS

pytest.importorskip("skimage")

TOYBOX = CONFIGS / "synthesize" / "toybox.yaml"
TINY = (
    *("--set", "stages.collage_size=144", "--set", "models.generator.rays=1"),
    *("--set", "models.inpainter.rays=1", "--device", "cpu"),
)


def test_the_page_is_written(jedi, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "page.html"
    done = jedi("synthesize", "stages", TOYBOX, "--out", out, "--object", "cup", "--collages", 2, *TINY)
    assert done.status == 0, done.err
    assert done.out == f"Page: {out}\n"
    page = out.read_text(encoding="utf-8")
    assert "cup, collage 0" in page
    assert "cup, collage 1" in page
    assert "Stages 7 and 8: set 0 of subject 0" in page


def test_faults_are_one_sentence(jedi, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, status, message in (
        (["--object", "dragon"], 2, "has no object 'dragon'"),
        (["--collages", 0], 2, "--collages is 0"),
        (["--set", "models.generator.kind=crayons"], 2, "there is no 'crayons'"),
        (["--out", tmp_path / "file" / "page.html"], 1, "file"),
    ):
        done = jedi("synthesize", "stages", TOYBOX, *words)
        assert done.status == status, done
        assert message in done.err
        assert done.err.count("\n") == 1
