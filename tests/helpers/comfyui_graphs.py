"""Workflows as ComfyUI's page saves them, turned into what its server executes."""

from collections.abc import Callable, Mapping
from typing import Any

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
Inputs = Mapping[str, tuple[Any, Mapping[str, Any]]]
"""Type and options of each input of a node, in order."""


def to_prompt(workflow: Mapping[str, Any], inputs_of: Callable[[str], Inputs]) -> dict[str, Any]:
    """Return the prompt of a workflow, as the page makes it: links, and the values of widgets by place.

    inputs_of: the inputs of a class of nodes, required ones first.
    """
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        linked = {each["name"]: sources[each["link"]] for each in node["inputs"] if each["link"] is not None}
        values, known = iter(node["widgets_values"]), inputs_of(node["type"])
        assert linked.keys() <= known.keys(), node["type"]
        read = {}
        for name, (kind, options) in known.items():
            if name not in linked and (isinstance(kind, list) or kind in WIDGETS):
                read[name] = next(values)
                if options.get("control_after_generate") or options.get("image_upload"):
                    next(values)
        left = [value for value in values if value is not None]
        assert not left, f"{node['type']} has no input for {left}"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": {**linked, **read}}
    return prompt
