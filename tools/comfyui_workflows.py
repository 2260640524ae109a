"""Write the example workflows of the ComfyUI package, as ComfyUI saves them, and the photos that they read.

    .venv/bin/python tools/comfyui_workflows.py

The widgets of a node are saved by place, so a node with a new input needs its workflows written anew. The
pictures beside them are screenshots of ComfyUI after it has run them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from jedi_toybox import world

PACKAGE = Path(__file__).resolve().parents[1] / "integrations" / "comfyui"
WORKFLOWS = PACKAGE / "example_workflows"
PHOTOS = WORKFLOWS / "input"
MODEL, REFERENCES, SETTINGS = "JEDI_MODEL", "JEDI_REFERENCES", "JEDI_SETTINGS"
SEED, SIDE = 3, 256
"""Of the subject, and of its photos in pixels."""
OWN = "the model's own"
GUIDED = [0, -1, OWN, -1, ""]
"""Steps, guidance, its mode, image guidance and negative prompt: all the model's own."""


class Node(NamedTuple):
    """kind: its class; place: of its left upper corner; widgets: their values in order; inputs: name, type,
    and the node (by name) and output that it is linked to; outputs: name and type."""

    kind: str
    place: tuple[int, int]
    size: tuple[int, int]
    widgets: Sequence[Any] = ()
    inputs: Sequence[tuple[str, str, str, int]] = ()
    outputs: Sequence[tuple[str, str]] = ()


