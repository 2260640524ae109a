"""Inputs of nodes for the settings of `Sampling`, and back: each is declared there, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy_api.latest import io

from jedi_diffusion.options import OF_MODEL, Sampling, read

OWN = "the model's own"
MAIN = ("steps", "guidance", "guidance_mode", "image_guidance", "negative_prompt")
"""Settings that stand on the nodes that sample; the others have a node of their own."""
OTHERS = tuple(name for name in Sampling.model_fields if name not in MAIN)


def inputs_of(names: Iterable[str]) -> list[io.Input]:
    """Return an input for each setting, with its range, default and meaning."""
    known = Sampling.model_json_schema()["properties"]
    return [_input_of(name, known[name]) for name in names]


def _input_of(name: str, said: Mapping[str, Any]) -> io.Input:
    kinds = said.get("anyOf", [said])
    kind = next(each for each in kinds if each.get("type") != "null")
    is_open, text = _is_open(name), said["description"]
    if "enum" in kind:
        options = [OWN, *kind["enum"]] if is_open else kind["enum"]
        return io.Combo.Input(name, options=options, default=options[0], tooltip=text)
    if kind["type"] == "boolean":
        return io.Boolean.Input(name, default=said["default"], tooltip=text)
    if kind["type"] == "string":
        return io.String.Input(name, default=said.get("default") or "", tooltip=text)
    least = kind["minimum"] - is_open
    bounds = {"min": least, "max": kind["maximum"], "default": least if is_open else said["default"]}
    tooltip = f"{text} {least}: {OWN}." if is_open else text
    if kind["type"] == "integer":
        return io.Int.Input(name, tooltip=tooltip, **bounds)
    return io.Float.Input(name, tooltip=tooltip, step=0.05, **bounds)


def _is_open(name: str) -> bool:
    """Return whether a setting may be left to the model."""
    return name in OF_MODEL or Sampling.model_fields[name].default is None


def sampling_of(own: Sampling, values: Mapping[str, Any]) -> Sampling:
    """Return the settings that nodes have, over a model's own. Raises UsageError."""
    known = Sampling.model_json_schema()["properties"]
    given = {name: value for name, value in values.items() if not _left_open(name, known[name], value)}
    return read(Sampling, own.sampling() | given)


def _left_open(name: str, said: Mapping[str, Any], value: Any) -> bool:
    if not _is_open(name):
        return False
    if isinstance(value, str):
        return value in ("", OWN)
    return bool(value < next(each["minimum"] for each in said.get("anyOf", [said]) if "minimum" in each))
