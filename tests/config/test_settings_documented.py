"""docs/settings.md names every variable there is, where it belongs and with its default, and no other."""

import ast
import re
from decimal import Decimal, InvalidOperation

from config.environment import PROVIDER_KEYS, setting_names
from config.home import ROOT

PAGE = (ROOT / "docs" / "settings.md").read_text()
SETTINGS = (ROOT / "config" / "settings.py").read_text()
APPS = ("accounts", "billing", "catalog", "config", "gateway", "keys", "usage")
# The machine's own: one is looked up to find programs, the other decides where sockets lie.
OF_THE_MACHINE = {"PATH", "TMPDIR"}


def read_outside_the_settings() -> set[str]:
    """What the launcher and the commands read from the environment by themselves."""
    read = re.compile(r'environ(?:\.get\(|\[)\s*"([A-Z][A-Z0-9_]+)"')
    sources = [path for app in APPS for path in (ROOT / app).rglob("*.py")]
    return {name for path in sources for name in read.findall(path.read_text())} - OF_THE_MACHINE


def rows() -> dict[str, tuple[str, list[str]]]:
    """Heading and further cells by variable, of every table row that explains one."""
    found: dict[str, tuple[str, list[str]]] = {}
    heading = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif match := re.match(r"\| `([A-Z][A-Z0-9_]+)` \|(.*)\|$", line):
            assert match[1] not in found, f"{match[1]} is explained twice"
            found[match[1]] = (heading, [cell.strip() for cell in match[2].split("|")])
    return found


def test_every_variable_is_explained() -> None:
    assert setting_names() | read_outside_the_settings() == set(rows())


def test_no_variable_is_named_that_does_not_exist() -> None:
    known = setting_names() | read_outside_the_settings() | OF_THE_MACHINE
    # `INFO`, `PG` and the like are words without an underscore that are no variables.
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", PAGE))

    assert named <= known


def test_a_variable_is_explained_in_the_section_where_it_is_read() -> None:
    explained = rows()
    section = ""
    for line in SETTINGS.splitlines():
        if match := re.match(r"# --- (.+?) -+$", line):
            section = match[1]
        for name in re.findall(r'env(?:\.\w+)?\(\s*"([A-Z0-9_]+)"', line):
            assert explained[name][0] == section, name


def test_defaults_are_those_of_the_settings() -> None:
    explained = rows()
    checked = 0
    for call in ast.walk(ast.parse(SETTINGS)):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).startswith("env.")):
            continue
        name = ast.literal_eval(call.args[0])
        default = next((word.value for word in call.keywords if word.arg == "default"), None)
        value = _constant(default)
        if not value:
            continue  # "none", "empty" and "0" need no comparison
        checked += 1
        cell = explained[name][1][0]
        assert _same(cell, value), f"{name}: the page says {cell}, the settings say {value}"

    assert checked > 10


def test_provider_keys_are_those_of_the_catalogue_that_ships() -> None:
    shipped = re.findall(r'"key_env": "([A-Z_]+)"', (ROOT / "catalog" / "catalogue.json").read_text())

    assert sorted(shipped) == sorted(PROVIDER_KEYS)


def _constant(node: ast.expr | None) -> object:
    """The value of a default that is written out; None for one that depends on something."""
    if node is None or any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node)):
        return None
    return eval(compile(ast.Expression(node), "settings.py", "eval"))  # noqa: S307 - our own arithmetic


def _same(cell: str, value: object) -> bool:
    try:
        return Decimal(cell) == Decimal(str(value))
    except InvalidOperation:
        return f"`{value}`" in cell
