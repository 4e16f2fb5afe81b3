"""Claims of idempotency keys hold for a day, and then make room."""

import datetime as dt
import uuid

import pytest

from tests.factories import make_key, now
from usage import forgetting, tasks
from usage.models import IdempotencyClaim

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
