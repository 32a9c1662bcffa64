"""Questions to the catalog whose answer must be: nothing. Each names what breaks a rule.

The rules are ours and those of Supabase's advisors that concern what we make: row-level security is
on everywhere and forced nowhere, web roles may at most read, partitions are out of reach, views and
functions lend nobody the owner's rights, but for those that the service key calls.
"""

from __future__ import annotations

import asyncpg

__all__ = ["broken_rules"]

# By hand, not from the policy: what the service key may do with the owner's rights.
_LENT = """ARRAY[
    'kite_ensure_partition(text,date)',
    'kite_commit(text,integer,bigint,bigint,bigint,bigint,json,json,json,json,json,json)',
    'kite_claim(jsonb)', 'kite_positions()', 'kite_report(jsonb)', 'kite_prune_reports(bigint)',
    'kite_database_bytes()', 'kite_first_day(text)', 'kite_keep(text)', 'kite_ticks_since()',
    'kite_usage(text[])',
    'kite_tally(text,integer,text[],bigint[],bigint[],bigint,integer)',
    'kite_first_gap()', 'kite_open_minutes(text[],bigint[])',
    'kite_traded_minutes(bigint,bigint)', 'kite_session_minutes(bigint,bigint,boolean)']"""

_VIEWS = """
CREATE TEMP VIEW schemas AS
    SELECT oid AS id, nspname AS name, nspacl AS acl FROM pg_namespace
    WHERE nspname IN ('public', 'kite_parts');
CREATE TEMP VIEW relations AS
    SELECT c.oid AS id, c.oid::regclass::text AS name, s.name AS schema, c.* FROM pg_class AS c
    JOIN schemas AS s ON s.id = c.relnamespace;
CREATE TEMP VIEW functions AS
    SELECT p.oid AS id, p.oid::regprocedure::text AS name, p.* FROM pg_proc AS p
    JOIN schemas AS s ON s.id = p.pronamespace;
CREATE TEMP VIEW web AS
    SELECT oid AS id, rolname AS name FROM pg_roles
    WHERE rolname IN ('anon', 'authenticated', 'service_role') UNION ALL SELECT 0, 'public';
"""

_RULES = {
    "row-level security is off": """
        SELECT name FROM relations WHERE relkind IN ('r', 'p') AND NOT relrowsecurity""",
    "row-level security is forced": """
        SELECT name FROM relations WHERE relforcerowsecurity""",
    "the web may write": """
        SELECT r.name || ' ' || a.privilege_type || ' ' || web.name
        FROM relations AS r, aclexplode(r.relacl) AS a JOIN web ON web.id = a.grantee
        WHERE a.privilege_type <> 'SELECT'""",
    "a partition is granted": """
        SELECT r.name || ' ' || a.privilege_type
        FROM relations AS r, aclexplode(r.relacl) AS a JOIN web ON web.id = a.grantee
        WHERE r.schema = 'kite_parts'""",
    "the schema of partitions is granted": """
        SELECT a.privilege_type
        FROM schemas AS s, aclexplode(s.acl) AS a JOIN web ON web.id = a.grantee
        WHERE s.name = 'kite_parts'""",
    "a policy lets somebody write": """
        SELECT tablename || '.' || policyname FROM pg_policies WHERE cmd <> 'SELECT'""",
    "a function has a mutable search_path": """
        SELECT name FROM functions
        WHERE NOT coalesce('search_path=""' = ANY (proconfig), false)""",
    "a function lends its owner's rights": """
        SELECT name FROM functions WHERE prosecdef AND name <> ALL ({lent})""",
    "the web may call a function": """
        SELECT f.name || ' ' || web.name FROM functions AS f, web
        WHERE web.id <> 0 AND has_function_privilege(web.id, f.id, 'EXECUTE')
          AND NOT (web.name = 'service_role' AND f.name = ANY ({lent}))""",
    "everybody may call a function that lends its owner's rights": """
        SELECT f.name FROM functions AS f,
            aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) AS a
        WHERE f.prosecdef AND a.grantee = 0""",
    "a view lends its owner's rights": """
        SELECT name FROM relations
        WHERE relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)""",
    "a table has no primary key": """
        SELECT name FROM relations AS r WHERE relkind IN ('r', 'p')
          AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = r.id AND i.indisprimary)""",
}


async def broken_rules(connection: asyncpg.Connection) -> list[str]:
    """Return one line for each breach of a rule."""
    await connection.execute(_VIEWS)
    return [
        f"{rule}: {record[0]}"
        for rule, query in _RULES.items()
        for record in await connection.fetch(query.replace("{lent}", _LENT))
    ]
