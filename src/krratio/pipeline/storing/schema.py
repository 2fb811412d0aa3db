"""The file format of a store: what is in it, and what tells it from other files."""

import sqlite3
from pathlib import Path

from krratio.errors import StoreError

__all__ = ["APPLICATION", "SCHEMA", "VERSION", "check", "create"]

APPLICATION = 0x6B724B52
"""In the header of every store, where sqlite keeps whose file it is."""

VERSION = 1
"""Of the schema; a file of another version is refused."""

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE tasks (
  key TEXT PRIMARY KEY,
  function TEXT NOT NULL,
  code TEXT NOT NULL,
  parameters TEXT NOT NULL,
  seed INTEGER,
  status TEXT NOT NULL CHECK (status IN ('pending', 'done', 'failed')),
  attempts INTEGER NOT NULL,
  result TEXT,
  error TEXT,
  provenance TEXT,
  seconds REAL,
  finished TEXT,
  checksum TEXT NOT NULL
);
CREATE TABLE plan (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE INDEX by_status ON tasks (status);
"""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty file."""
    connection.executescript(
        f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; "
        "COMMIT;"
    )


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError unless the open file is a store of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise StoreError(f"{path} is no store of krratio; give another file")
    if version != VERSION:
        do = "use a newer krratio" if version > VERSION else "use the krratio that wrote it"
        raise StoreError(
            f"{path} is a store of version {version}; this krratio reads version {VERSION}: {do}, "
            "or take its rows over with krratio export and import"
        )
