"""How the upstreams are doing, as each gateway process has said with its last heartbeat."""

import datetime as dt
from dataclasses import dataclass

from django.utils.dateparse import parse_datetime

from billing.models import GatewayProcess
from catalog.models import Model

# A process beats every five seconds; what one has said that is silent for longer is no longer so.
_HEARD_WITHIN = dt.timedelta(seconds=30)
_WORST_FIRST = ("open", "half-open", "closed")
_WORDS = {
    "open": "Open: no requests are sent",
    "half-open": "Half-open: one request tries it",
    "closed": "Closed: requests are sent",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """One upstream as one process sees it. Requests and failures are those of the last 30 seconds."""

    upstream: str  # provider/model
    model_id: int | None  # None: the model is not in the catalogue any more
    process: str
    state: str
    words: str
    requests: int
    failures: int
    since: dt.datetime | None
    last_error: str
    heard_at: dt.datetime


def observed(*, at: dt.datetime) -> list[Observation]:
    """What the processes that are alive have said, the upstreams that get no requests first."""
    processes = list(
        GatewayProcess.objects.filter(heartbeat_at__gte=at - _HEARD_WITHIN).order_by("started_at")
    )
    slugs = {target.partition("/")[2] for process in processes for target in process.upstreams}
    models = dict(Model.objects.filter(slug__in=slugs).values_list("slug", "pk"))
    found = [
        Observation(
            upstream=target,
            model_id=models.get(target.partition("/")[2]),
            # The end of a UUIDv7 is what tells processes apart that were started together.
            process=str(process.pk)[-6:],
            state=said["state"],
            words=_WORDS[said["state"]],
            requests=said["requests"],
            failures=said["failures"],
            since=parse_datetime(said["since"]),
            last_error=said["last_error"],
            heard_at=process.heartbeat_at,
        )
        for process in processes
        for target, said in process.upstreams.items()
    ]
    return sorted(found, key=lambda seen: (_WORST_FIRST.index(seen.state), seen.upstream, seen.process))
