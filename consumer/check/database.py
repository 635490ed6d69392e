"""PostgreSQL: it lets us in, has our tables, and a row can be written."""

from dataclasses import dataclass
from itertools import groupby
from shlex import quote
from typing import Final, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

from consumer.adapters import migrations, postgres
from consumer.adapters.postgres_records import PostgresRecords
from consumer.check.finding import Finding, Subject
from consumer.check.shell import Shell, sql
from consumer.core.errors import DependencyError, StartError
from schemas.environment import DatabaseSettings

DATABASE: Final = Subject("PostgreSQL")
_USUAL_PORTS: Final = (None, 5432)

_ROLES: Final = """
    SELECT quote_ident(current_user) AS me, quote_ident(current_schema()) AS schema,
        CASE owner WHEN 'pg_database_owner' THEN database_owner ELSE owner END AS owner,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create
    FROM (
        SELECT pg_get_userbyid(datdba) AS database_owner, coalesce((
            SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = coalesce(current_schema(), 'public')
        ), pg_get_userbyid(datdba)) AS owner FROM pg_database WHERE datname = current_database()
    ) AS owners"""

_LACKING: Final = """
    SELECT pg_get_userbyid(relowner) AS owner,
        CASE kind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END || relname AS thing, privilege
    FROM (VALUES
        ('image_uploads_migrations', 'r', 'SELECT'),
        ('job_outputs', 'r', 'SELECT'), ('job_outputs', 'r', 'INSERT'), ('job_outputs', 'r', 'UPDATE'),
        ('job_failures', 'r', 'SELECT'), ('job_failures', 'r', 'INSERT'), ('job_failures', 'r', 'UPDATE'),
        ('job_trials', 'r', 'SELECT'), ('job_trials', 'r', 'INSERT'), ('job_trials', 'r', 'UPDATE'),
        ('job_trials', 'r', 'DELETE'),
        ('job_cleanup', 'r', 'SELECT'), ('job_cleanup', 'r', 'INSERT'), ('job_cleanup', 'r', 'UPDATE'),
        ('job_cleanup', 'r', 'DELETE'),
        ('job_record_number', 'S', 'USAGE')
    ) AS needed (name, kind, privilege)
    JOIN pg_class ON pg_class.oid = to_regclass(name)
    WHERE NOT CASE kind
        WHEN 'S' THEN has_sequence_privilege(pg_class.oid, privilege)
        ELSE has_table_privilege(pg_class.oid, privilege) END
    ORDER BY owner, thing, privilege"""

_OWNER_OF: Final = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass($1)"
_MAY_CREATE_DATABASES: Final = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"


async def look(settings: DatabaseSettings, shell: Shell) -> list[Finding]:
    """What there is to say of the database; nothing in it has changed."""
    dsn = settings.database_url.get_secret_value()
    where = postgres.address(dsn)
    try:
        pool = await postgres.try_pool(dsn)
    except StartError as error:
        return [DATABASE.wrong(str(error), await _mend_refusal(error, dsn, shell))]
    except postgres.LOST as error:
        usual = urlsplit(dsn).port in _USUAL_PORTS
        mend = shell.start("postgresql", urlsplit(dsn).hostname, usual_port=usual, setting="DATABASE_URL")
        return [DATABASE.wrong(f"nobody answers at {where}: {type(error).__name__}", mend)]
    try:
        return [DATABASE.ok(f"{where} lets us in"), *await _Tables(pool, dsn, shell).findings()]
    finally:
        await postgres.close_pool(pool)


async def _mend_refusal(error: StartError, dsn: str, shell: Shell) -> str:
    if isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
        return await _create_database(dsn)
    if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
        name, user = _name(dsn), urlsplit(dsn).username or ""
        return sql(_beside(dsn), "postgres", f'GRANT CONNECT ON DATABASE "{name}" TO "{unquote(user)}"')
    return shell.ask("DATABASE_URL")


