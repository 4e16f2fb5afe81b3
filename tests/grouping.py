"""pytest plugin: tests marked with the same `xdist_group` run one after another in the same worker.

That is what pytest-xdist's `--dist loadgroup` is for, but it passes the group from the worker to the scheduler inside
the test's id, and since pytest 9.2 an id cannot be changed: marks are ignored without a word
(https://github.com/pytest-dev/pytest-xdist/issues/1386). Here a file carries the groups. To be removed when xdist does.
"""

import json
import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


def _file() -> Path:
    return Path(os.environ["TOLLGATE_TEST_RUN_HOME"]) / "groups.json"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In each worker, before it reports what it has collected: write down the groups, whole or not at all."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if not worker:
        return
    marks = {item.nodeid: item.get_closest_marker("xdist_group") for item in items}
    groups = {nodeid: str(mark.args[0]) for nodeid, mark in marks.items() if mark}
    draft = _file().with_suffix(f".{worker}")
    draft.write_text(json.dumps(groups))
    draft.replace(_file())


class GroupScheduling(LoadScopeScheduling):
    """Hands out whole groups; a test without a group is a group of its own."""

    def _split_scope(self, nodeid: str) -> str:
        if not hasattr(self, "_groups"):
            self._groups: dict[str, str] = json.loads(_file().read_text())
        return self._groups.get(nodeid, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling | None:
    """In the process that schedules: take the place of xdist's own `--dist loadgroup`."""
    return GroupScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None
