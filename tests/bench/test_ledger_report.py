"""The section of `bench ledger`."""

from bench.parts.ledger_report import Measured, Posted, Told, write


def _cell(pairs_per_s: float, *, own_busy: float = 0.6, backend_busy: float = 0.3) -> dict[str, float]:
    return {
        "pairs_per_s": pairs_per_s,
        "batches_per_s": 50.0,
        "in_a_batch": 64.0,
        "own_busy": own_busy,
        "backend_busy": backend_busy,
        "sync_s": 0.002,
    }


_STEPS = ("verify_s", "audit_s", "export_s")


def _measured(told: list[Told], *, audit_s: float = 20.0, backend_s: float = 19.0) -> Measured:
    posted: Posted = {(True, 1): 200.0, (True, 8): 300.0, (False, 1): 250.0, (False, 8): 1_000.0}
    audit = {"hours": 10, "transactions": 10, "own_s": 0.1, "verify_s": 0.5}
    export = {"rows": 20.0, "seconds": 0.1, "grown_bytes": 0.0}
    return Measured(
        rounds=[(posted, one) for one in told],
        proofs=[
            {
                "transactions": 100,
                "postings": 200,
                "records": 500,
                "waiting": 20,
                **dict.fromkeys(_STEPS, 0.1),
            }
        ],
        fills=[
            {"table_bytes": 10**9, "index_bytes": 10**8, "database_bytes": 2 * 10**9, "made_s": 5.0}
            for _ in range(2)
        ],
        audits=[
            {"records": 1_000, "audit_s": 2.0, "backend_s": 1.9, **audit},
            {"records": 10_000, "audit_s": audit_s, "backend_s": backend_s, **audit},
        ],
        export={
            **{f"whole_{name}": figure for name, figure in {**export, "busy": 0.9}.items()},
            **{f"own_{name}": figure for name, figure in {**export, "busy": 0.2}.items()},
        },
    )


def _section(measured: Measured) -> str:
    return write(measured, provenance="here", seconds=3.0, per_hour=1_000, accounts=10)


def test_more_accounts_are_compared_with_one_within_each_round() -> None:
    """The machine halves its speed for the second round: both slow down, and their ratio stays."""
    told: list[Told] = [
        {(1, 64): _cell(one), (1_000, 64): _cell(many)}
        for one, many in ((4_000, 2_000), (2_000, 1_000), (4_200, 2_100))
    ]

    text = _section(_measured(told))

    assert "| 64 | 1,000 | 2,000 | 50% | 50 | 64 | 60% | 30% | 10% |" in text
    assert "busy for 90% to 90% of the time, and the larger part is the teller's" in text


def test_the_audit_is_said_to_be_limited_by_postgresql_only_where_that_was_busy() -> None:
    told: list[Told] = [{(1, 64): _cell(4_000)}]

    busy = _section(_measured(told))
    waiting = _section(_measured(told, audit_s=40.0, backend_s=10.0))

    assert "10 times the records take 10.0 times as long" in busy
    assert "one core of PostgreSQL's is the\nlimit" in busy
    assert "PostgreSQL's process was busy for 25% of the" in waiting
    assert "waiting, for the disk or for a core" in waiting


def test_an_export_is_limited_by_whoever_was_busy() -> None:
    text = _section(_measured([{(1, 64): _cell(4_000)}]))

    assert "`export_ledger`: most of the time is Python's" in text
    assert "an account's own CSV: most of it is waiting for PostgreSQL" in text


def test_what_the_audit_went_through_besides_is_said() -> None:
    section = " ".join(_section(_measured([{(1, 64): _cell(4_000)}])).split())

    assert "through the 500 usage records of the holds and settlements as well, 20 of them not" in section
