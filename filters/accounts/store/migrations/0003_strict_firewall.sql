-- The firewall made strict for everybody, by an operator. A row of the past is harmless: readers look
-- at the time. Changes of it take the number of the standing limits, `state.standing`.

CREATE TABLE strict_firewall (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    ends_at BIGINT,                     -- none: until somebody takes it back
    reason TEXT NOT NULL,
    set_by TEXT NOT NULL,
    set_at BIGINT NOT NULL
);
