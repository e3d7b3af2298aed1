"""How a station's database is opened: SQLite (a file, WAL, every commit on the disk when it returns) or PostgreSQL (a URL).

Everything that the two say differently stands here, and what their errors mean: some pass, a damaged file does not.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Engine, UpdateBase, create_engine, event, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, ProgrammingError, SQLAlchemyError, StatementError
from sqlalchemy.pool import NullPool, QueuePool

from firmware.wire import WireError
from gateway import schema
from gateway.desk import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table

LOCK = 0x70C51  # PostgreSQL's advisory lock of whoever writes
RUNS = 0x70C52  # and of a station as long as it runs

_POSTGRESQL = {
    "options": "-c synchronous_commit=on -c client_encoding=UTF8",
    "connect_timeout": 5,
    "keepalives_idle": 5,  # seconds; a server that vanished is noticed before headquarters would call us late
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
_PASSING = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the disk or the file is read-only",
    sqlite3.SQLITE_IOERR: "the disk answers with an error",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened",
    sqlite3.SQLITE_BUSY: "another program holds the database",
    sqlite3.SQLITE_LOCKED: "another program holds the database",
    sqlite3.SQLITE_PROTOCOL: "another program holds the database",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}
_MIGRATING = threading.Lock()  # Alembic knows one migration at a time in a process
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNFIT_STATES = {"42804", "42846", "42883"}  # PostgreSQL: a value of a type that a column or an operator does not take
_PASSING_STATES = {"53100": "the disk is full", "25006": "the database is read-only", "55P03": "the database is locked"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the database can't be used. passes: it may go away by itself, and trying again is right."""

    why: str
    passes: bool


class DamagedError(StorageError):
    """The database is damaged. why: how that was noticed."""

    def __init__(self, told: str, why: str) -> None:
        super().__init__(told)
        self.why = why


def trouble(error: BaseException) -> Trouble | None:
    """What an error of the database means; None: it is no trouble of the storage but a fault of the program."""
    if isinstance(error, SQLAlchemyError) and not isinstance(error, DBAPIError):
        return None
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            return Trouble(f"the database is damaged ({cause})", passes=False)
        return Trouble(f"{_PASSING[code]} ({cause})", passes=True) if code in _PASSING else None
    state = getattr(cause, "sqlstate", None)
    if state in {"XX001", "XX002"}:
        return Trouble(f"the database is damaged ({cause})", passes=False)
    if state in _PASSING_STATES:
        return Trouble(f"{_PASSING_STATES[state]} ({cause})", passes=True)
    if any(one.__name__ in {"OperationalError", "InterfaceError"} for one in type(cause).__mro__):
        return Trouble(f"the database does not answer ({str(cause).strip()})", passes=True)
    return (
        Trouble(f"the file system answers with an error ({cause})", passes=True) if isinstance(cause, OSError) else None
    )


def is_unfit(error: BaseException) -> bool:
    """Whether an error says that a value has no place in the database, or in a statement: its writer's fault alone."""
    if isinstance(error, DataError):
        return True
    if isinstance(error, DBAPIError):
        return isinstance(error, ProgrammingError) and getattr(error.orig, "sqlstate", None) in _UNFIT_STATES
    cause = error.orig if isinstance(error, StatementError) else error
    return isinstance(cause, (ArithmeticError, ValueError, TypeError, LookupError, WireError))


def announce(connection: Connection) -> None:
    """Lets `is_announced` say that a station runs, as long as this connection lasts. SQLite's file tells it by itself."""
    if connection.dialect.name == "postgresql":
        with connection.begin():
            connection.execute(text("SELECT pg_advisory_lock_shared(:lock)"), {"lock": RUNS})


def is_announced(connection: Connection) -> bool:
    """Whether a station runs on this PostgreSQL database; if not, one that starts waits until the transaction's end."""
    if connection.dialect.name != "postgresql":
        return False
    return not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": RUNS}).scalar()


