"""A Tollgate of the benchmark's own, as `./tollgate up` starts it, in a folder that goes when it is done."""

import contextlib
import json
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.instance import Instance, installed

# A stream held open takes a file on either side of the gateway, and one in the upstream.
_FILES = 16_384


@dataclass(frozen=True, slots=True)
class Installation:
    """A running instance, the upstream that plays its models, and keys of as many accounts as were asked for."""

    instance: Instance
    keys: list[str] = field(repr=False)

    @property
    def url(self) -> str:
        """The gateway's address, without a path. By number, as a name would have to be looked up."""
        return self.instance.url.replace("//localhost", "//127.0.0.1")

    @property
    def upstream(self) -> str:
        """The sandbox upstream's address, without a path."""
        return self.instance.env()["SANDBOX_UPSTREAM_URL"].removesuffix("/v1")

    @property
    def web_pids(self) -> list[int]:
        """The processes that are measured."""
        return self.instance.pids()["web"]

    @property
    def sandbox_pid(self) -> int:
        """The upstream's process."""
        return self.instance.pids()["sandbox"][0]

    def audit(self) -> list[str]:
        """What `audit_ledger` prints; it fails where the books do not agree."""
        return self.instance.manage("audit_ledger", check=True).stdout.strip().splitlines()


@contextlib.contextmanager
def installation(*, accounts: int = 1, processes: int = 1) -> Iterator[Installation]:
    """Start one, and make its accounts."""
    _allow_many_files()
    with installed(is_fresh=True) as instance:
        instance.start(processes=processes)
        command = f"from bench.parts.furnishing import furnish; furnish({accounts})"
        made = instance.manage("shell", "-v", "0", "-c", command, check=True)
        yield Installation(instance=instance, keys=json.loads(made.stdout))


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
