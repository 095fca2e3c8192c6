"""YAML made strict, and `--set KEY=VALUE` written into it."""

from __future__ import annotations

import typing
from typing import Any

import yaml

from pipeline.errors import JobError


class Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: YAML's own rule, which PyYAML does not hold."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# Bare dates stay text: `date: 2021-06-30` is a setting like any other, and its own parser gives the better message.
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def apply_overrides(raw: dict[str, Any], overrides: typing.Sequence[str]) -> None:
    """Write ``KEY=VALUE`` overrides into a job given as plain values."""
    for override in overrides:
        _override(raw, override)


def _override(raw: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise JobError(f"--set {text}: expected KEY=VALUE, such as --set training.epochs=5")
    *parents, last = key.strip().split(".")
    try:
        # A pattern of dates, %Y%m%d, is text; only a YAML file could begin so, with a directive.
        parsed = value if value.startswith("%") else yaml.load(value, Loader=Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise JobError(f"--set {text}: the value is not valid YAML: {' '.join(str(error).split())}") from error
    node: Any = raw
    for part in parents:
        node = _child(node, part, text)
    if isinstance(node, list):
        node[_index(node, last, text)] = parsed
    else:
        node[last] = parsed


def _child(node: Any, part: str, text: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, text)]
    if node.get(part) is None:
        node[part] = {}
    if not isinstance(node[part], dict | list):
        raise JobError(f"--set {text}: '{part}' holds the value {node[part]!r}, which has no parts to be set")
    return node[part]


def _index(node: list[Any], part: str, text: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise JobError(f"--set {text}: '{part}' must be a number from 0 to {len(node) - 1} (a list stands there)")
    return int(part)
