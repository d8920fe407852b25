-- What a node's agent published and what the administrator has fixed (decision 44); gone with the node.
CREATE TABLE node_documents (
    kind         TEXT NOT NULL,
    org          TEXT NOT NULL,
    name         TEXT NOT NULL,
    document     TEXT,
    published_at BIGINT,
    fixed        TEXT,
    PRIMARY KEY (kind, org, name),
    FOREIGN KEY (kind, org, name) REFERENCES principals (kind, org, name) ON DELETE CASCADE
) WITHOUT ROWID;
