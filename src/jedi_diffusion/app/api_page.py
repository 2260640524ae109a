"""The API's description as a plain HTML page, without scripts, fonts or anything else from outside."""

from __future__ import annotations

from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2rem; } code { font-size: 0.95em; }
div.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; }
tr { border-bottom: 1px solid #8884; }
"""


def api_page(schema: dict[str, Any]) -> str:
    """Return HTML for an OpenAPI schema: every operation, its fields and its answers."""
    parts = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>{_operation(operation)}"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    title, about = escape(schema["info"]["title"]), escape(schema["info"].get("description", ""))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main><h1>{title}</h1>"
        f'<p>{about} For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _operation(operation: dict[str, Any]) -> str:
    rows = [(each["name"], each["schema"], f"in {each['in']}") for each in operation.get("parameters", ())]
    body = ""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema, body = content["schema"], f"<p>Body: <code>{escape(kind)}</code></p>"
        needed = schema.get("required", ())
        rows += [(n, each, "required" if n in needed else "") for n, each in schema["properties"].items()]
    answers = "; ".join(f"{status}: {each['description']}" for status, each in operation["responses"].items())
    about = escape(operation.get("description", ""))
    return f"<p>{about}</p>{body}{_table(rows)}<p><small>{escape(answers)}</small></p>"


def _table(rows: list[tuple[str, dict[str, Any], str]]) -> str:
    if not rows:
        return ""
    cells = [
        f"<tr><th scope='row'><code>{escape(name)}</code></th><td>{escape(_kind(schema))}</td>"
        f"<td>{escape(schema.get('description', ''))} {note}</td></tr>"
        for name, schema, note in rows
    ]
    head = "<tr><th scope='col'>field</th><th scope='col'>values</th><th scope='col'></th></tr>"
    return f"<div class='table'><table>{head}{''.join(cells)}</table></div>"


def _kind(schema: dict[str, Any]) -> str:
    """Return a schema in a few words: "integer 1 to 16, default 1"."""
    options = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    core = schema | (options[0] if options else {})
    words = (
        "|".join(map(str, core["enum"])) if "enum" in core else str(core.get("const", core.get("type", "")))
    )
    low, high = core.get("minimum", core.get("exclusiveMinimum")), core.get("maximum")
    if low is not None and high is not None:
        words += f" {low:g} to {high:g}"
    default = schema.get("default")
    return f"{words}, default {default}" if default is not None else words
