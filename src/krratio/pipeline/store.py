"""The store of a sweep: one sqlite file, written by the one process that drives the sweep."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from krratio.errors import StoreError
from krratio.pipeline.lock import only_one
from krratio.pipeline.storing import schema
from krratio.pipeline.storing.row import COLUMNS, Row, damaged
from krratio.pipeline.sweeping.plain import from_text, text
from krratio.pipeline.sweeping.task import Outcome, Status, Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Store"]

PAGE = 500  # rows read at a time
FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE")
_READ = ", ".join(f"tasks.{name}" for name in (*COLUMNS, "checksum"))
_WRITE = f"INSERT OR REPLACE INTO tasks VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"


class Store:
    """Tasks and their results.

    The *plan* is the grid that was swept last; rows that are not in it stay, and count as results
    again as soon as a plan holds the very same task. Every method raises StoreError if the file is
    damaged, and OSError if it cannot be written; what was written before is kept.

    Parameters
    ----------
    path
        The file.
    write
        Whether to write. It is made if it does not exist, and no second writer is let in.
    patience
        Seconds to wait for another writer to end.

    Raises
    ------
    StoreError
        If the file is no store, of another version, damaged, or missing and not to be written.
    BusyError
        If another process writes it.
    OSError
        If it cannot be made or written.
    """

    def __init__(self, path: Path, *, write: bool = False, patience: float = 0.0) -> None:
        self.path = path
        self._writes = write
        self._ending = ExitStack()
        if path.is_dir():
            raise StoreError(f"{path} is a folder; a store is a file")
        try:
            if write:
                lock = path.with_name(f"{path.name}.lock")
                self._ending.enter_context(only_one(lock, str(path), patience=patience))
            self._connection = self._ending.enter_context(closing(self._open(write)))
        except BaseException:
            self._ending.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; if nobody reads it, it is one plain file again."""
        if self._writes:
            with suppress(sqlite3.Error):
                self._connection.executescript(
                    "PRAGMA busy_timeout = 0; PRAGMA journal_mode = DELETE;"
                )
        self._ending.close()

    def plan(self, name: str, tasks: Iterable[Task], **facts: Any) -> None:
        """Make `tasks` the plan of the sweep `name`; those that are new are pending.

        Facts are plain values that are kept beside it.

        Raises
        ------
        StoreError
            If the store belongs to a sweep of another name.
        """
        with self._writing():
            self._plan(name, tasks, facts)

    def record(self, outcomes: Iterable[tuple[Task, Outcome]]) -> None:
        """Keep outcomes, all of them or none."""
        with self._writing() as connection:
            for task, outcome in outcomes:
                row = self._row(task).after(outcome)
                connection.execute(_WRITE, row.values())

    def restore(self, name: str, rows: Sequence[Row], **facts: Any) -> None:
        """Make `rows`, with their results, the plan of the sweep `name`; facts as in `plan`.

        Raises
        ------
        StoreError
            If the store holds a result already.
        """
        with self._writing() as connection:
            query = "SELECT count(*) FROM tasks WHERE status != 'pending'"
            (finished,) = connection.execute(query).fetchone()
            if finished:
                raise StoreError(
                    f"{self.path} holds {finished} results already; give a new file to restore into"
                )
            self._plan(name, (row.task for row in rows), facts)
            for row in rows:
                connection.execute(_WRITE, row.values())

    def retry(self) -> int:
        """Make the failed tasks of the plan pending; return how many."""
        failed = [row.task for row in self.rows("failed")]
        self.forget(failed)
        return len(failed)

    def forget(self, tasks: Iterable[Task]) -> None:
        """Make tasks pending, whatever came out of them."""
        with self._writing() as connection:
            for task in tasks:
                connection.execute(_WRITE, self._row(task).waiting().values())

    def facts(self) -> dict[str, Any]:
        """Return what is kept beside the plan; ``sweep`` is its name."""
        with self._reading() as connection:
            found = connection.execute("SELECT name, value FROM facts").fetchall()
        return {name: from_text(value) for name, value in found}

    def note(self, **facts: Any) -> None:
        """Keep facts beside the plan."""
        with self._writing():
            self._note(facts)

    def rows(self, *statuses: Status, after: int = -1) -> Iterator[Row]:
        """Yield the rows of the plan in its order, those of some statuses only, if given.

        It may be written to meanwhile: no row comes twice, and none is left out.
        """
        wanted = statuses or ("pending", "done", "failed")
        query = (
            f"SELECT plan.number, {_READ} FROM plan JOIN tasks USING (key) "
            f"WHERE plan.number > ? AND status IN ({', '.join('?' * len(wanted))}) "
            f"ORDER BY plan.number LIMIT {PAGE}"
        )
        while True:
            with self._reading() as connection:
                page = connection.execute(query, (after, *wanted)).fetchall()
            for number, *values in page:
                yield Row.read(number, tuple(values), self.path)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def frame(self) -> "pd.DataFrame":
        """Return what is done as one table: number, parameters, seed, and what was returned."""
        import pandas as pd

        from krratio.pipeline.storing.table import table_of

        return pd.DataFrame(dict(table_of(self.rows("done"), self.facts()["names"]).columns))

    def all_rows(self) -> Iterator[Row]:
        """Yield every row, in the plan or not, in no particular order; all numbers are 0."""
        with self._reading() as connection:
            for values in connection.execute(f"SELECT {_READ} FROM tasks"):
                yield Row.read(0, values, self.path)

    def counts(self) -> dict[Status, int]:
        """Return how many tasks of the plan are pending, done and failed."""
        query = "SELECT status, count(*) FROM plan JOIN tasks USING (key) GROUP BY status"
        with self._reading() as connection:
            found = dict(connection.execute(query).fetchall())
        return {"pending": 0, "done": 0, "failed": 0, **found}

    def others(self) -> int:
        """Return how many finished tasks are not in the plan: other code, or other values."""
        query = (
            "SELECT count(*) FROM tasks WHERE status != 'pending' "
            "AND key NOT IN (SELECT key FROM plan)"
        )
        with self._reading() as connection:
            return int(connection.execute(query).fetchone()[0])

    def _plan(self, name: str, tasks: Iterable[Task], facts: Mapping[str, Any]) -> None:
        owner = self.facts().get("sweep", name)
        if owner != name:
            raise StoreError(
                f"{self.path} holds the sweep {owner!r}, not {name!r}; give another --store"
            )
        connection = self._connection
        self._note({**facts, "sweep": name})
        connection.execute("DELETE FROM plan")
        for task in tasks:
            connection.execute("INSERT INTO plan VALUES (?, ?)", (task.number, task.key))
            connection.execute(_WRITE.replace("REPLACE", "IGNORE"), Row(task).values())

    def _note(self, facts: Mapping[str, Any]) -> None:
        values = [(name, text(value)) for name, value in facts.items()]
        self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", values)

    def _row(self, task: Task) -> Row:
        query = f"SELECT {_READ} FROM tasks WHERE key = ?"
        found: Sequence[Any] = self._connection.execute(query, (task.key,)).fetchone()
        return Row.read(task.number, tuple(found), self.path)

    def _open(self, write: bool) -> sqlite3.Connection:
        if not write and not self.path.is_file():
            raise StoreError(f"{self.path}: there is no such store")
        if write and not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "rwc" if write else "ro"
        with self._explaining():
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=60,
            )
        try:
            with self._explaining():
                self._prepare(connection, write)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, write: bool) -> None:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if write and not tables and self.path.stat().st_size == 0:
            schema.create(connection)
        schema.check(connection, self.path)
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise self._damaged(found)
        if write:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a commit outlives a power cut

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._explaining():
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._explaining():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn sqlite's errors into ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            name = getattr(error, "sqlite_errorname", "")
            if name in FULL:
                raise OSError(
                    28, f"{error}; nothing of the store is lost", str(self.path)
                ) from None
            if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
                raise OSError(13, f"{error}", str(self.path)) from None
            raise self._damaged(str(error)) from None
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
                raise StoreError(f"{self.path} is no store of krratio; give another file") from None
            raise self._damaged(str(error)) from None
        except UnicodeDecodeError as error:  # of a name or a text in the file
            raise self._damaged(str(error)) from None

    def _damaged(self, what: str) -> StoreError:
        return damaged(self.path, what)
