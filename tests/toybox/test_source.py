"""The toybox as a source: which pictures of a subject training sees."""

import numpy as np
import pytest

from jedi_toybox import world
from jedi_toybox.source import PLAIN_SCENES, ToyboxSource, ToyboxViews


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[world.PictureSpec]:
    """What the source wants rendered, without the rendering."""
    kept: list[world.PictureSpec] = []
    render = world.render

    def keep(specs: list[world.PictureSpec], *args: object, compiled: bool) -> world.Rendered:
        kept.extend(specs)
        out = render(specs[:1], 8, 1)
        return world.Rendered(*(each.expand(len(specs), *each.shape[1:]) for each in out))

    monkeypatch.setattr(world, "render", keep)
    return kept


def spread(specs: list[world.PictureSpec]) -> float:
    """Degrees between the two pictures' cameras that are farthest apart, around the circle."""
    angles = np.degrees([spec.camera.azimuth for spec in specs])
    return float(np.abs((angles[:, None] - angles + 180) % 360 - 180).max())


def test_alike_pictures_are_by_one_camera_and_plain_but_the_last_and_the_others_as_ever(
    asked: list[world.PictureSpec],
) -> None:
    ToyboxSource(seed=5, alike=0.5).sets(0, 60, 4, 16, "cpu")
    sets = [asked[start : start + 4] for start in range(0, 240, 4)]
    alike = [specs for specs in sets if specs[0].view is not None]
    assert 20 <= len(alike) <= 40
    for specs in alike:
        assert len({spec.camera for spec in specs[:3]}) == 1
        assert not any(spec.style or spec.attribute for spec in specs[:3])
        assert spread(specs) < 10, "attributes change what has to fit in, and so the camera's target a little"
    assert len({specs[0].camera for specs in alike}) == len(alike)
    last = [specs[3] for specs in alike]
    assert 0 < sum(bool(spec.style) for spec in last) < len(last)
    assert 0 < sum(bool(spec.attribute) for spec in last) < len(last)
    assert len({spec.scene for spec in alike[0]}) > 1
    for specs in sets:
        if specs not in alike:
            assert specs == [world.sample_picture(specs[0].subject, number) for number in range(4)]


def test_no_pictures_are_alike_unless_asked_for(asked: list[world.PictureSpec]) -> None:
    ToyboxSource().sets(0, 20, 2, 16, "cpu")
    assert {spec.view for spec in asked} == {None}
    assert any(spec.style for spec in asked)


def test_an_azimuth_changes_the_camera_and_nothing_else() -> None:
    free = world.sample_picture(world.sample_subject(3), 1)
    turned = world.sample_picture(world.sample_subject(3), 1, azimuth=1.0)
    assert turned.camera.azimuth == pytest.approx(
        1.0, abs=0.02
    )  # about the target, which is not quite the origin
    assert turned.caption == free.caption
    assert turned.camera.tangent == free.camera.tangent


def test_views_show_a_subject_from_all_sides_in_one_scene_with_one_caption(
    asked: list[world.PictureSpec],
) -> None:
    made = ToyboxViews(seed=5).sets(0, 30, 4, 16, "cpu")
    sets = [asked[start : start + 4] for start in range(0, 120, 4)]
    assert all(len({spec.scene for spec in specs}) == 1 for specs in sets)
    assert {specs[0].scene for specs in sets} == set(PLAIN_SCENES)
    assert not any(spec.style or spec.attribute for spec in asked)
    assert max(map(spread, sets)) > 150
    assert all(set(captions) == {name} for captions, name in zip(made.captions, made.names, strict=True))
