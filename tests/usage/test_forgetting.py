"""Claims of idempotency keys hold for a day, gaps in minutes for two minutes; then they make room."""

import datetime as dt
import uuid

import pytest

from tests.factories import make_key, now
from usage import forgetting, tasks
from usage.models import IdempotencyClaim, MinuteGap

pytestmark = pytest.mark.django_db


def make_claims(*ages: dt.timedelta) -> None:
    key = make_key().key
    for age in ages:
        IdempotencyClaim.objects.create(
            key=key, digest=uuid.uuid4().hex, body_digest="", request_id=uuid.uuid4(), claimed_at=now() - age
        )


def test_claims_older_than_a_day_are_forgotten_however_many_there_are() -> None:
    make_claims(*[dt.timedelta(hours=24, seconds=1)] * 5, dt.timedelta(hours=23, minutes=59))

    assert forgetting.forget_claims(at=now(), batch=2) == 5
    assert forgetting.forget_claims(at=now(), batch=2) == 0
    assert IdempotencyClaim.objects.count() == 1


def test_the_task_forgets_them() -> None:
    make_claims(dt.timedelta(days=2), dt.timedelta())

    tasks.forget_idempotency_claims()

    assert IdempotencyClaim.objects.count() == 1


def test_gaps_in_minutes_are_forgotten_when_they_have_passed() -> None:
    for key_id, ended in (
        (1, dt.timedelta(minutes=6)),
        (2, dt.timedelta(minutes=4)),
        (3, -dt.timedelta(minutes=1)),
    ):
        MinuteGap.objects.create(key_id=key_id, ends_at=now() - ended)

    tasks.forget_minute_gaps()

    assert set(MinuteGap.objects.values_list("key_id", flat=True)) == {2, 3}
