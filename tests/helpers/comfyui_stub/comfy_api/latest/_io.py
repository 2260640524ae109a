"""Types of inputs and outputs, and the base class of nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Input:
    """options: what the page is told of it."""

    io_type = ""

    def __init__(self, id: str, optional: bool = False, tooltip: str | None = None, **options: Any) -> None:
        self.id, self.optional = id, optional
        self.options = {"tooltip": tooltip, **options}


class Output:
    io_type = ""

    def __init__(
        self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None
    ) -> None:
        self.id, self.display_name, self.tooltip = id, display_name, tooltip


def _kind(name: str, takes: tuple[str, ...] = ()) -> type[Any]:
    """Return a type whose input takes these options beside an id, `optional` and a tooltip."""

    class Own(Input):
        io_type = name

        def __init__(
            self, id: str, optional: bool = False, tooltip: str | None = None, **options: Any
        ) -> None:
            assert options.keys() <= set(takes), f"{name} takes no {options.keys() - set(takes)}"
            super().__init__(id, optional, tooltip, **options)

    return type(
        name,
        (),
        {
            "io_type": name,
            "TAKES": takes,
            "Input": Own,
            "Output": type("Output", (Output,), {"io_type": name}),
        },
    )


def Custom(io_type: str) -> type[Any]:  # noqa: N802  # ComfyUI's name
    return _kind(io_type)


_NUMBER = ("default", "min", "max", "step")
Image, Mask = _kind("IMAGE"), _kind("MASK")
Boolean, String = _kind("BOOLEAN", ("default",)), _kind("STRING", ("default", "multiline"))
Int, Float = _kind("INT", (*_NUMBER, "control_after_generate")), _kind("FLOAT", _NUMBER)
Combo = _kind("COMBO", ("options", "default"))


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None) -> None:
        self.args, self.ui = args, ui


class ComfyNode:
    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def execute(cls, **kwargs: Any) -> NodeOutput:
        raise NotImplementedError
