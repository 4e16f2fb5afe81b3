"""`./tollgate up` and `manage` as a person meets them: real processes, real signals."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.config.processes import assert_all_end, living_processes
from tests.gateway.conftest import wait_for
from tests.instance import Instance, installed

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("instance")]


def test_a_new_instance_serves_stops_in_order_and_starts_again() -> None:
    with installed(is_fresh=True) as instance:
        instance.start()
        assert f"Tollgate is ready: {instance.url}" in instance.output
        assert instance.get("/health/ready") == instance.get("/") == 200
        assert living_processes(instance.home)
        assert instance.stop() == 0
        assert_all_end(instance.home, patience_s=0)
        assert not (instance.home / "state.json").exists()
        assert instance.start().get("/health/ready") == 200


def test_a_killed_supervisor_leaves_no_process_and_an_immediate_start_works(instance: Instance) -> None:
    port = instance.start(processes=2).state.port
    assert set(instance.pids()) == {"postgres", "redis", "web", "worker", "sandbox"}
    assert len(instance.pids()["web"]) == 2
    secrets = (instance.home / "secrets.json").read_text()
    instance.kill9("supervisor")
    instance.start(port=port)
    assert instance.state.port == port
    assert (instance.home / "secrets.json").read_text() == secrets
    instance.kill9("supervisor")
    assert_all_end(instance.home)


@pytest.mark.parametrize("name", ["web", "worker", "sandbox", "redis", "postgres"])
def test_a_killed_child_is_started_again(shared_instance: Instance, name: str) -> None:
    old_pid = shared_instance.kill9(name)
    new_pid = shared_instance.wait_for_restart(name, old_pid)
    # Until it has become the program that it is to be, it does not look like one of the instance's.
    wait_for(lambda: new_pid in living_processes(shared_instance.home))
    shared_instance.wait_until_answering()


def test_secrets_are_readable_by_the_owner_alone(shared_instance: Instance) -> None:
    for name in ("secrets.json", "state.json"):
        assert (shared_instance.home / name).stat().st_mode & 0o077 == 0
    assert shared_instance.home.stat().st_mode & 0o066 == 0


def test_no_service_listens_on_a_network(shared_instance: Instance) -> None:
    """PostgreSQL trusts whoever reaches its socket, so nobody else may reach it."""
    folder = Path(shared_instance.state.environ["REDIS_URL"].removeprefix("unix://")).parent
    assert folder.stat().st_mode & 0o077 == 0
    pids = {pid for name in ("postgres", "redis") for pid in shared_instance.pids()[name]}
    listening = {
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line
    }
    opened = {
        link.readlink().name.removeprefix("socket:[").rstrip("]")
        for pid in pids
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    assert not listening & opened


def test_a_second_instance_on_the_same_home_is_refused_in_one_line(shared_instance: Instance) -> None:
    done = shared_instance.tollgate("up", "--port", "0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"already running at {shared_instance.url}" in done.stderr


def test_a_port_in_use_is_refused_in_one_line_before_anything_starts() -> None:
    with socket.socket() as taken, installed(is_fresh=True) as instance:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = instance.tollgate("up", "--port", str(port))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"port {port} is in use" in done.stderr
        assert not (instance.home / "postgres").exists()


def test_two_homes_run_side_by_side_even_with_spaces_in_a_path(
    shared_instance: Instance, tmp_path: Path
) -> None:
    home = tmp_path / "a home, with spaces"
    home.mkdir()
    other = Instance(home)
    try:
        other.start()
        assert other.state.port != shared_instance.state.port
        assert other.get("/health/ready") == shared_instance.get("/health/ready") == 200
        users = other.manage(
            "shell", "-v", "0", "-c", "from django.conf import settings; print(settings.TOLLGATE_HOME)"
        )
        assert users.stdout.strip() == str(home)
    finally:
        other.remove()


def test_manage_prints_only_what_the_command_prints(instance: Instance) -> None:
    """Scripts read a secret from standard output: not a word of ours may be in it, running or not."""
    script = "import sys; print('to be kept'); print('aside', file=sys.stderr); sys.exit(3)"
    command = ("shell", "-v", "0", "-c", script)
    before = instance.manage(*command)
    assert (before.stdout, before.returncode) == ("to be kept\n", 3)
    assert before.stderr.endswith("aside\n")
    assert_all_end(instance.home, patience_s=0)
    instance.start()
    during = instance.manage(*command)
    assert (during.stdout, during.stderr, during.returncode) == ("to be kept\n", "aside\n", 3)


def test_commands_on_a_stopped_home_wait_for_each_other(instance: Instance) -> None:
    """Two at once must not start two PostgreSQL on one folder, nor stop the one under the other's feet."""
    instance.manage("check", check=True)
    script = "import time; from accounts.models import Plan; time.sleep(1); print(Plan.objects.count())"
    command = ["./tollgate", "manage", "shell", "-v", "0", "-c", script]
    environ = instance._environ()
    pair = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in pair] == ["2\n", "2\n"]
    assert [process.returncode for process in pair] == [0, 0]


def test_ctrl_c_while_starting_leaves_nothing(instance: Instance) -> None:
    instance.launch("--port", "0")
    assert instance._process is not None
    while not (instance.home / "logs" / "prepare.log").exists():
        assert instance._process.poll() is None
    instance._process.send_signal(signal.SIGINT)
    assert instance._process.wait(timeout=30) == 0
    assert_all_end(instance.home, patience_s=0)


def test_a_database_without_its_secrets_is_refused(instance: Instance) -> None:
    """New secrets would make every key that was ever issued unknown."""
    instance.manage("check", check=True)
    (instance.home / "secrets.json").unlink()
    done = instance.tollgate("up", "--port", "0")
    assert done.returncode == 2
    assert "secrets.json is missing beside its database" in done.stderr


def test_one_s_own_postgresql_and_redis_replace_the_embedded_ones() -> None:
    with installed() as provider, installed(is_fresh=True) as instance:
        provider.start()
        lent = provider.state.environ
        environ = {name: lent[name] for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "KEY_PEPPERS")}
        instance.start(
            extra_env={**environ, "HTTPS": "0", "SANDBOX_UPSTREAM_URL": lent["SANDBOX_UPSTREAM_URL"]}
        )
        assert set(instance.pids()) == {"web", "worker"}
        assert not (instance.home / "secrets.json").exists()
        state = json.loads((instance.home / "state.json").read_text())
        assert state["environ"]["TOLLGATE_EMBEDDED"] == "0"
        assert instance.get("/health/ready") == 200
        assert instance.stop() == 0
