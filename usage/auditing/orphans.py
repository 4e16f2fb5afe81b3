"""Rows of tables that PostgreSQL checks no foreign keys of, because every request writes them."""

from usage.auditing.check import Check

CHECKS = (
    Check(
        "{subject}: what it refers to does not exist",
        """
        SELECT subject, 1, 0, false FROM (
            SELECT format('hold of request %s', h.request_id) AS subject FROM billing_hold h
            WHERE NOT EXISTS (SELECT FROM keys_apikey k WHERE k.id = h.key_id AND k.account_id = h.account_id)
            UNION ALL
            SELECT format('usage record %s', r.id) FROM usage_usagerecord r
            WHERE NOT EXISTS (SELECT FROM keys_apikey k WHERE k.id = r.key_id)
                OR r.model_id IS NOT NULL AND NOT EXISTS (SELECT FROM catalog_model m WHERE m.id = r.model_id)
        ) AS orphans
        """,
    ),
)
