"""The ledger in itself: every transaction balances, and follows the one before."""

from usage.auditing.check import Check

CHECKS = (
    Check(
        "ledger transaction {subject}: its postings sum to {found}, not to {expected}",
        """
        SELECT t.reference, sum(p.amount_nanousd), 0, true
        FROM billing_ledgertransaction t JOIN billing_posting p ON p.transaction_id = t.id
        GROUP BY t.id HAVING sum(p.amount_nanousd) <> 0
        """,
    ),
    Check(
        "ledger transaction {subject}: it has {found} postings, fewer than {expected}",
        """
        SELECT t.reference, count(p.id), 2, false
        FROM billing_ledgertransaction t LEFT JOIN billing_posting p ON p.transaction_id = t.id
        GROUP BY t.id HAVING count(p.id) < 2
        """,
    ),
    Check(
        "the chain of the ledger is broken before transaction {subject}",
        """
        SELECT format('%s (%s)', number, reference), 0, 0, false
        FROM (
            SELECT number, reference, previous_hash, lag(hash, 1, repeat('0', 64)) OVER in_order AS last_hash,
                lag(number, 1, 0::bigint) OVER in_order AS last_number
            FROM billing_ledgertransaction WINDOW in_order AS (ORDER BY number)
        ) AS link
        WHERE previous_hash <> last_hash OR number <> last_number + 1
        """,
    ),
    Check(
        "the head of the ledger's chain counts {found} transactions, there are {expected}",
        """
        SELECT '', head.count, posted.count, false
        FROM (SELECT coalesce(max(count), 0) AS count FROM billing_chainhead) AS head,
            (SELECT count(*) FROM billing_ledgertransaction) AS posted
        WHERE head.count <> posted.count
        """,
    ),
    Check(
        "the head of the ledger's chain is not transaction {subject}, which is the last",
        """
        SELECT format('%s (%s)', t.number, t.reference), 0, 0, false
        FROM billing_chainhead h JOIN billing_ledgertransaction t ON t.number = h.count WHERE t.hash <> h.hash
        """,
    ),
    Check(
        "ledger transaction {subject}, and the ledger does not have it any more: it was cut off or written anew",
        """
        SELECT format('%s (%s) was the last at the audit of %s UTC', seen.number, seen.hash,
            to_char(seen.seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')), 0, 0, false
        FROM billing_auditedhead seen
        LEFT JOIN billing_ledgertransaction t ON t.number = seen.number AND t.hash = seen.hash
        WHERE t.id IS NULL ORDER BY seen.number
        """,
    ),
)
