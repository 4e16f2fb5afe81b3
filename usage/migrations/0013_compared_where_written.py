"""A foreseen batch is compared row by row where it is locked, instead of being read into JSON first.

Of the functions of `0011` the one that opens the books is as it was.
"""

from importlib import import_module

from django.db import migrations

DROP = """
DROP FUNCTION usage_write_books;
"""
WRITE = """
CREATE FUNCTION usage_write_books(
    resolved uuid[], held bigint[], held_days date[],
    accounts bigint[], wallets bigint[], budgets json, begun json, drawn json, holds json,
    claims json, freed uuid[], records json, missed bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    -- What a column holds that the records say nothing of.
    template usage_usagerecord;
BEGIN
    IF cardinality(resolved) > 0 THEN
        -- That they are as many is not enough where they were foreseen: the batch that was to replace one may turn out
        -- to have written nothing. They are compared last, and here, because a sweep of living processes is rarer
        -- than any other difference, and one more look at each is what every request would pay for.
        DELETE FROM billing_hold WHERE request_id = ANY(resolved)
        AND amount_nanousd = held[array_position(resolved, request_id)][1]
        AND allowance_tokens = held[array_position(resolved, request_id)][2]
        AND allowance_day IS NOT DISTINCT FROM held_days[array_position(resolved, request_id)];
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF gone <> cardinality(resolved) THEN
            RAISE EXCEPTION '% of % holds are gone, or others than were read or foreseen', cardinality(resolved) - gone,
                cardinality(resolved) USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    -- Mostly it is one account. A join with the arrays would take longer than to look each up in them.
    IF cardinality(accounts) = 1 THEN
        UPDATE billing_wallet SET balance_nanousd = wallets[1][1], held_nanousd = wallets[1][2]
        WHERE account_id = accounts[1];
    ELSIF cardinality(accounts) > 1 THEN
        UPDATE billing_wallet SET balance_nanousd = wallets[array_position(accounts, account_id)][1],
            held_nanousd = wallets[array_position(accounts, account_id)][2]
        WHERE account_id = ANY(accounts);
    END IF;
    IF budgets IS NOT NULL THEN
        UPDATE billing_budget b SET period_start = n.period_start, spent_nanousd = n.spent, held_nanousd = n.held,
            previous_spent_nanousd = n.previous_spent, previous_held_nanousd = n.previous_held
        FROM json_to_recordset(budgets) AS n (id bigint, period_start date, spent bigint, held bigint,
            previous_spent bigint, previous_held bigint)
        WHERE b.id = n.id;
    END IF;
    IF begun IS NOT NULL THEN
        INSERT INTO usage_dailyallowance (account_id, day, requests, tokens, held_tokens, share)
        SELECT account_id, day, 0, 0, 0, 0 FROM json_to_recordset(begun) AS n (account_id bigint, day date)
        ON CONFLICT DO NOTHING;
    END IF;
    IF drawn IS NOT NULL THEN
        UPDATE usage_dailyallowance d SET requests = d.requests + n.requests, tokens = d.tokens + n.tokens,
            held_tokens = d.held_tokens + n.held_tokens
        FROM json_to_recordset(drawn) AS n (account_id bigint, day date, requests int, tokens bigint,
            held_tokens bigint)
        WHERE d.account_id = n.account_id AND d.day = n.day;
    END IF;
    IF holds IS NOT NULL THEN
        INSERT INTO billing_hold (request_id, account_id, key_id, process_id, amount_nanousd, allowance_day,
            allowance_tokens, request, placed_at, minute_tokens)
        SELECT request_id, account_id, key_id, process_id, amount_nanousd, allowance_day, allowance_tokens,
            request, placed_at, minute_tokens
        FROM json_populate_recordset(NULL::billing_hold, holds);
    END IF;
    IF claims IS NOT NULL THEN
        INSERT INTO usage_idempotencyclaim (key_id, digest, body_digest, request_id, claimed_at)
        SELECT key_id, digest, body_digest, request_id, claimed_at
        FROM json_populate_recordset(NULL::usage_idempotencyclaim, claims);
    END IF;
    IF cardinality(freed) > 0 THEN
        DELETE FROM usage_idempotencyclaim WHERE request_id = ANY(freed);
    END IF;
    IF records IS NOT NULL THEN
        -- One that was recorded before (its settlement came back from the journal) is left as it is.
        template.is_rolled_up := false;
        INSERT INTO usage_usagerecord SELECT * FROM json_populate_recordset(template, records)
        ON CONFLICT (id) DO NOTHING;
    END IF;
    IF cardinality(missed) > 0 THEN
        -- Longer than a minute, and rarely anew: whoever asks meanwhile still finds it long enough.
        INSERT INTO usage_minutegap (key_id, ends_at)
        SELECT DISTINCT unnest(missed), clock_timestamp() + interval '150 s'
        ON CONFLICT (key_id) DO UPDATE SET ends_at = excluded.ends_at
        WHERE usage_minutegap.ends_at < excluded.ends_at - interval '75 s';
    END IF;
END $$;
"""
COMPARE = """
CREATE FUNCTION usage_compare_books(
    -- As they are foreseen: balance and held of each account, in the order of the locks; the versions of each key that asks.
    accounts bigint[], wallets bigint[], keys bigint[], versions bigint[],
    -- Budgets of these keys, environments of the keys where one is of one, allowances of these days. NULL: there is none.
    limited bigint[], budgets jsonb, environments jsonb, days date[], allowances jsonb,
    -- Of these there is nothing: idempotency keys that are taken, holds of ended requests.
    claimed text[], unheld uuid[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    same bigint;
BEGIN
    -- A wallet that somebody else has locked is compared as he leaves it. Each statement after this one sees what was
    -- committed before it began, hence all that was written under these locks. Mostly it is one account.
    IF cardinality(accounts) = 1 THEN
        PERFORM FROM billing_wallet WHERE account_id = accounts[1]
        AND balance_nanousd = wallets[1][1] AND held_nanousd = wallets[1][2] FOR UPDATE;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    ELSE
        SELECT count(*) INTO same FROM (
            SELECT FROM billing_wallet WHERE account_id = ANY(accounts)
            AND balance_nanousd = wallets[array_position(accounts, account_id)][1]
            AND held_nanousd = wallets[array_position(accounts, account_id)][2]
            ORDER BY account_id FOR UPDATE
        ) AS locked;
        IF same <> cardinality(accounts) THEN
            RETURN false;
        END IF;
    END IF;
    IF budgets IS NULL THEN
        IF EXISTS (
            SELECT FROM billing_budget WHERE account_id = ANY(accounts) AND coalesce(key_id, 0) = ANY(0 || limited)
        ) THEN
            RETURN false;
        END IF;
    ELSIF budgets IS DISTINCT FROM (
        SELECT jsonb_agg(jsonb_build_array(id, account_id, environment, key_id, period, limit_nanousd, is_hard_stop,
            period_start, spent_nanousd, held_nanousd, previous_spent_nanousd, previous_held_nanousd) ORDER BY id)
        FROM billing_budget WHERE account_id = ANY(accounts) AND coalesce(key_id, 0) = ANY(0 || limited)
    ) THEN
        RETURN false;
    END IF;
    IF environments IS NOT NULL THEN
        IF environments IS DISTINCT FROM (
            SELECT jsonb_agg(jsonb_build_array(id, environment) ORDER BY id) FROM keys_apikey WHERE id = ANY(limited)
        ) THEN
            RETURN false;
        END IF;
    END IF;
    IF cardinality(days) > 0 THEN
        IF allowances IS DISTINCT FROM (
            SELECT jsonb_agg(jsonb_build_array(account_id, day, requests, tokens, held_tokens) ORDER BY account_id, day)
            FROM usage_dailyallowance WHERE account_id = ANY(accounts) AND day = ANY(days)
        ) THEN
            RETURN false;
        END IF;
    END IF;
    IF cardinality(keys) > 0 THEN
        -- A key of which Redis has missed a request is asked. (One statement for both is cheaper than two.)
        IF EXISTS (SELECT FROM usage_minutegap WHERE key_id = ANY(keys) AND ends_at > clock_timestamp())
            OR cardinality(keys) <> (
                SELECT count(*) FROM keys_apikey k JOIN accounts_account a ON a.id = k.account_id
                WHERE k.id = ANY(keys) AND k.policy_version = versions[array_position(keys, k.id)][1]
                AND a.policy_version = versions[array_position(keys, k.id)][2]
            )
        THEN
            RETURN false;
        END IF;
    END IF;
    IF cardinality(claimed) > 0 THEN
        -- Whichever of the keys has taken it: that two send the same one at once is rare, and the batch is only asked.
        IF EXISTS (SELECT FROM usage_idempotencyclaim WHERE key_id = ANY(keys) AND digest = ANY(claimed)) THEN
            RETURN false;
        END IF;
    END IF;
    IF cardinality(unheld) > 0 THEN
        IF EXISTS (SELECT FROM billing_hold WHERE request_id = ANY(unheld)) THEN
            RETURN false;
        END IF;
    END IF;
    RETURN true;
END $$;
"""

# How much of a minute there is to count depends on what is asked, and so does how to.
PLAN = """
ALTER FUNCTION usage_open_books SET plan_cache_mode = auto;
"""
PLAN_AS_BEFORE = """
ALTER FUNCTION usage_open_books RESET plan_cache_mode;
"""

earlier = import_module("usage.migrations.0011_minute_gaps")


class Migration(migrations.Migration):
    """Two functions."""

    dependencies = [("usage", "0012_owed_mails")]

    operations = [
        migrations.RunSQL(
            DROP + "DROP FUNCTION usage_try_books;" + WRITE + COMPARE + PLAN,
            DROP + "DROP FUNCTION usage_compare_books;" + earlier.WRITE + earlier.TRY + PLAN_AS_BEFORE,
        ),
    ]
