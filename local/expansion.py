"""Expand a built bundle to plain CloudFormation, which CloudFormation itself does on AWS and the emulator cannot.

Loops are written out (`local.loops`), and AWS's own translator turns ``AWS::Serverless`` into what it stands for.
Artifacts stay local files, for ``sam deploy`` to upload; layers become archives here, once for each content, since the
SAM CLI would pack them anew at each deployment.
"""

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from samtranslator.internal.managed_policies import get_bundled_managed_policy_map
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from local.loops import expand_loops

REGION: Final = "us-east-1"  # the translator asks for one; none of it is in its answer
PLACEHOLDER: Final = "local-files"  # stands for the bucket in which the translator wants to find local artifacts
ARTIFACTS: Final = ("CodeUri", "ContentUri", "DefinitionUri")


class _BundledPolicies:
    """AWS's managed policies by name, from the translator's own list instead of a call to IAM."""

    def load(self) -> dict[str, str]:
        return get_bundled_managed_policy_map("aws") or {}


def expand_template(path: Path) -> dict[str, Any]:
    """The plain form of one template, built or not, whose artifacts are local files; nested ones stay as they are."""
    template = expand_loops(yaml_parse(path.read_text()))
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        for name in ARTIFACTS:
            if isinstance(properties.get(name), str):
                artifact = (path.parent / properties[name]).resolve()
                properties[name] = {"Bucket": PLACEHOLDER, "Key": str(artifact)}
    os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # it warns of metrics that it has not sent to anybody
    plain: dict[str, Any] = transform(template, {"AWS::Region": REGION}, _BundledPolicies())
    plain.pop("Transform", None)
    for resource in plain["Resources"].values():
        _take_back(resource.get("Properties", {}))
    return plain


def expand_bundle(built: Path, expanded: Path) -> None:
    """Expand the root template in one folder and all nested ones into another, ready for ``sam deploy``."""
    archives = expanded.parent / "layers"
    archives.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(expanded, ignore_errors=True)
    expanded.mkdir()
    used = set(_write(built / "template.yaml", expanded / "template.json", archives))
    for old in set(archives.iterdir()) - used:
        old.unlink()


def _write(template: Path, target: Path, archives: Path) -> Iterator[Path]:
    """Write a template's plain form and those of its nested ones. Yields the archives of their layers."""
    plain = expand_template(template)
    for resource in plain["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::CloudFormation::Stack":
            nested = template.parent / properties["TemplateURL"]
            properties["TemplateURL"] = f"{nested.parent.name}.json"
            yield from _write(nested, target.parent / properties["TemplateURL"], archives)
        elif resource["Type"] == "AWS::Lambda::LayerVersion":
            archive = _pack(Path(properties["Content"]), archives)
            properties["Content"] = str(archive)
            yield archive
    target.write_text(json.dumps(plain, indent=1))


def _take_back(properties: dict[str, Any]) -> None:
    """Put local files where the translator was told of the placeholder bucket."""
    for name in ("Code", "Content"):
        if isinstance(properties.get(name), dict) and properties[name].get("S3Bucket") == PLACEHOLDER:
            properties[name] = properties[name]["S3Key"]
    definition = properties.get("DefinitionS3Location")
    if definition and definition["Bucket"] == PLACEHOLDER:
        del properties["DefinitionS3Location"]
        properties["DefinitionString"] = json.dumps(yaml_parse(Path(definition["Key"]).read_text()))


def _pack(layer: Path, archives: Path) -> Path:
    """The archive of a layer, made unless there is one of the same content. It stays here, so it is not compressed."""
    files = sorted(path for path in layer.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(layer)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    archive = archives / f"{layer.name}-{digest.hexdigest()[:16]}.zip"
    if not archive.exists():
        unfinished = archive.with_suffix(f".{os.getpid()}")
        with zipfile.ZipFile(unfinished, "w", strict_timestamps=False) as packed:
            for path in files:
                packed.write(path, path.relative_to(layer))
        unfinished.replace(archive)
    return archive
