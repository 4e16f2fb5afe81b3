"""A trace through a whole Tollgate, as an operator replays it: what the books hold afterwards equals the file."""

import csv
import json
import random
from pathlib import Path

import pytest

from tests.instance import Instance

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("instance")]

_SUMS = """
import json
from django.db.models import Count, Sum
from usage.models import UsageRecord
print(json.dumps(UsageRecord.objects.filter(key__name="replay", outcome="completed").aggregate(
    n=Count("id"), i=Sum("input_tokens"), o=Sum("output_tokens"), c=Sum("cost_nanousd"))))
"""


def test_after_a_replay_requests_tokens_and_cost_equal_the_file(
    shared_instance: Instance, tmp_path: Path
) -> None:
    rows = _heavy_tailed_rows(150)
    file = tmp_path / "trace.csv"
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([("TIMESTAMP", "ContextTokens", "GeneratedTokens"), *rows])
    email = "replay@example.com"
    shared_instance.manage("create_account", email, "--plan", "pay-as-you-go", "--credit", "5", check=True)
    key = shared_instance.manage("issue_key", email, "replay", check=True).stdout.strip()

    # The address comes from the running instance.
    replayed = shared_instance.manage("replay_trace", str(file), "--key", key, "--speed", "30")

    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "150 served, 0 failed, 0 not finished, of 150" in replayed.stdout
    assert key not in replayed.stdout + replayed.stderr
    tokens_in, tokens_out = sum(row[1] for row in rows), sum(row[2] for row in rows)
    sums = json.loads(shared_instance.manage("shell", "-v", "0", "-c", _SUMS, check=True).stdout)
    assert (sums["n"], sums["i"], sums["o"]) == (150, tokens_in, tokens_out)
    assert sums["c"] == tokens_in * 150 + tokens_out * 600
    assert shared_instance.manage("audit_ledger").returncode == 0


def _heavy_tailed_rows(count: int) -> list[tuple[str, int, int]]:
    """Bursty times within a minute, mostly small requests and a few very large ones, always the same."""
    chance = random.Random(20231116)  # noqa: S311 - a repeatable test, not a secret
    return [
        (
            f"2023-11-16 18:17:{min(index // 3, 59):02}.{chance.randrange(10**7):07}",
            min(7437, 3 + int(chance.paretovariate(0.8) * 50)),
            min(1899, 6 + int(chance.paretovariate(1.2) * 5)),
        )
        for index in range(count)
    ]
