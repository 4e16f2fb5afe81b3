"""A teller without a gateway, for tests of what is foreseen."""

from dataclasses import dataclass, field

import orjson
from django.db import transaction
from psycopg.errors import SerializationFailure

from billing import wallets
from usage.admission import Admission, Decision
from usage.batches import execute
from usage.books import Books
from usage.foreseeing import Foresight, attempt
from usage.opening import Question
from usage.recording import FinishedRequest


@dataclass
class Clerk:
    """A teller without a gateway: each batch is one transaction."""

    foresight: Foresight = field(default_factory=Foresight)
    foreseen: int = 0

    def batch(self, *admissions: Admission, ended: list[FinishedRequest] | None = None) -> list[Decision]:
        """Ask first, and see that whatever was foreseen is what is so."""
        question = Question.of(admissions=admissions, ended=ended or [])
        expected = self.foresight.of(question)
        with transaction.atomic():
            raw = wallets.borrowed_connection()
            answer = execute(raw, question.call()).fetchall()[0][0]
            if expected is not None:
                self.foreseen += 1
                assert expected == orjson.loads(answer)
            opened = Books.of(answer)
            decisions = decide(opened, admissions, ended or [])
            opened.write(raw)
        self.foresight.learn(question, opened.left())
        return decisions

    def attempt(
        self, *admissions: Admission, ended: list[FinishedRequest] | None = None
    ) -> list[Decision] | None:
        """Decide on what is foreseen and have it written in one call; None: nothing, the books are others."""
        question = Question.of(admissions=admissions, ended=ended or [])
        foreseen = self.foresight.of(question)
        assert foreseen is not None
        opened = Books.foreseen(foreseen)
        decisions = decide(opened, admissions, ended or [])
        try:
            with transaction.atomic():
                raw = wallets.borrowed_connection()
                was_written = execute(raw, attempt(question, foreseen, opened)).fetchall()
        except SerializationFailure:
            was_written = []
        self.foresight.learn(question, opened.left())
        if not was_written:
            self.foresight.was_wrong(question.accounts)
        return decisions if was_written else None


def decide(opened: Books, admissions: tuple[Admission, ...], ended: list[FinishedRequest]) -> list[Decision]:
    for finished in ended:
        if not opened.end(finished):
            opened.record(finished)
    return [opened.admit(request) for request in admissions]
