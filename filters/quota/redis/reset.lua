-- Forgets what a subject has used. What runs keeps its hold.
--
-- KEYS  the record, the holds
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
-- Reply 1; the time; 0 0 0; the record
--
-- It leaves an empty record where there was none, and keeps it for the longest window: gateways
-- give back what they remember only of a subject that has no record, so nobody undoes this.

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
