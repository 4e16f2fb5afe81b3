"""pytest plugin: PostgreSQL, Redis and the settings of a test run.

A plugin and not a conftest.py, because pytest-django reads the settings before it reads any conftest.py. The process
that was started by the user starts the services once; the workers of pytest-xdist inherit their addresses, and each has
a Redis database, a home and (through pytest-django) a PostgreSQL database of its own. With DATABASE_URL or REDIS_URL in
the environment, those are used instead.
"""

import atexit
import base64
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from config.embedded import Embedded, socket_folder
from config.environment import Needs, for_children, setting_names
from config.home import Home
from config.tether import die_with_parent

_PREFIX = "tollgate-tests-"
# The home of the whole run, for the workers to find.
_RUN_HOME = "TOLLGATE_TEST_RUN_HOME"

TEST_ENVIRONMENT = {
    "TOLLGATE_EMBEDDED": "1",
    "SECRET_KEY": "tests-only-" + "x" * 50,
    "KEY_PEPPERS": "1:" + base64.b64encode(b"a pepper for the tests only, 32b").decode(),
    "ALLOWED_HOSTS": "testserver,localhost,127.0.0.1,[::1]",
    # Argon2 is slow on purpose, and tests log in often.
    "PASSWORD_HASHER": "django.contrib.auth.hashers.MD5PasswordHasher",
    "LOG_LEVEL": "WARNING",
    "DJANGO_SETTINGS_MODULE": "config.settings",
}


def _start() -> None:
    """In the first process of a run: services, and an environment that nothing outside can bend."""
    _sweep_abandoned_homes()
    needs = Needs.of(os.environ)
    for name in setting_names() - {"DATABASE_URL", "REDIS_URL"}:
        os.environ.pop(name, None)
    cleaning = contextlib.ExitStack()
    atexit.register(cleaning.close)
    folder = _make_locked_home(cleaning)
    home = Home(folder)
    services = Embedded(home, postgres=needs.postgres, redis=needs.redis, durable=False, max_connections=200)
    cleaning.callback(services.stop)
    environ = for_children(os.environ, {})
    services.start(environ)
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    os.environ.update(services.urls)
    os.environ.update(TEST_ENVIRONMENT)
    os.environ[_RUN_HOME] = str(folder)


def _make_locked_home(cleaning: contextlib.ExitStack) -> Path:
    """A folder that gets its name after its lock, or a run that starts just now could sweep it away in between."""
    draft = Path(tempfile.mkdtemp(prefix="tollgate-draft-"))
    folder = draft.with_name(draft.name.replace("tollgate-draft-", _PREFIX))
    cleaning.callback(shutil.rmtree, folder, ignore_errors=True)
    cleaning.enter_context(Home(draft).locked("test"))
    return draft.rename(folder)


def _sweep_abandoned_homes() -> None:
    """A run that was killed could not tidy up; its services have ended with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), Home(folder).locked("sweep") as is_abandoned:
            if is_abandoned:
                for home in (folder, *folder.iterdir()):
                    shutil.rmtree(socket_folder(home), ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)


def _separate(worker: str) -> None:
    """In every process that runs tests: a Redis database and a home of its own."""
    number = int(worker.removeprefix("gw")) + 1 if worker else 0
    home = Path(os.environ[_RUN_HOME]) / (worker or "main")
    (home / "static").mkdir(parents=True, exist_ok=True)
    os.environ["TOLLGATE_HOME"] = str(home)
    os.environ["REDIS_URL"] = _with_database(os.environ["REDIS_URL"], number)


def _with_database(url: str, number: int) -> str:
    """A Redis URL whose database number is raised by `number`."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        query = dict(parse_qsl(parts.query))
        query["db"] = str(int(query.get("db", 0)) + number)
        # Not urlunsplit: it drops the empty host, and redis-py insists on `unix://`.
        return f"unix://{parts.netloc}{parts.path}?{urlencode(query)}"
    return urlunsplit(parts._replace(path=f"/{int(parts.path.strip('/') or 0) + number}"))


_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker:
    # Or a worker would go on alone when the run is killed.
    die_with_parent()
else:
    _start()
_separate(_worker)