def workflow(nodes: dict[str, Node]) -> dict[str, Any]:
    """Return the graph in ComfyUI's format 0.4."""
    numbers = {name: place for place, name in enumerate(nodes, start=1)}
    links: list[list[Any]] = []
    made: list[dict[str, Any]] = []
    for name, node in nodes.items():
        inputs = []
        for place, (called, kind, source, output) in enumerate(node.inputs):
            links.append([len(links) + 1, numbers[source], output, numbers[name], place, kind])
            inputs.append({"name": called, "type": kind, "link": len(links)})
        made.append(
            {
                "id": numbers[name],
                "type": node.kind,
                "pos": list(node.place),
                "size": list(node.size),
                "flags": {},
                "order": numbers[name] - 1,
                "mode": 0,
                "inputs": inputs,
                "outputs": [{"name": called, "type": kind, "links": []} for called, kind in node.outputs],
                "properties": {"Node name for S&R": node.kind},
                "widgets_values": list(node.widgets),
            }
        )
    for number, source, output, *_ in links:
        made[source - 1]["outputs"][output]["links"].append(number)
    return {
        "last_node_id": len(made),
        "last_link_id": len(links),
        "nodes": made,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def load_model(place: tuple[int, int]) -> Node:
    return Node(
        "JediLoadModel",
        place,
        (320, 130),
        ["toybox (bundled)", "", "auto"],
        outputs=[("joint model", MODEL), ("about", "STRING")],
    )


def load_image(name: str, place: tuple[int, int]) -> Node:
    return Node(
        "LoadImage", place, (320, 314), [name, "image"], outputs=[("IMAGE", "IMAGE"), ("MASK", "MASK")]
    )


def reference(
    place: tuple[int, int], caption: str, strength: float, inputs: list[tuple[str, str, str, int]]
) -> Node:
    return Node("JediReference", place, (300, 150), [caption, strength], inputs, [("references", REFERENCES)])


def generate(
    place: tuple[int, int],
    prompts: str,
    images: int,
    inputs: list[tuple[str, str, str, int]],
    guided: list[Any] = GUIDED,
) -> Node:
    widgets = [prompts, 1, "fixed", images, *guided, False, 0, 0, 4, True]
    linked = [("joint_model", MODEL, "model", 0), *inputs]
    return Node("JediGenerate", place, (360, 620), widgets, linked, [("images", "IMAGE")])


def new_scenes() -> dict[str, Node]:
    """Return one with a photo, and its subject in four new scenes."""
    prompts = "a robot on the beach\na robot in the snow\na robot in the forest\na robot in the desert"
    return {
        "model": load_model((40, 40)),
        "photo": load_image("jedi_robot.png", (40, 230)),
        "reference": reference((420, 230), "a robot", 1.0, [("image", "IMAGE", "photo", 0)]),
        "generate": generate((780, 40), prompts, 1, [("references", REFERENCES, "reference", 0)]),
        "save": Node("SaveImage", (1200, 40), (420, 460), ["jedi"], [("images", "IMAGE", "generate", 0)]),
    }


def masked_references() -> dict[str, Node]:
    """Return one with a masked photo that counts more, a second one, and guidance in two stages."""
    cut = [("image", "IMAGE", "photo", 0), ("mask", "MASK", "subject", 0)]
    chained = [("image", "IMAGE", "second", 0), ("references", REFERENCES, "masked", 0)]
    read = [("references", REFERENCES, "both", 0), ("settings", SETTINGS, "more", 0)]
    more = [-1, False, 0, 1, 0, 1, "all", False, "white", "cached", OWN, -1]
    staged = [25, 3, "text_first", 4, ""]
    return {
        "model": load_model((40, 40)),
        "photo": load_image("jedi_robot_cut_out.png", (40, 230)),
        "second": load_image("jedi_robot.png", (40, 600)),
        "subject": Node(
            "InvertMask", (420, 330), (220, 30), [], [("mask", "MASK", "photo", 1)], [("MASK", "MASK")]
        ),
        "masked": reference((420, 420), "a robot", 1.5, cut),
        "both": reference((420, 640), "a robot", 1.0, chained),
        "more": Node("JediSettings", (780, 740), (360, 330), more, [], [("settings", SETTINGS)]),
        "generate": generate((780, 40), "a robot on the beach\na robot in the snow", 2, read, staged),
        "preview": Node("PreviewImage", (1200, 40), (420, 460), [], [("images", "IMAGE", "generate", 0)]),
    }


def attention_and_score() -> dict[str, Node]:
    """Return one of where a point of a new picture looks in its reference, and of how like it that is."""
    given = [("joint_model", MODEL, "model", 0), ("references", REFERENCES, "reference", 0)]
    asked = ["a robot on the beach", 1, "fixed", 0.5, 0.35, *GUIDED]
    return {
        "model": load_model((40, 40)),
        "photo": load_image("jedi_robot.png", (40, 230)),
        "reference": reference((420, 230), "a robot", 1.0, [("image", "IMAGE", "photo", 0)]),
        "map": Node(
            "JediAttentionMap", (780, 40), (360, 380), asked, given, [("image", "IMAGE"), ("figure", "IMAGE")]
        ),
        "figure": Node("PreviewImage", (1200, 40), (620, 460), [], [("images", "IMAGE", "map", 1)]),
        "score": Node(
            "JediScore",
            (780, 480),
            (360, 200),
            ["toybox (bundled)", "a robot on the beach"],
            [("images", "IMAGE", "map", 0), ("references", REFERENCES, "reference", 0)],
            [("identity", "FLOAT"), ("table", "STRING")],
        ),
        "table": Node("PreviewAny", (1200, 560), (420, 160), [None, None], [("source", "*", "score", 1)]),
    }


def photos() -> dict[str, Image.Image]:
    """Return the photos that the workflows read: a robot of the toybox in two views, one cut out."""
    subject = world.sample_subject(SEED, split="held_out", noun="robot")
    specs = [world.sample_picture(subject, view, style="", attribute="") for view in (0, 1)]
    drawn = world.render(specs, SIDE)
    whole, other = (Image.fromarray(each.permute(1, 2, 0).numpy()) for each in drawn.pictures)
    other.putalpha(Image.fromarray(drawn.masks[1].numpy().astype("uint8") * 255))
    return {"jedi_robot.png": whole, "jedi_robot_cut_out.png": other}


def main() -> None:
    """Write workflows and photos."""
    PHOTOS.mkdir(parents=True, exist_ok=True)
    for name, photo in photos().items():
        photo.save(PHOTOS / name)
    for make in (new_scenes, masked_references, attention_and_score):
        text = json.dumps(workflow(make()), indent=2)
        (WORKFLOWS / f"{make.__name__}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
