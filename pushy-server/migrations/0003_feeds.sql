-- Events of jobs whose feed can still be asked for, as they go over the wire: a batch in each row. `first` and `last` are the
-- numbers of its events, `at` is when the last one happened.
CREATE TABLE job_feeds (
    job_id TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    first  BIGINT  NOT NULL,
    last   BIGINT  NOT NULL,
    at     BIGINT  NOT NULL,
    frames BLOB    NOT NULL,
    PRIMARY KEY (job_id, first)
) WITHOUT ROWID;
