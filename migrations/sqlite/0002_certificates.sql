-- Certificates are public: they are not sealed, so that they can be found by what they say. Each row has a tag, made with a key
-- that the sealed store has and the database has not; a sealed record counts the rows. What is written stays: a state is a row
-- that is added.

-- What is about to be signed, or was. Rows are numbered from 1 without a gap.
CREATE TABLE certificates (
    number     INTEGER NOT NULL PRIMARY KEY,
    serial     BLOB    NOT NULL UNIQUE,
    issuer     TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    profile    TEXT    NOT NULL,
    requester  TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    names      TEXT    NOT NULL,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    tag        BLOB    NOT NULL
) STRICT;

CREATE INDEX certificates_by_issuer ON certificates (issuer);
CREATE INDEX certificates_by_profile ON certificates (profile);
CREATE INDEX certificates_by_requester ON certificates (requester);
CREATE INDEX certificates_by_end ON certificates (not_after);

-- The alternative names of each certificate, to find it by.
CREATE TABLE certificate_names (
    name   TEXT    NOT NULL,
    number INTEGER NOT NULL REFERENCES certificates,
    PRIMARY KEY (name, number)
) STRICT, WITHOUT ROWID;

-- How a reservation ended: the algorithm and signature that follow the body, or nothing where it was given up.
CREATE TABLE certificate_ends (
    number    INTEGER NOT NULL PRIMARY KEY REFERENCES certificates,
    at        INTEGER NOT NULL,
    signature BLOB,
    tag       BLOB    NOT NULL
) STRICT;

CREATE TRIGGER certificates_stay BEFORE DELETE ON certificates BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
CREATE TRIGGER certificates_are_final BEFORE UPDATE ON certificates BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
CREATE TRIGGER certificate_names_stay BEFORE DELETE ON certificate_names BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
CREATE TRIGGER certificate_names_are_final BEFORE UPDATE ON certificate_names BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
CREATE TRIGGER certificate_ends_stay BEFORE DELETE ON certificate_ends BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
CREATE TRIGGER certificate_ends_are_final BEFORE UPDATE ON certificate_ends BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
