"""What tracking a table costs its writers: the server's CPU for a row, beside an untracked table and cheaper designs.

Run: `python -m benchmarks.tracked`. The server comes from a wheel; nobody else uses it.
"""

from __future__ import annotations

from typing import Any

import psycopg

from fraiseql_subs import _core
from fraiseql_subs.servers import PostgreSQL

from .buses import cpu_of

ROWS = 30_000
TABLE = "CREATE TABLE t (id int PRIMARY KEY, tenant text, name text, amount numeric, at timestamptz, note text)"
WORK = {
    "insert": "INSERT INTO t SELECT i, 't' || i % 10, 'name ' || i, i / 100.0, now(), repeat('x', 120) "
    f"FROM generate_series(1, {ROWS}) AS i",
    "update": "UPDATE t SET amount = amount + 1",
    "delete": "DELETE FROM t",
}
COLUMNS = "'{id,tenant,name,amount,at,note}'"
# One statement for all rows, with what it would put up with: rows are paired by the order in which they happen to come.
STATEMENT = """
    CREATE FUNCTION by_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO fraiseql_subs.event (channel, event_type, tenant_id, data, previous)
            SELECT 't', lower(TG_OP), j ->> 'tenant', j::json, k::json FROM ({rows}) AS rows OFFSET 0;
        PERFORM pg_notify('fraiseql_subs', '');
        RETURN NULL;
    END $$;
    CREATE TRIGGER by_statement AFTER {operation} ON t REFERENCING {tables}
        FOR EACH STATEMENT EXECUTE FUNCTION by_statement();
"""
PAIRS = (
    "SELECT j, k FROM (SELECT to_jsonb(n) AS j, row_number() OVER () AS i FROM new AS n) AS a "
    "JOIN (SELECT to_jsonb(o) AS k, row_number() OVER () AS i FROM old AS o) AS b USING (i)"
)
BY_STATEMENT = {
    "insert": STATEMENT.format(
        operation="INSERT", tables="NEW TABLE AS new", rows="SELECT to_jsonb(n) AS j, NULL AS k FROM new AS n"
    ),
    "update": STATEMENT.format(operation="UPDATE", tables="OLD TABLE AS old NEW TABLE AS new", rows=PAIRS),
    "delete": STATEMENT.format(
        operation="DELETE", tables="OLD TABLE AS old", rows="SELECT to_jsonb(o) AS j, to_jsonb(o) AS k FROM old AS o"
    ),
}
PUBLISH = """
    CREATE FUNCTION by_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM fraiseql_subs.publish('t', lower(TG_OP), to_jsonb(coalesce(NEW, OLD)), (coalesce(NEW, OLD)).tenant,
            NULL, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END);
        RETURN NULL;
    END $$;
    CREATE TRIGGER by_publish AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION by_publish();
"""
#: By name, what is done to the table for each operation.
WAYS: dict[str, Any] = {
    "untracked": "",
    "tracked": "SELECT fraiseql_subs.track('t', tenant_column => 'tenant')",
    "tracked, all columns named": f"SELECT fraiseql_subs.track('t', tenant_column => 'tenant', columns => {COLUMNS})",
    "row triggers that call publish()": PUBLISH,
    "statement triggers": BY_STATEMENT,
}


def main() -> None:
    """Prints a table."""
    with PostgreSQL() as server, psycopg.connect(server.url, autocommit=True) as db:
        _core.postgres_install(server.url, "fraiseql_subs")
        print(f"{'µs a row':34}" + "".join(f"{operation:>10}" for operation in WORK))
        for name, how in WAYS.items():
            costs = []
            for operation, statement in WORK.items():
                db.execute("DROP TABLE IF EXISTS t; DROP FUNCTION IF EXISTS by_statement, by_publish; " + TABLE)
                if operation != "insert":
                    db.execute(WORK["insert"])
                db.execute((how[operation] if isinstance(how, dict) else how).encode() or b"SELECT")
                db.execute("TRUNCATE fraiseql_subs.event")
                before = cpu_of(db.info.backend_pid)
                db.execute(statement.encode())
                costs.append((cpu_of(db.info.backend_pid) - before) / ROWS * 1e6)
            print(f"{name:34}" + "".join(f"{cost:10.1f}" for cost in costs))


if __name__ == "__main__":
    main()
