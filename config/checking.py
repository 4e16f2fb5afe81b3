"""`./tollgate check`: everything that can be judged without running the product: `python -m config.checking`.

Nothing here needs PostgreSQL or Redis: the settings get addresses at which nobody listens.
"""

import base64
import importlib.util
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from config.environment import setting_names
from config.home import ROOT

_PYTHON = (sys.executable,)
_MANAGE = (sys.executable, "manage.py")
_APPS = ("accounts", "billing", "catalog", "config", "gateway", "keys", "usage")
_SOURCES = (*_APPS, "tests", "bench")


@dataclass(frozen=True)
class Step:
    """One tool: what it is called here, and how it is run."""

    name: str
    command: Sequence[str]


def steps() -> list[Step]:
    """All of them, in the order in which they are run; none of them changes a file."""
    python_files = sorted(
        str(path.relative_to(ROOT)) for folder in _SOURCES for path in (ROOT / folder).rglob("*.py")
    )
    templates = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "templates").rglob("*.html"))
    import_linter = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-logo'])"
    djade = str(ROOT / ".venv" / "bin" / "djade")
    return [
        Step("ruff format", (*_PYTHON, "-m", "ruff", "format", "--check", ".")),
        Step("ruff check", (*_PYTHON, "-m", "ruff", "check", ".")),
        Step("mypy", (*_PYTHON, "-m", "mypy")),
        Step("import contracts", (*_PYTHON, "-c", import_linter)),
        Step("djade", (djade, "--check", "--target-version", "5.2", *templates) if templates else ()),
        Step(
            "django-upgrade",
            (*_PYTHON, "-m", "django_upgrade", "--check", "--target-version", "5.2", *python_files),
        ),
        Step("migrations", (*_MANAGE, "makemigrations", "--check", "--dry-run")),
        Step("deploy checks", (*_MANAGE, "check", "--deploy", "--fail-level", "WARNING")),
        Step("lock files", (*_PYTHON, "-m", "config.lock_files")),
        Step("installed packages", _package_check()),
    ]


def _package_check() -> Sequence[str]:
    """Lock files are installed without resolving them, so whether they are whole is asked of what they installed."""
    if importlib.util.find_spec("pip"):
        return (*_PYTHON, "-m", "pip", "check")
    return ("uv", "pip", "check", "--python", sys.executable)


def production_environment() -> dict[str, str]:
    """The variables of a sane production installation, at addresses where nobody listens."""
    inherited = {name: value for name, value in os.environ.items() if name not in setting_names()}
    return {
        **inherited,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "KEY_PEPPERS": "1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
        # Port 9 is for throwing away. No pool, which would wait for the connection that never comes.
        "DATABASE_URL": "postgres://tollgate:secret@127.0.0.1:9/tollgate?pool=0",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "ALLOWED_HOSTS": "tollgate.example.com",
        "PUBLIC_URL": "https://tollgate.example.com",
        "EMAIL_URL": "smtp+tls://tollgate:secret@mail.example.com:587",
        "OPERATOR_EMAILS": "operator@example.com",
        "TOPUP_PROVIDERS": "stripe",
        "STRIPE_SECRET_KEY": "sk_test_" + secrets.token_urlsafe(24),
        "STRIPE_WEBHOOK_SECRETS": "whsec_" + secrets.token_urlsafe(24),
        # makemigrations would like to compare with a database, and says so when there is none.
        "PYTHONWARNINGS": "ignore::RuntimeWarning",
    }


def check() -> bool:
    """Run every step, print one line for each and the output of those that fail; whether all passed."""
    environ = production_environment()
    passed = [_run(step, environ) for step in steps()]
    failures = passed.count(False)
    print(f"\n{failures} of {len(passed)} failed" if failures else f"\nall {len(passed)} passed", flush=True)
    return not failures


def _run(step: Step, environ: dict[str, str]) -> bool:
    if not step.command:
        print(f"skipped {step.name:<18} (nothing to look at)", flush=True)
        return True
    began = time.monotonic()
    done = subprocess.run(
        step.command,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    verdict = "ok     " if done.returncode == 0 else "FAILED "
    print(f"{verdict} {step.name:<18} {time.monotonic() - began:5.1f} s", flush=True)
    if done.returncode != 0:
        print((done.stdout + done.stderr).rstrip(), flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(0 if check() else 1)
