"""The job file as text: commented YAML, a Markdown reference and a JSON schema, all from the fields themselves."""

from __future__ import annotations

import json
import textwrap
import types
import typing
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workflows.faults import model_in
from workflows.job import Job
from workflows.settings import ModelSettings

_WIDTH = 110


def schema() -> str:
    """Return the JSON schema of the job file, the settings of every network included."""
    from models.table import NETWORKS, network_class

    document = Job.model_json_schema(by_alias=True)
    document["title"] = "landweave job"
    networks = []
    for name in NETWORKS:
        own = network_class(name).Settings.model_json_schema()
        # A network's own definitions move to the document's, where its references point.
        document["$defs"].update(own.pop("$defs", {}))
        own["title"] = name
        own["properties"] = {"name": {"const": name}} | own.get("properties", {})
        networks.append(own)
    document["$defs"]["ModelSettings"] = {"description": (ModelSettings.__doc__ or "").strip(), "anyOf": networks}
    return json.dumps(document, indent=2)


def commented(values: dict[str, Any]) -> str:
    """Return a job file with a comment above each key; what is not in ``values`` stands commented out.

    Parameters
    ----------
    values : dict
        The part of the job that is to be set, as plain values.
    """
    from models.table import network_class

    lines = ["# landweave job. Uncomment what you want to change: the values shown are the defaults.", ""]
    name = values.get("model", {}).get("name", "unet")
    for key, field in Job.model_fields.items():
        lines += _entry(key, field, values, 0)
        if key == "model":
            own = network_class(name).Settings
            lines += _body(own, {k: v for k, v in values.get("model", {}).items() if k != "name"}, 1)
        lines.append("")
    return "\n".join(lines)


def _entry(key: str, field: FieldInfo, values: dict[str, Any], depth: int) -> list[str]:
    indent = "  " * depth
    key = field.alias or key
    lines = textwrap.wrap(
        field.description or "", _WIDTH - len(indent), initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )
    section = model_in(field.annotation)
    given = values.get(key)
    many = typing.get_origin(_plain(field.annotation)) is list
    if section is not None and isinstance(given, list) and many:
        lines.append(f"{indent}{key}:")
        for item in given:
            body = _body(section, item, depth + 2)
            lines += _dashed(body, depth + 1)
    elif section is not None and not many and (given is not None or not _optional(field)):
        lines.append(f"{indent}{key}:")
        lines += _body(section, given or {}, depth + 1)
    elif given is not None:
        lines.append(f"{indent}{key}: {_flow(given)}")
    else:
        default = field.get_default(call_default_factory=True)
        shown = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        lines.append(f"{indent}# {key}: {_flow(shown)}".rstrip())
    return lines


def _body(section: type[BaseModel], values: dict[str, Any], depth: int) -> list[str]:
    return [line for key, field in section.model_fields.items() for line in _entry(key, field, values, depth)]


def _dashed(body: list[str], depth: int) -> list[str]:
    """Turn the first real key of a body into the first line of a list item."""
    first = next(i for i, line in enumerate(body) if not line.lstrip().startswith("#"))
    line = body[first]
    start = "  " * depth
    return [*body[:first], f"{start}- {line.lstrip()}", *body[first + 1 :]]


def _optional(field: FieldInfo) -> bool:
    return type(None) in typing.get_args(field.annotation)


def _plain(annotation: Any) -> Any:
    """Strip None from a union."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(annotation) if a is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def reference() -> str:
    """Return the job file's reference in Markdown: every key, its type, its default and what it means."""
    from models.table import NETWORKS, network_class

    lines = [
        "# The job file",
        "",
        "Made from the fields themselves by `make docs`; do not edit. `landweave init` writes a job file with these",
        "sentences as comments, `landweave schema` prints the JSON schema that editors understand.",
        "",
    ]
    lines += _table("The job", Job)
    done: set[type[BaseModel]] = {Job}
    waiting: list[tuple[str, type[BaseModel]]] = _sections("", Job)
    while waiting:
        place, section = waiting.pop(0)
        if section in done:
            continue
        done.add(section)
        lines += _table(f"`{place}`", section)
        waiting = _sections(place, section) + waiting
    for name in NETWORKS:
        lines += _table(f"`model`, `name: {name}`", network_class(name).Settings)
    return "\n".join(lines)


def _sections(place: str, section: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    found = []
    for key, field in section.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None:
            found.append((f"{place}.{field.alias or key}".lstrip("."), inner))
    return found


def _table(title: str, section: type[BaseModel]) -> list[str]:
    lines = [
        f"## {title}",
        "",
        (section.__doc__ or "").strip().split("\n")[0],
        "",
        "| key | type | default | meaning |",
    ]
    lines.append("|---|---|---|---|")
    for key, field in section.model_fields.items():
        default = "required" if field.is_required() else _shown(field)
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{field.alias or key}` | {_type(field.annotation)} | {default} | {meaning} |")
    return [*lines, ""]


def _shown(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "below"
    return "" if default is None or default == "" else f"`{_flow(default)}`"


def _type(annotation: Any) -> str:
    inner = model_in(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " \\| ".join(f"`{a}`" for a in typing.get_args(annotation))
    if origin is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return " \\| ".join(_type(a) for a in typing.get_args(annotation) if a is not type(None))
    if origin is list:
        return f"list of {_type(typing.get_args(annotation)[0])}"
    if origin is tuple:
        return ", ".join(_type(a) for a in typing.get_args(annotation))
    if origin is dict:
        return "mapping"
    return "section" if inner else {str: "text", int: "integer", float: "number", bool: "yes / no"}.get(annotation, "")


if __name__ == "__main__":
    import sys
    from pathlib import Path

    Path(sys.argv[1]).write_text(reference() + "\n", encoding="utf-8")
