"""Expands the `Fn::ForEach` loops of a template, as CloudFormation's `AWS::LanguageExtensions` transform does.

The SAM CLI has an expansion of its own, but it also resolves every `Fn::Sub` as far as it can and forgets that the rest
was one, so that what it returns cannot be deployed. The emulator has one too, but not for nested stacks. This one knows
what the project's templates use: the identifier in keys, in `Fn::Sub`, in `Ref`, and in `Ref` and `Fn::GetAtt` by way
of `Fn::Sub`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

LOOP = "Fn::ForEach::"
TRANSFORM = "AWS::LanguageExtensions"


def expand_loops(template: Mapping[str, Any]) -> dict[str, Any]:
    """The template with its loops written out and the transform dropped.

    Raises:
        ValueError: a loop yields a logical id that is there already.
    """
    transforms = template.get("Transform", [])
    rest = [t for t in ([transforms] if isinstance(transforms, str) else transforms) if t != TRANSFORM]
    return {**template, "Transform": rest, "Resources": _expand_keys(template["Resources"])}


def _expand_keys(section: Mapping[str, Any]) -> dict[str, Any]:
    expanded: dict[str, Any] = {}
    for key, value in section.items():
        for name, body in _members(key, value):
            if name in expanded:
                raise ValueError(f"{key}: {name} is declared twice")
            expanded[name] = body
    return expanded


def _members(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not key.startswith(LOOP):
        yield key, value
        return
    identifier, items, fragment = value
    for item in items:
        for name, body in fragment.items():
            yield name.replace(f"${{{identifier}}}", item), _substituted(body, identifier, item)


def _substituted(node: Any, identifier: str, item: str) -> Any:
    if isinstance(node, list):
        return [_substituted(child, identifier, item) for child in node]
    if not isinstance(node, Mapping):
        return node
    if node == {"Ref": identifier}:
        return item
    if "Fn::Sub" in node:
        return {"Fn::Sub": _filled_in(node["Fn::Sub"], identifier, item)}
    replaced = {key: _substituted(value, identifier, item) for key, value in node.items()}
    if "Ref" in replaced:
        return {"Ref": _literal(replaced["Ref"])}
    if "Fn::GetAtt" in replaced:
        return {"Fn::GetAtt": [_literal(part) for part in replaced["Fn::GetAtt"]]}
    return replaced


def _filled_in(argument: Any, identifier: str, item: str) -> Any:
    if isinstance(argument, str):
        return argument.replace(f"${{{identifier}}}", item)
    text, variables = argument
    return [_filled_in(text, identifier, item), _substituted(variables, identifier, item)]


def _literal(name: Any) -> Any:
    """`{"Fn::Sub": "DriveCopyQueue"}` is a name by now, and stands where only a name may stand."""
    return name["Fn::Sub"] if isinstance(name, Mapping) and "Fn::Sub" in name else name
