"""`manage.py prepare`: everything that must be true before the first page, in one process. Each start runs it."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from accounts.plans import seed_plans
from catalog import seeding

# Any number that is nobody else's: who holds this advisory lock prepares the database.
_LOCK = 7_463_550_217


class Command(BaseCommand):
    help = "Migrate, make the plans and the catalogue, collect static files: what is missing of it, and nothing twice."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with self._alone(verbosity=options["verbosity"]):
                self._step("database", _migrate, **options)
                self._step("plans and catalogue", _seed, **options)
        except OperationalError as error:
            raise CommandError(f"PostgreSQL did not do what was asked: {error}") from error
        self._step("static files", _collect, **options)

    def _step(self, name: str, act: Callable[[], str], **options: Any) -> None:
        began = time.perf_counter()
        outcome = act()
        if options["verbosity"]:
            self.stdout.write(f"{name}: {outcome} ({time.perf_counter() - began:.1f} s)")

    @contextlib.contextmanager
    def _alone(self, *, verbosity: int) -> Iterator[None]:
        """Two starts at once must not both migrate: the second waits, and then finds nothing to do."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
            if not cursor.fetchone()[0]:
                if verbosity:
                    self.stdout.write("database: another start is preparing it, waiting")
                cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        try:
            yield
        finally:
            with contextlib.suppress(OperationalError), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _migrate() -> str:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        return "nothing to migrate"
    call_command("migrate", interactive=False, verbosity=0)
    return f"{len(plan)} migrations applied"


def _seed() -> str:
    seed_plans()
    seeding.seed(at=timezone.now())
    return "ready"


def _collect() -> str:
    """Run collectstatic only where its result would differ: hashing and compressing every file takes seconds."""
    stamp = settings.STATIC_ROOT.with_suffix(".stamp")
    fingerprint = _fingerprint()
    manifest = settings.STATIC_ROOT / "staticfiles.json"
    if manifest.exists() and stamp.exists() and stamp.read_text() == fingerprint:
        return "unchanged"
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
    call_command("collectstatic", interactive=False, verbosity=0)
    draft = stamp.with_suffix(".draft")
    draft.write_text(fingerprint)
    draft.replace(stamp)
    return "collected"


def _fingerprint() -> str:
    """What the collected files depend on: our own files, the locked packages, and the code that stores them."""
    digest = hashlib.sha256(repr((settings.STORAGES["staticfiles"], settings.STATICFILES_DIRS)).encode())
    locks = ("package-lock.json", "requirements/base.lock", "config/staticfiles.py")
    for name in locks:
        path = settings.BASE_DIR / name
        digest.update(path.read_bytes() if path.exists() else b"absent")
    for entry in settings.STATICFILES_DIRS:
        if isinstance(entry, Path):
            for path in sorted(entry.rglob("*")):
                facts = path.stat()
                digest.update(f"{path}:{facts.st_size}:{facts.st_mtime_ns}".encode())
        elif isinstance(entry, tuple):
            _prefix, folder = entry
            digest.update(str(Path(folder).is_dir()).encode())
    return digest.hexdigest()
