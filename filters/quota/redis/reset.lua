-- Forgets what a subject has used. What runs keeps its hold.
--
-- KEYS  the record, the holds, the mark of this reset
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
-- Reply 1, or 0 if this reset was made before; the time; 0 0 0; the record
--
-- Every gateway asks for every reset, one that was away maybe hours later: what was used since then
-- must not be forgotten as well.
--
-- It leaves an empty record where there was none, and keeps it for the longest window: gateways
-- give back what they remember only of a subject that has no record, so nobody undoes this.

local MADE_FOR = 2 * 86400
if not redis.call('SET', KEYS[3], '', 'NX', 'EX', MADE_FOR) then
  return { 0, now, 0, 0, 0 }
end
local record = load(KEYS[1])
sweep(record, KEYS[2])
record[TAT_US], record[TAT_NS] = 0, 0
for window = 0, 3 do
  for field = BOOKS[window] + REQUESTS, BOOKS[window] + USED + 2 do
    record[field] = 0
  end
end
-- Who holds something must not be forgotten before the record is.
if keep(record, { 3 }, 1) then
  redis.call('PEXPIRE', KEYS[2], record[EXPIRES] - now_ms)
end
return { 1, now, 0, 0, 0, save(KEYS[1], record) }