async def _create_database(dsn: str) -> str:
    parts = urlsplit(dsn)
    me = unquote(parts.username or "")
    who = ["-U", me]
    try:
        pool = await postgres.try_pool(_beside(dsn))
    except (StartError, *postgres.LOST):
        who = ["-U", "postgres", "-O", me]
    else:
        if not await pool.fetchval(_MAY_CREATE_DATABASES):
            who = ["-U", "postgres", "-O", me]
        await postgres.close_pool(pool)
    words = ["createdb", "-h", parts.hostname or "localhost", "-p", str(parts.port or 5432), *who, _name(dsn)]
    return " ".join(map(quote, words))


def _name(dsn: str) -> str:
    return unquote(urlsplit(dsn).path.removeprefix("/"))


def _beside(dsn: str) -> str:
    """The database that every server has, on the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path="/postgres"))


@dataclass(frozen=True, slots=True)
class _Roles:
    """Who we are to the database, and who owns where our tables are; no schema: none that we may use."""

    me: str
    schema: str | None
    owner: str
    may_create: bool

    @classmethod
    async def of(cls, pool: postgres.Pool) -> Self:
        """Those of this database."""
        return cls(**dict(await pool.fetchrow(_ROLES) or {}))


class _Tables:
    """The tables of one database, looked at one thing after the other."""

    def __init__(self, pool: postgres.Pool, dsn: str, shell: Shell) -> None:
        self._pool = pool
        self._dsn = dsn
        self._shell = shell

    async def findings(self) -> list[Finding]:
        """The first thing that is wrong with them, or what is right."""
        roles = await _Roles.of(self._pool)
        if roles.schema is None:
            mend = sql(self._dsn, roles.owner, f"GRANT USAGE ON SCHEMA public TO {roles.me}")
            return [DATABASE.wrong(f"{roles.me} may not use the schema public", mend)]
        if lacking := await self._lacking_rights(roles):
            return [lacking]
        return await self._are_there(roles)

    async def _lacking_rights(self, roles: _Roles) -> Finding | None:
        lacking = await self._pool.fetch(_LACKING)
        if not lacking:
            return None
        rights = {
            thing: ", ".join(row["privilege"] for row in rows)
            for thing, rows in groupby(lacking, key=lambda row: str(row["thing"]))
        }
        text = "; ".join(f"{privileges} on {thing}" for thing, privileges in rights.items())
        grants = [f"GRANT {privileges} ON {thing} TO {roles.me}" for thing, privileges in rights.items()]
        return DATABASE.wrong(f"{roles.me} lacks {text}", sql(self._dsn, lacking[0]["owner"], *grants))

    async def _are_there(self, roles: _Roles) -> list[Finding]:
        try:
            pending = await migrations.pending(self._pool)
        except StartError as error:
            return [DATABASE.wrong(str(error), await self._rename(str(error)))]
        if not pending:
            return [DATABASE.ok("the tables are there"), await self._rehearsal()]
        found = [] if roles.may_create else [self._may_not_create(roles)]
        return [*found, DATABASE.wrong(f"not applied yet: {', '.join(pending)}", self._shell.run("migrate"))]

    def _may_not_create(self, roles: _Roles) -> Finding:
        mend = sql(self._dsn, roles.owner, f"GRANT CREATE, USAGE ON SCHEMA {roles.schema} TO {roles.me}")
        return DATABASE.wrong(f"{roles.me} may not make tables in the schema {roles.schema}", mend)

    async def _rename(self, sentence: str) -> str:
        table = "job_outputs" if "job_outputs was" in sentence else "job_failures"
        owner = await self._pool.fetchval(_OWNER_OF, table)
        rename = sql(self._dsn, owner, f"ALTER TABLE {table} RENAME TO {table}_old")
        return f"{rename} && {self._shell.run('migrate')}"

    async def _rehearsal(self) -> Finding:
        try:
            await PostgresRecords(self._pool).probe()
        except DependencyError as error:
            return DATABASE.wrong(error.detail, self._shell.ask("DATABASE_URL"))
        return DATABASE.ok("a row can be written (and was rolled back)")
