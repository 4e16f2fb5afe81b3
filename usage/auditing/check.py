"""What a check of the audit is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """`sql` gives a row per disagreement: subject, found, expected, and whether those are money in nano-USD.

    It may read `by_account`, `charged` and `audited.at` of `usage.auditing.audit`. The sentence may leave the figures
    out.
    """

    sentence: str
    sql: str
