"""The part of the page that says how a photo is read: its mask, found or painted, and its strength.

The brush is a canvas of `page.js`. It sends strokes (`brush.Stroke`) through a hidden field and shows what
the server makes of them, so that masks are kept here alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

from jedi_diffusion.app import brush
from jedi_diffusion.app.session import Photo, Session
from jedi_diffusion.page.html import data_uri, embedded
from jedi_diffusion.pictures import png_bytes

SHOWN_SIDE = 512
"""Pixels of the longer side of the photo under the brush."""
LEFT_OUT = (229, 72, 77, 255)
"""Colour of what a mask leaves out: red, as of a retoucher's film."""
CANVAS = (
    '<canvas id="brush" tabindex="0" role="application" aria-label="Brush over the photo. Arrow keys move '
    'it, Space paints, Control and Z takes back."></canvas>'
)
MOST_STRENGTH = 4
RAW: dict[str, Any] = {"sanitize_html": False, "latex_delimiters": []}
"""How HTML of our own is shown, in which all that comes from outside is escaped. gr.HTML would evaluate
scripts to show it, which the policy of the page forbids."""


class MaskControls:
    """The components below the crops. shown: those that `values` has values for, in order.

    crops_of: returns the value of the gallery of crops.
    """

    def __init__(self, session: gr.State, crops: gr.Gallery, crops_of: Callable[[Session], Any]) -> None:
        self._crops_of = crops_of
        strength = gr.Slider(
            0.1, MOST_STRENGTH, 1, step=0.1, label="How much this photo counts", elem_id="strength"
        )
        with gr.Row():
            find = gr.Button("Find the subject", size="sm", elem_id="find")
            find_all = gr.Button("Find it in all photos", size="sm", elem_id="find-all")
        with gr.Accordion("Paint what is read of this photo", open=False, elem_id="painting"):
            gr.Markdown(CANVAS, **RAW)
            photo = gr.Markdown(elem_id="brushed", **RAW)
            with gr.Row():
                gr.Radio(
                    [("Read", "read"), ("Leave out", "leave out")],
                    value="leave out",
                    label="The brush",
                    interactive=True,
                    min_width=160,
                    elem_id="brush-does",
                )
                gr.Slider(
                    1, 30, 8, step=1, label="Its size", interactive=True, min_width=160, elem_id="brush-size"
                )
            with gr.Row():
                back = gr.Button("Undo", size="sm", elem_id="undo")
                whole = gr.Button("Read all of it", size="sm", elem_id="whole")
        strokes = gr.Textbox(elem_id="strokes", max_length=brush.MAX_MESSAGE)
        self.shown = [photo, strength, find_all]
        changed: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        find.click(self.find, session, [photo, crops], api_visibility="private")
        find_all.click(self.find_all, session, [photo, crops], api_visibility="private")
        back.click(self.undo, session, [photo, crops], trigger_mode="multiple", **changed)
        whole.click(self.read_whole, session, [photo, crops], **changed)
        strokes.change(  # `input` hears keys alone
            self.paint, [strokes, session], [photo, crops], trigger_mode="always_last", **changed
        )
        strength.change(self.count, [strength, session], crops, trigger_mode="always_last", **changed)

    def values(self, session: Session) -> tuple[Any, Any, Any]:
        """Return values for `shown`."""
        photo = session.photo
        strength = gr.skip() if photo is None else photo.strength
        return self._photo(session), strength, gr.Button(visible=len(session.photos) > 1)

    def find(self, session: Session) -> tuple[Any, Any]:
        return self._found(session, [session.photo] if session.photo else [])

    def find_all(self, session: Session) -> tuple[Any, Any]:
        """Find the subject of every photo that has no mask."""
        return self._found(session, [each for each in session.photos if each.mask is None])

    def undo(self, session: Session) -> tuple[Any, Any]:
        if session.photo is not None:
            brush.undo(session.photo)
        return self._changed(session)

    def read_whole(self, session: Session) -> tuple[Any, Any]:
        if session.photo is not None and session.photo.mask is not None:
            brush.set_mask(session.photo, None)
        return self._changed(session)

    def paint(self, message: str, session: Session) -> tuple[Any, Any]:
        if session.photo is not None:
            brush.paint(session.photo, brush.read_strokes(message))
        return self._changed(session)

    def count(self, strength: float, session: Session) -> Any:
        if session.photo is not None:
            session.photo.strength = min(MOST_STRENGTH, max(0.1, strength))
        return self._crops_of(session)

    def _found(self, session: Session, photos: list[Photo]) -> tuple[Any, Any]:
        from jedi_diffusion.vision.subject_mask import subject_masks

        for photo, mask in zip(photos, subject_masks([each.picture for each in photos]), strict=True):
            if mask.any():
                brush.set_mask(photo, Image.fromarray(mask.astype(np.uint8) * 255))
            else:
                gr.Warning(f"No subject was found in {photo.name}: paint it, or read all of it.")
        return self._changed(session)

    def _changed(self, session: Session) -> tuple[Any, Any]:
        return self._photo(session), self._crops_of(session)

    def _photo(self, session: Session) -> str:
        return "" if session.photo is None else under_the_brush(session.photo)


def under_the_brush(photo: Photo) -> str:
    """Return a photo and what its mask leaves out of it, as the script of the page draws them."""
    picture = embedded(photo.picture, SHOWN_SIDE)
    veil = ""
    if photo.mask is not None:
        small = photo.mask.copy()
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BOX)
        over = Image.new("RGBA", small.size, LEFT_OUT)
        over.putalpha(ImageOps.invert(small))
        film = data_uri(png_bytes(over), "png")
        veil = f'<img class="veil" alt="" src="{film}">'
    return (
        f'<span data-photo="{photo.key}" data-painted="{photo.painted}">'
        f'<img class="photo" alt="" src="{picture}">{veil}</span>'
    )
