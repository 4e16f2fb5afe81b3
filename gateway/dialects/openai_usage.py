"""Usage as OpenAI reports it, in all of its protocols: the same figures under two sets of names."""

from gateway import metering
from gateway.metering import Usage


def read_usage(usage: object, *, given: str, written: str) -> Usage | None:
    """The figures of a report whose input and output stand under these names; reasoning is within the output.

    None if it is absent, malformed, negative or absurd.
    """
    if not isinstance(usage, dict):
        return None
    details = usage.get(f"{given}_details")
    if not isinstance(details, dict):
        details = {}
    return metering.reported(
        input_tokens=usage.get(given),
        output_tokens=usage.get(written),
        cached_tokens=details.get("cached_tokens"),
        cache_write_tokens=details.get("cache_write_tokens"),
    )
