"""The queue's file: its tables.

    messages   one row a message, dead letters too; gone once it is acknowledged
    attempts   those that failed or lost their worker
    counts     rows of `messages` by priority and state, kept by triggers: counting is free
    requests   which job a tenant's request id made, so that it makes no other
    replayed   what a replay's request id asked for, and what was answered
    control    whether the queue is paused, by whom and why

`state` is `MessageState`. READY rows are due; DELAYED ones become READY when their time has come,
so the index of what may be leased holds nothing else. A lease's end is in steady time, which no
correction of the clock moves: leases of a former process are ended when the file is opened.
`error` is what the last error said, case folded, to be searched.
"""

import sqlite3

from liner_server.errors import FailedPreconditionError

VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages(
  id INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, priority INT NOT NULL,
  tenant TEXT NOT NULL, state INT NOT NULL, due REAL NOT NULL, published REAL NOT NULL,
  delivery INT NOT NULL DEFAULT 0, leased_at REAL, lease_until REAL, token TEXT,
  track_id TEXT NOT NULL, request_id TEXT NOT NULL, attributes TEXT NOT NULL, body BLOB NOT NULL,
  error TEXT NOT NULL DEFAULT '', cause INT NOT NULL DEFAULT 0, died REAL);
CREATE INDEX IF NOT EXISTS ready ON messages(priority, tenant, due, id) WHERE state = 1;
CREATE INDEX IF NOT EXISTS delayed ON messages(due) WHERE state = 2;
CREATE INDEX IF NOT EXISTS leased ON messages(lease_until) WHERE state = 3;
CREATE INDEX IF NOT EXISTS dead ON messages(died, id) WHERE state = 4;
CREATE TABLE IF NOT EXISTS attempts(
  message INT NOT NULL, number INT NOT NULL, started REAL NOT NULL, ended REAL, error BLOB,
  model TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS attempts_of ON attempts(message);
CREATE TABLE IF NOT EXISTS counts(
  priority INT NOT NULL, state INT NOT NULL, n INT NOT NULL, PRIMARY KEY(priority, state)
) WITHOUT ROWID;
INSERT OR IGNORE INTO counts SELECT p.value, s.value, 0
  FROM json_each('[1,2,3]') AS p, json_each('[1,2,3,4]') AS s;
CREATE TRIGGER IF NOT EXISTS come AFTER INSERT ON messages BEGIN
  UPDATE counts SET n = n + 1 WHERE priority = NEW.priority AND state = NEW.state;
END;
CREATE TRIGGER IF NOT EXISTS gone AFTER DELETE ON messages BEGIN
  UPDATE counts SET n = n - 1 WHERE priority = OLD.priority AND state = OLD.state;
END;
CREATE TRIGGER IF NOT EXISTS moved AFTER UPDATE OF state, priority ON messages BEGIN
  UPDATE counts SET n = n - 1 WHERE priority = OLD.priority AND state = OLD.state;
  UPDATE counts SET n = n + 1 WHERE priority = NEW.priority AND state = NEW.state;
END;
CREATE TABLE IF NOT EXISTS requests(
  tenant TEXT NOT NULL, request_id TEXT NOT NULL, digest BLOB NOT NULL, message_id TEXT NOT NULL,
  at REAL NOT NULL, PRIMARY KEY(tenant, request_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_at ON requests(at);
CREATE TABLE IF NOT EXISTS replayed(
  request_id TEXT PRIMARY KEY, asked BLOB NOT NULL, answer BLOB NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS control(
  one INT PRIMARY KEY CHECK (one = 1), paused INT NOT NULL, paused_by TEXT NOT NULL,
  pause_reason TEXT NOT NULL);
INSERT OR IGNORE INTO control VALUES (1, 0, '', '');
"""


def check_version(db: sqlite3.Connection) -> None:
    """Pass if this program knows the file's tables, and mark a new file.

    Raises:
        FailedPreconditionError: another version of the program wrote it.

    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        db.execute(f"PRAGMA user_version={VERSION}")
    elif version != VERSION:
        raise FailedPreconditionError(
            f"the queue's file is of version {version}; this program knows {VERSION}",
            reason="QUEUE_VERSION",
        )
