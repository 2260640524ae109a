"""Command lines read into checked settings."""

from __future__ import annotations

from typing import TypeVar, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from jedi_diffusion.options import Settings, as_option, read

Given = TypeVar("Given", bound=Settings)


def parsed(kind: type[Given], arguments: list[str], prog: str, default: Given | None = None) -> Given:
    """Return the settings on a command line, over those of `default`. Raises UsageError for a wrong value.

    tyro reads the words only; what is wrong with a value is said by the model, as it is everywhere.
    """

    def values(**read: object) -> dict[str, object]:
        return read

    def fields_of(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type is not kind:
            return None
        hints = get_type_hints(kind, include_extras=True)
        fields = []
        for name, field in kind.model_fields.items():
            usual = tyro.MISSING_NONPROP if field.is_required() else field.default
            usual = usual if default is None else getattr(default, name)
            fields.append(StructFieldSpec(name, hints[name], usual, field.description))
        values.__doc__ = kind.__doc__
        return StructConstructorSpec(values, tuple(fields))

    registry = ConstructorRegistry()
    registry.struct_rule(fields_of)
    with registry:
        given: object = tyro.cli(kind, args=arguments, prog=prog)
    return read(kind, given, as_option)
