"""The environment variables that an instance's processes get. Standard library only."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from config.command_line import DEFAULT_HOST
from config.home import ROOT, Home
from config.refusal import Refused

# One of these, and the models are served by real providers: then the sandbox upstream stays off.
PROVIDER_KEYS = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "DEEPSEEK_API_KEY",
    "DASHSCOPE_API_KEY",
    "MINIMAX_API_KEY",
    "MOONSHOT_API_KEY",
    "ZAI_API_KEY",
)
_EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True)
class Needs:
    """What the environment leaves to us. An empty variable counts as not set."""

    postgres: bool
    redis: bool
    sandbox: bool

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Needs":
        """Read which parts an environment replaces."""
        return cls(
            postgres=not environ.get("DATABASE_URL"),
            redis=not environ.get("REDIS_URL"),
            sandbox=not environ.get("SANDBOX_UPSTREAM_URL")
            and not any(environ.get(name) for name in PROVIDER_KEYS),
        )


def identity(environ: Mapping[str, str], home: Home, *, has_data: bool) -> dict[str, str]:
    """SECRET_KEY, KEY_PEPPERS and TOLLGATE_EMBEDDED.

    Embedded mode makes its own secrets. Whoever brings a database brings the secrets that belong to it, since a
    database outlives the folder we would keep them in.

    Raises:
        Refused: DATABASE_URL without SECRET_KEY or KEY_PEPPERS.
    """
    if Needs.of(environ).postgres:
        made = home.secrets(has_data=has_data)
        given = {name: environ[name] for name in made if environ.get(name)}
        return {**made, **given, "TOLLGATE_EMBEDDED": "1"}
    missing = [name for name in ("SECRET_KEY", "KEY_PEPPERS") if not environ.get(name)]
    if missing:
        raise Refused(
            f"DATABASE_URL is set, so {' and '.join(missing)} must be set as well: see docs/settings.md"
        )
    return {
        "SECRET_KEY": environ["SECRET_KEY"],
        "KEY_PEPPERS": environ["KEY_PEPPERS"],
        "TOLLGATE_EMBEDDED": "0",
    }


def allowed_hosts(environ: Mapping[str, str], *, host: str = DEFAULT_HOST) -> str:
    """Names that a browser may call us by: the operator's choice, or those that follow from where we listen."""
    if environ.get("ALLOWED_HOSTS"):
        return environ["ALLOWED_HOSTS"]
    names = ["localhost", "127.0.0.1", "[::1]"]
    if host in _EVERY_ADDRESS:
        names.append(socket.gethostname())
    else:
        names.append(f"[{host}]" if ":" in host else host)
    if public_name := urlsplit(environ.get("PUBLIC_URL", "")).hostname:
        names.append(public_name)
    return ",".join(dict.fromkeys(names))


def for_children(environ: Mapping[str, str], additions: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a child.

    libpq reads PGPORT, PGSSLMODE and others wherever a connection string is silent; on our own socket they could only
    do harm.
    """
    inherited = dict(environ)
    if Needs.of(environ).postgres:
        inherited = {name: value for name, value in inherited.items() if not re.fullmatch(r"PG[A-Z]+", name)}
    return {**inherited, "PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "config.settings", **additions}


def for_manage(environ: Mapping[str, str], additions: Mapping[str, str]) -> dict[str, str]:
    """What a command needs to see the instance as the instance sees itself."""
    return {**{name: environ[name] for name in sorted(setting_names()) if name in environ}, **additions}


def setting_names() -> set[str]:
    """Every variable that makes Tollgate behave differently: those settings.py reads, and the providers' keys."""
    source = (ROOT / "config" / "settings.py").read_text()
    return {*re.findall(r'env(?:\.\w+)?\(\s*"([A-Z0-9_]+)"', source), *PROVIDER_KEYS}
