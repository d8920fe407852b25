-- Jobs, their nodes, options and output (9.1). Statuses are the codes of 9.1; times are microseconds since 1970 UTC.
CREATE TABLE jobs (
    id          TEXT   NOT NULL PRIMARY KEY,
    org_id      TEXT   NOT NULL,
    command     TEXT   NOT NULL,
    status      INTEGER NOT NULL,
    run_timeout BIGINT NOT NULL,
    quorum      BIGINT NOT NULL,
    requester   TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    deadline    BIGINT
) WITHOUT ROWID;

CREATE INDEX jobs_by_org ON jobs (org_id, created_at);
CREATE INDEX jobs_unfinished ON jobs (status) WHERE status IN (0, 1, 5);

CREATE TABLE job_nodes (
    job_id     TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    node_name  TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    status     INTEGER NOT NULL,
    updated_at BIGINT  NOT NULL,
    PRIMARY KEY (job_id, node_name)
) WITHOUT ROWID;

-- A row exists only when some option is not its default. env is a JSON array of [name, value].
CREATE TABLE job_options (
    job_id   TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    job_user TEXT,
    dir      TEXT,
    env      TEXT,
    job_file TEXT,
    capture  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE job_output (
    job_id    TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    node_name TEXT NOT NULL,
    stdout    BLOB NOT NULL,
    stderr    BLOB NOT NULL,
    PRIMARY KEY (job_id, node_name)
);

-- Which CURVE key a node shakes hands with, and the key that signs its messages (decision 6).
CREATE TABLE bindings (
    org_id      TEXT    NOT NULL,
    org_name    TEXT    NOT NULL,
    node_name   TEXT    NOT NULL,
    curve_key   BLOB    NOT NULL,
    session_key BLOB    NOT NULL,
    fetched_at  BIGINT  NOT NULL,
    active      INTEGER NOT NULL,
    PRIMARY KEY (org_id, node_name, curve_key)
) WITHOUT ROWID;

-- Which key file this database goes with, and how often they were started together (decision 5).
CREATE TABLE identity (
    store_id   TEXT   NOT NULL PRIMARY KEY,
    generation BIGINT NOT NULL
);
