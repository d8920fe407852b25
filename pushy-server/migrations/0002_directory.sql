-- The server's own directory: who may do what. Users belong to no organization (org is ''), clients to one.
CREATE TABLE organizations (
    name TEXT NOT NULL PRIMARY KEY,
    guid TEXT NOT NULL UNIQUE
);

CREATE TABLE principals (
    kind TEXT NOT NULL,
    org  TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (kind, org, name)
) WITHOUT ROWID;

CREATE TABLE principal_keys (
    kind       TEXT NOT NULL,
    org        TEXT NOT NULL,
    name       TEXT NOT NULL,
    key_name   TEXT NOT NULL,
    public_key TEXT NOT NULL,
    PRIMARY KEY (kind, org, name, key_name),
    FOREIGN KEY (kind, org, name) REFERENCES principals (kind, org, name) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE org_users (
    org       TEXT NOT NULL REFERENCES organizations (name) ON DELETE CASCADE,
    user_name TEXT NOT NULL,
    PRIMARY KEY (org, user_name)
) WITHOUT ROWID;

CREATE TABLE org_groups (
    org        TEXT NOT NULL REFERENCES organizations (name) ON DELETE CASCADE,
    group_name TEXT NOT NULL,
    PRIMARY KEY (org, group_name)
) WITHOUT ROWID;

-- kind: 'user', 'client' or 'group'.
CREATE TABLE group_members (
    org        TEXT NOT NULL,
    group_name TEXT NOT NULL,
    kind       TEXT NOT NULL,
    member     TEXT NOT NULL,
    PRIMARY KEY (org, group_name, kind, member),
    FOREIGN KEY (org, group_name) REFERENCES org_groups (org, group_name) ON DELETE CASCADE
) WITHOUT ROWID;
