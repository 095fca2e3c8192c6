"""What is wrong with a job file, in words: the place, what was found, what is allowed."""

from __future__ import annotations

import re
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.errors import nearest


def explain(error: ValidationError, raw: Any, model: type[BaseModel], where: str, prefix: str = "") -> str:
    """Return one message for all faults pydantic found: the place, what was found, what is allowed."""
    lines: dict[str, list[str]] = {}
    for fault in error.errors():
        place, parent = _place(fault["loc"], raw, model)
        if fault["type"] == "extra_forbidden":
            allowed = [f.alias or n for n, f in parent.model_fields.items()] if parent else []
            text = f"unknown key{nearest(str(fault['loc'][-1]), allowed)} Allowed here: {', '.join(allowed)}"
        elif fault["type"] == "missing":
            text = "this is required and missing"
        elif fault["type"] == "literal_error":
            allowed = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
            hint = nearest(str(fault["input"]), allowed) or "."
            text = f"found {fault['input']!r}{hint} Allowed: {', '.join(allowed)}"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            text = message if "found" in message else f"{message}; found {fault['input']!r}"
        lines.setdefault(prefix + place, []).append(text)
    body = [f"  {place}: {' - or: '.join(dict.fromkeys(texts))}" for place, texts in lines.items()]
    return "\n".join([f"{where} is not a valid job:", *body])


def _place(loc: tuple[int | str, ...], raw: Any, model: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """Return the dotted place of a fault, and the section in which it lies."""
    names: list[str] = []
    section: type[BaseModel] | None = model
    holder: type[BaseModel] | None = model
    node = raw
    for part in loc:
        # pydantic adds the branch of a union ("str", "list[str]") to the place; only keys of the file are kept.
        inside = isinstance(node, list) and isinstance(part, int)
        known = isinstance(node, dict) and (part in node or (section is not None and part in _keys(section)))
        if not inside and not known:
            continue
        names.append(str(part))
        holder = section
        if isinstance(node, dict):
            section = _section(section, str(part))
            node = node.get(part)
        elif isinstance(part, int):
            # A list that is too short has no such entry.
            node = node[part] if part < len(node) else None
    return ".".join(names) or "job", holder


def _keys(section: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in section.model_fields.items()}


def _section(section: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """Return the model of the section under ``key``, looking through Optional and list."""
    for name, field in (section.model_fields if section else {}).items():
        if key == (field.alias or name):
            return model_in(field.annotation)
    return None


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class inside an annotation such as ``list[X] | None``, or None."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((m for m in map(model_in, typing.get_args(annotation)) if m), None)


def without_empty(raw: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return plain values without sections that hold nothing: `training:` with all its keys commented out is its default."""
    kept = {}
    for key, value in raw.items():
        section = _section(model, key)
        field = next((f for n, f in model.model_fields.items() if key == (f.alias or n)), None)
        if value is None and section and field and type(None) not in typing.get_args(field.annotation):
            continue
        kept[key] = without_empty(value, section) if section and isinstance(value, dict) else value
    return kept
