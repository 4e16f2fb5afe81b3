"""`manage.py prepare`, which every start runs."""

import io
import threading
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from pytest_django import Settings

from accounts.models import Plan
from catalog.models import Model, Price
from config.management.commands import prepare


@pytest.fixture
def static_folder(settings: Settings, tmp_path: Path) -> Path:
    """One small file of ours to collect, and none of the packages'."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "page.css").write_text("body { color: #123456 }")
    settings.STATICFILES_DIRS = [source, ("absent", tmp_path / "absent")]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "static"
    return source


def prepared(**options: object) -> str:
    out = io.StringIO()
    call_command("prepare", stdout=out, **options)
    return out.getvalue()


@pytest.mark.django_db
def test_a_first_start_makes_plans_catalogue_and_static_files(static_folder: Path) -> None:
    Plan.objects.all().delete()

    output = prepared()

    assert "database: nothing to migrate" in output
    assert "plans and catalogue: ready" in output
    assert "static files: collected" in output
    assert set(Plan.objects.values_list("slug", flat=True)) == {"basic", "pay-as-you-go"}
    assert Model.objects.count() == Price.objects.count() == 16
    assert list((static_folder.parent / "static").glob("page.*.css"))


@pytest.mark.django_db
def test_a_later_start_collects_only_what_changed(static_folder: Path) -> None:
    prepared()
    assert "static files: unchanged" in prepared()

    (static_folder / "page.css").write_text("body { color: #654321 }  /* another */")
    assert "static files: collected" in prepared()
    assert "static files: unchanged" in prepared()

    (static_folder.parent / "static" / "staticfiles.json").unlink()
    assert "static files: collected" in prepared()


@pytest.mark.django_db
@pytest.mark.usefixtures("static_folder")
def test_it_is_quiet_when_told_to_be() -> None:
    assert prepared(verbosity=0) == ""


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("static_folder")
def test_two_starts_at_once_prepare_one_after_the_other() -> None:
    ended = threading.Event()
    out = io.StringIO()

    def second_start() -> None:
        try:
            call_command("prepare", stdout=out)
            ended.set()
        finally:
            connection.close()

    with connection.cursor() as first:
        first.execute("SELECT pg_advisory_lock(%s)", [prepare._LOCK])
        second = threading.Thread(target=second_start)
        second.start()
        deadline = time.monotonic() + 60
        while "another start is preparing it" not in out.getvalue():
            assert second.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not ended.wait(0.2)
        first.execute("SELECT pg_advisory_unlock(%s)", [prepare._LOCK])
    second.join(60)

    assert ended.is_set()
    assert "plans and catalogue: ready" in out.getvalue()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("static_folder")
def test_a_database_that_fails_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 1")
            cursor.execute("SELECT pg_sleep(1)")
        return ""

    monkeypatch.setattr(prepare, "_migrate", fail)
    with pytest.raises(CommandError, match="PostgreSQL did not do what was asked"):
        prepared()
