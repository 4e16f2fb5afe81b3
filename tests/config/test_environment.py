"""The variables that an instance's processes get."""

import socket
from pathlib import Path

import environ
import pytest
import redis

from config import environment
from config.environment import Needs
from config.home import Home
from config.refusal import Refused

OWN_DATABASE = {"DATABASE_URL": "postgres://db/tollgate"}


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({}, Needs(postgres=True, redis=True, sandbox=True)),
        ({"DATABASE_URL": "", "REDIS_URL": ""}, Needs(postgres=True, redis=True, sandbox=True)),
        (OWN_DATABASE, Needs(postgres=False, redis=True, sandbox=True)),
        ({"REDIS_URL": "redis://r"}, Needs(postgres=True, redis=False, sandbox=True)),
        ({"SANDBOX_UPSTREAM_URL": "http://s/v1"}, Needs(postgres=True, redis=True, sandbox=False)),
        ({"ZAI_API_KEY": "k"}, Needs(postgres=True, redis=True, sandbox=False)),
    ],
)
def test_each_part_is_replaced_by_itself(given: dict[str, str], needs: Needs) -> None:
    assert Needs.of(given) == needs


def test_embedded_mode_makes_its_secrets_and_what_is_given_goes_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    made = environment.identity({}, home, has_data=False)
    assert made["TOLLGATE_EMBEDDED"] == "1"
    assert environment.identity({"SECRET_KEY": "mine"}, home, has_data=True) == {**made, "SECRET_KEY": "mine"}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "SECRET_KEY and KEY_PEPPERS must be set"),
        ({"SECRET_KEY": "s"}, "KEY_PEPPERS must be set"),
        ({"KEY_PEPPERS": "p"}, "SECRET_KEY must be set"),
    ],
)
def test_who_brings_a_database_brings_its_secrets(
    tmp_path: Path, given: dict[str, str], missing: str
) -> None:
    with pytest.raises(Refused, match=missing):
        environment.identity({**OWN_DATABASE, **given}, Home(tmp_path), has_data=False)
    assert not list(tmp_path.iterdir())


def test_one_s_own_secrets_are_passed_on_and_it_is_not_embedded(tmp_path: Path) -> None:
    given = {**OWN_DATABASE, "SECRET_KEY": "s", "KEY_PEPPERS": "1:p", "TOLLGATE_EMBEDDED": "1"}
    assert environment.identity(given, Home(tmp_path), has_data=False) == {
        "SECRET_KEY": "s",
        "KEY_PEPPERS": "1:p",
        "TOLLGATE_EMBEDDED": "0",
    }


@pytest.mark.parametrize(
    ("given", "host", "added"),
    [
        ({}, "127.0.0.1", []),
        ({}, "192.0.2.7", ["192.0.2.7"]),
        ({}, "2001:db8::1", ["[2001:db8::1]"]),
        ({}, "0.0.0.0", [socket.gethostname()]),  # noqa: S104 - not listened on
        ({"PUBLIC_URL": "https://tollgate.example.com:8443"}, "127.0.0.1", ["tollgate.example.com"]),
    ],
)
def test_hosts_follow_from_where_it_listens(given: dict[str, str], host: str, added: list[str]) -> None:
    assert environment.allowed_hosts(given, host=host).split(",") == [
        "localhost",
        "127.0.0.1",
        "[::1]",
        *added,
    ]


def test_the_operator_s_hosts_win() -> None:
    given = {"ALLOWED_HOSTS": "a.example.com", "PUBLIC_URL": "https://b.example.com"}
    assert environment.allowed_hosts(given, host="192.0.2.7") == "a.example.com"


def test_libpq_s_variables_do_not_reach_our_own_socket() -> None:
    given = {"PGSSLMODE": "require", "PGPORT": "1", "PATH": "/bin", "PGX_1": "kept"}
    assert set(environment.for_children(given, {})) & set(given) == {"PATH", "PGX_1"}
    assert environment.for_children({**given, **OWN_DATABASE}, {})["PGSSLMODE"] == "require"


def test_a_command_gets_what_the_settings_read_and_nothing_else() -> None:
    given = {"EMAIL_URL": "smtp://m", "OPENAI_API_KEY": "k", "PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x"}
    assert environment.for_manage(given, {"SECRET_KEY": "s"}) == {
        "EMAIL_URL": "smtp://m",
        "OPENAI_API_KEY": "k",
        "SECRET_KEY": "s",
    }
    assert {"DATABASE_URL", "REDIS_URL", "ALLOWED_HOSTS"} <= environment.setting_names()


def test_the_address_of_the_embedded_database_is_read_whole(tmp_path: Path) -> None:
    """Without PGUSER or PGPORT: user, folder, port and name are all in the URL."""
    from config.embedded import Embedded

    urls = Embedded(Home(tmp_path), postgres=True, redis=True).urls
    read = environ.Env.db_url_config(urls["DATABASE_URL"])
    folder = Path(urls["REDIS_URL"].removeprefix("unix://")).parent
    assert (read["USER"], read["HOST"], read["PORT"], read["NAME"]) == (
        "tollgate",
        str(folder),
        5432,
        "tollgate",
    )
    assert (
        redis.Redis.from_url(urls["REDIS_URL"]).connection_pool.connection_kwargs["path"]
        == f"{folder}/redis.sock"
    )
