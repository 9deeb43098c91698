-- What operators change of limits while gateways run. Rows of the past are harmless: readers look at
-- the time.

CREATE TABLE quota_overrides (
    level TEXT NOT NULL,
    id TEXT NOT NULL,
    quota TEXT NOT NULL,                -- a quota block of the configuration, as JSON
    ends_at BIGINT,                     -- none: until somebody takes it back
    reason TEXT NOT NULL,
    set_by TEXT NOT NULL,
    set_at BIGINT NOT NULL,
    PRIMARY KEY (level, id)
);

-- Each gateway forgets what the subject has used when it first sees the number of the counter.
CREATE TABLE quota_resets (
    level TEXT NOT NULL,
    id TEXT NOT NULL,
    reset_at BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (level, id)
);
CREATE INDEX quota_resets_by_revision ON quota_resets (revision);

CREATE TABLE emergency_limits (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    per_user BIGINT NOT NULL,           -- requests a minute
    per_address BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    set_by TEXT NOT NULL,
    set_at BIGINT NOT NULL
);

-- The number of the last change of overrides or emergency limits.
ALTER TABLE state ADD COLUMN standing BIGINT NOT NULL DEFAULT 0;

ALTER TABLE events ADD COLUMN value_before TEXT;
ALTER TABLE events ADD COLUMN value_after TEXT;
ALTER TABLE events ADD COLUMN reason TEXT;
