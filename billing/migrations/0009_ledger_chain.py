import json
from typing import Any

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from billing import chain

_CHUNK = 2000
_ENTRIES = """
    SELECT t.id, t.reference, t.kind, t.account_id, t.description, t.created_at,
        coalesce(jsonb_agg(jsonb_build_array(l.kind, l.account_id, l.provider, p.amount_nanousd))
            FILTER (WHERE p.id IS NOT NULL), '[]')
    FROM billing_ledgertransaction t
    LEFT JOIN billing_posting p ON p.transaction_id = t.id
    LEFT JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
    WHERE t.id > %s GROUP BY t.id ORDER BY t.id LIMIT %s
"""
_WRITE = """
    UPDATE billing_ledgertransaction t SET number = n.number, previous_hash = n.previous_hash, hash = n.hash
    FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[]) AS n (id, number, previous_hash, hash)
    WHERE t.id = n.id
"""


def link_what_is_there(_apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Number and chain the transactions that were posted before there was a chain, in order of their ids."""
    last_id, number, last_hash = 0, 0, chain.GENESIS
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_ledgertransaction DISABLE TRIGGER ledger_transaction_immutable")
        while True:
            cursor.execute(_ENTRIES, [last_id, _CHUNK])
            links = []
            for entry_id, reference, kind, account_id, description, created_at, postings in cursor.fetchall():
                number += 1
                previous_hash, last_id = last_hash, entry_id
                last_hash = chain.digest(
                    previous_hash=previous_hash,
                    number=number,
                    reference=reference,
                    kind=kind,
                    account_id=account_id,
                    description=description,
                    created_at=created_at,
                    postings=[tuple(posting) for posting in json.loads(postings)],
                )
                links.append((entry_id, number, previous_hash, last_hash))
            if not links:
                break
            cursor.execute(_WRITE, [list(column) for column in zip(*links, strict=True)])
        cursor.execute("ALTER TABLE billing_ledgertransaction ENABLE TRIGGER ledger_transaction_immutable")
        cursor.execute(
            "INSERT INTO billing_chainhead (id, count, hash) VALUES (1, %s, %s)", [number, last_hash]
        )


# TRUNCATE is how transactional tests empty the tables; they say so in a setting of their session.
FORWARD = """
CREATE FUNCTION billing_refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('tollgate.may_truncate', true), '') <> 'yes' THEN
        RAISE EXCEPTION '% is immutable: % refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_transaction_kept BEFORE TRUNCATE ON billing_ledgertransaction
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER posting_kept BEFORE TRUNCATE ON billing_posting
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER ledger_account_immutable BEFORE UPDATE OR DELETE ON billing_ledgeraccount
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER ledger_account_kept BEFORE TRUNCATE ON billing_ledgeraccount
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER chain_head_stays BEFORE DELETE ON billing_chainhead
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER chain_head_kept BEFORE TRUNCATE ON billing_chainhead
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER chain_head_goes_forward BEFORE UPDATE ON billing_chainhead
    FOR EACH ROW WHEN (NEW.count <> OLD.count + 1) EXECUTE FUNCTION billing_refuse_change();
"""

REVERSE = """
DROP TRIGGER chain_head_goes_forward ON billing_chainhead;
DROP TRIGGER chain_head_kept ON billing_chainhead;
DROP TRIGGER chain_head_stays ON billing_chainhead;
DROP TRIGGER ledger_account_kept ON billing_ledgeraccount;
DROP TRIGGER ledger_account_immutable ON billing_ledgeraccount;
DROP TRIGGER posting_kept ON billing_posting;
DROP TRIGGER ledger_transaction_kept ON billing_ledgertransaction;
DROP FUNCTION billing_refuse_truncate();
"""


class Migration(migrations.Migration):
    """Each transaction carries the hash of the one before; the tables of the ledger cannot be emptied either."""

    dependencies = [("billing", "0008_low_balance")]

    operations = [
        migrations.CreateModel(
            name="ChainHead",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("count", models.BigIntegerField(default=0)),
                ("hash", models.CharField(max_length=64)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="chain_head_is_one_row")
                ],
            },
        ),
        migrations.AddField(
            model_name="ledgertransaction",
            name="number",
            field=models.BigIntegerField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="ledgertransaction",
            name="previous_hash",
            field=models.CharField(editable=False, max_length=64, default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="ledgertransaction",
            name="hash",
            field=models.CharField(editable=False, max_length=64, default=""),
            preserve_default=False,
        ),
        migrations.RunPython(link_what_is_there, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="ledgertransaction",
            name="number",
            field=models.BigIntegerField(editable=False, unique=True),
        ),
        migrations.RunSQL(FORWARD, REVERSE),
    ]
