"""What each role of `deploy.policy` may read in the schema, as SQL that the owner runs: pure.

Migrations make tables; who may see them is said in one place and brought into force after every
migration, whatever was granted before. Only our own tables and functions are named: on a hosted
database there may be others. Roles that are not there are passed over, because a hosted database
has none of ours. Partitions are granted to nobody: they are read through the tables in `public`.
"""

from __future__ import annotations

from typing import Final

from deploy.policy import DATABASE_ROLES, EVERYTHING, FUNCTIONS, TABLES, DatabaseRole

__all__ = ["DIFFERS", "grants_sql", "wanted"]

# Whether a role's rights differ from what is wanted: $1 are rows of role, table and reads.
DIFFERS: Final = """
    select exists (
        select from jsonb_to_recordset($1::jsonb) as w(role text, relation text, reads boolean)
        join pg_catalog.pg_roles as r on r.rolname = w.role
        cross join unnest(
            array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']
        ) as verb
        where has_table_privilege(r.oid, to_regclass('public.' || w.relation), verb)
            is distinct from (w.reads and verb = 'select')
    ) or exists (
        select from jsonb_to_recordset($2::jsonb) as w(role text, signature text, calls boolean)
        join pg_catalog.pg_roles as r on r.rolname = w.role
        where has_function_privilege(r.oid, to_regprocedure('public.' || w.signature), 'execute')
            is distinct from w.calls
    )
"""


def wanted() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return who shall read which table and call which function, as `DIFFERS` takes them."""
    readers = {name: role for name, role in DATABASE_ROLES.items() if not role.owns}
    return (
        [
            {"role": name, "relation": table, "reads": _reads(role, table)}
            for name, role in readers.items()
            for table in TABLES
        ],
        [
            {"role": name, "signature": signature, "calls": signature in role.calls}
            for name, role in readers.items()
            for signature in FUNCTIONS
        ],
    )


def grants_sql() -> list[str]:
    """Return statements that take all rights back and give those of the policy."""
    tables = ", ".join(f"public.{table}" for table in TABLES)
    functions = ", ".join(f"public.{signature}" for signature in FUNCTIONS)
    take_back = [
        f"revoke all on {tables} from {{role}}",
        f"revoke all on function {functions} from {{role}}",
        "revoke all on schema kite_parts from {role}",
    ]
    statements = [statement.format(role="public") for statement in take_back]
    for name, role in DATABASE_ROLES.items():
        if not role.owns:
            steps = [statement.format(role=name) for statement in take_back]
            statements.append(_if_there(name, steps + _gives(name, role)))
    return statements


def _gives(name: str, role: DatabaseRole) -> list[str]:
    reads = ", ".join(f"public.{table}" for table in TABLES if _reads(role, table))
    calls = ", ".join(f"public.{signature}" for signature in role.calls)
    return [
        *([f"grant select on {reads} to {name}"] if reads else []),
        *([f"grant execute on function {calls} to {name}"] if calls else []),
    ]


def _reads(role: DatabaseRole, table: str) -> bool:
    return role.reads == EVERYTHING or table in role.reads


def _if_there(name: str, steps: list[str]) -> str:
    exists = f"select from pg_catalog.pg_roles where rolname = '{name}'"
    return f"do $$ begin if exists ({exists}) then {'; '.join(steps)}; end if; end $$"
