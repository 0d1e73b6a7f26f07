-- One row per record. The value is sealed before it gets here, so there is nothing to index but the path.
CREATE TABLE records (
    path     TEXT    NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    value    BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- The revision of the last commit. It outlives the records, so that no revision is ever given twice.
CREATE TABLE meta (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (name, value) VALUES ('revision', 0);
