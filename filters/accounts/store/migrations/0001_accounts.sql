-- Accounts. The same text runs on SQLite and on Postgres, so columns are TEXT or BIGINT: times are
-- Unix seconds, truth is 0 or 1, lists are JSON. A number of the counter that stands in `revision`
-- is that of the last change that the copies in the gateways must learn of.

CREATE TABLE state (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL,           -- the counter: whoever writes a change takes its row first
    horizon BIGINT NOT NULL,            -- readers who have seen less need everything again
    epoch_floor BIGINT NOT NULL,        -- above every epoch of a user who was removed
    tally_key TEXT NOT NULL             -- keys the hashes that name the rows of tallies
);

CREATE TABLE users (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    password_hash TEXT,
    declared_hash TEXT,                 -- as in the configuration; password_hash may be a rehash of it
    email TEXT,                         -- sealed
    disabled BIGINT NOT NULL,
    source TEXT NOT NULL,
    mfa BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    last_login_at BIGINT,
    revision BIGINT NOT NULL
);
CREATE INDEX users_by_revision ON users (revision, name);

CREATE TABLE tombstones (
    name TEXT NOT NULL PRIMARY KEY,
    removed_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    scopes TEXT NOT NULL,
    models TEXT NOT NULL,
    networks TEXT NOT NULL,
    quota TEXT,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    revoked_at BIGINT,
    undeclared BIGINT NOT NULL,         -- revoked only because the configuration has it no more
    source TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX api_keys_by_revision ON api_keys (revision, id);
CREATE INDEX api_keys_by_user ON api_keys (user_name);

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address TEXT NOT NULL,
    device TEXT NOT NULL,
    mfa BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_name);

-- Last uses stand apart: they are written often, and must not wait for changes nor hold them up.
CREATE TABLE api_key_uses (id TEXT NOT NULL PRIMARY KEY, used_at BIGINT NOT NULL);
CREATE TABLE session_uses (id TEXT NOT NULL PRIMARY KEY, used_at BIGINT NOT NULL);

CREATE TABLE revocations (
    id TEXT NOT NULL PRIMARY KEY,       -- of a session or a scoped token
    expires_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX revocations_by_revision ON revocations (revision);

CREATE TABLE second_factors (
    user_name TEXT NOT NULL PRIMARY KEY REFERENCES users (name) ON DELETE CASCADE,
    secret TEXT NOT NULL,               -- sealed
    confirmed BIGINT NOT NULL,
    last_step BIGINT NOT NULL           -- of RFC 6238: codes of this step and earlier ones are used up
);

CREATE TABLE backup_codes (
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (user_name, digest)
);

CREATE TABLE single_use (id TEXT NOT NULL PRIMARY KEY, expires_at BIGINT NOT NULL);

CREATE TABLE tallies (
    id TEXT NOT NULL PRIMARY KEY,       -- a keyed hash: no names and addresses stand here
    failures BIGINT NOT NULL,
    locks BIGINT NOT NULL,
    locked BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    forget_at BIGINT NOT NULL
);

CREATE TABLE events (
    revision BIGINT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    actor TEXT NOT NULL,
    happened_at BIGINT NOT NULL,
    PRIMARY KEY (revision, action)
);
