-- What a subject has used and holds.
--
-- KEYS  the record, the holds
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
--       2  the record that the gateway remembers, or ''
-- Reply 1; the time; 0 0 0; the record, as it is now
--
-- Why a script: leases that are over must not show as held.

local record, bytes = load(KEYS[1], ARGV[2])
sweep(record, KEYS[2])
local new = packed(record)
if bytes and bytes ~= new then
  save(KEYS[1], record)
end
return { 1, now, 0, 0, 0, new }