def open_database(where: Path | str, *, writes: bool, create: bool = True) -> Engine:
    """An engine. where: SQLite's file, or PostgreSQL's URL. `writes`: a transaction takes the lock of the one writer.

    create: whether a missing file is made; one that reads never does.
    """
    options: dict[str, Any] = {"poolclass": NullPool} if writes else {"poolclass": QueuePool, "pool_size": 4}
    engine = (
        _open_postgresql(where, options, writes=writes)
        if isinstance(where, str)
        else _open_sqlite(where, options, writes=writes, create=create)
    )
    if writes:

        @event.listens_for(engine, "before_execute")
        def _note(connection: Connection, statement: object, *_: object) -> None:
            if isinstance(statement, UpdateBase) and statement.table in schema.REGISTRY:
                row = {"key": schema.REGISTRY_WRITTEN, "value": secrets.token_hex(8)}
                upsert(connection, schema.station, row, ["key"])

    return engine


def _open_sqlite(where: Path, options: Mapping[str, Any], *, writes: bool, create: bool) -> Engine:
    mode = "rwc" if writes and create else "rw"
    engine = create_engine(
        f"sqlite:///file:{quote(str(where.absolute()))}?mode={mode}&uri=true",
        connect_args={"timeout": 10, "check_same_thread": False},
        **options,
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # SQLAlchemy begins and ends every transaction itself
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_postgresql(url: str, options: Mapping[str, Any], *, writes: bool) -> Engine:
    try:
        engine = create_engine(
            url,
            connect_args=_POSTGRESQL,
            pool_pre_ping=not writes,
            **options,
        )
    except (SQLAlchemyError, ImportError) as error:
        raise StorageError(
            f"the database of the settings can't be used ({error}): write postgresql+psycopg://USER@HOST/NAME, and install "
            "Tocsin's extra “postgresql”"
        ) from error
    if writes:

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    return engine


def prepare(where: Path | str) -> None:
    """Makes the database, or brings its tables up to this version's. Raises StorageError with what to do."""
    try:
        if isinstance(where, Path):
            where.parent.mkdir(parents=True, exist_ok=True)
        if not _is_current(where):
            engine = open_database(where, writes=True)
            try:
                with engine.begin() as connection:
                    _migrate(connection)
            finally:
                engine.dispose()
    except (DBAPIError, OSError) as error:
        raise refusal(error) from error


def refusal(error: DBAPIError | OSError) -> StorageError:
    """What to raise instead, with what to do. Raises `error` itself if it is a fault of the program."""
    found = trouble(error)
    if found is None:
        raise error
    return StorageError(advice(found)) if found.passes else DamagedError(advice(found), found.why)


def advice(found: Trouble) -> str:
    """What is wrong and what to do, for a log and a shell."""
    if found.passes:
        return f"the journal can't be used: {found.why}; see to the disk or the database server, then start again"
    return (
        f"the journal can't be used: {found.why}; run `tocsin journal verify`, then `tocsin journal restore` with the newest "
        "backup, each with --config and this station's settings"
    )


def revision(connection: Connection) -> str | None:
    """Of the tables; None: they are from before there were revisions, or there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _is_current(where: Path | str) -> bool:
    if isinstance(where, Path) and not where.exists():
        return False
    engine = open_database(where, writes=False)
    try:
        with engine.connect() as connection:
            return revision(connection) == schema.REVISION
    finally:
        engine.dispose()


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        with _MIGRATING:
            command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(
            f"the database is of revision {revision(connection)}, which this version of Tocsin does not know: run the newer "
            "version that wrote it, or restore a backup"
        ) from error


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say ON CONFLICT."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def upsert(
    connection: Connection, table: Table, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> None:
    """Inserts rows, all with the same columns; of one whose `keys` are there already, the other columns are replaced."""
    listed = [rows] if isinstance(rows, Mapping) else list(rows)
    statement = insert(connection, table)
    statement = statement.on_conflict_do_update(
        index_elements=keys, set_={name: statement.excluded[name] for name in listed[0] if name not in keys}
    )
    connection.execute(statement, [dict(row) for row in listed])


def version(connection: Connection) -> str:
    """Another one whenever anybody else committed to the database since. Ask it on one connection that never writes."""
    statement = "PRAGMA data_version" if connection.dialect.name == "sqlite" else "SELECT pg_current_snapshot()::text"
    return str(connection.execute(text(statement)).scalar())


def kept(connection: Connection, key: str) -> str | None:
    """A value of the table `station`."""
    return connection.execute(select(schema.station.c.value).where(schema.station.c.key == key)).scalar()
