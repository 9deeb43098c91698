-- Lets go of what one level holds beyond what all levels have granted.
--
-- Only on a cluster, where the levels are asked one by one and one may have more room than another.
--
-- KEYS  the record, the holds
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
--       2  the request id, 16 bytes
--       3  I6 I6 I6 what it held when it was found to be too much (prompt tokens, completion tokens,
--          GPU ms); what has grown since then is left to a later call
--       4  I6 I6 I6 what is to be held at most of the same
-- Reply 1, or 0 if there is no such hold any more; the time; 0 0 0; the record
--
-- It says what is to be held in all, so that it can be said twice.

local found = { struct.unpack('<I6I6I6', ARGV[3]) }
local most = { struct.unpack('<I6I6I6', ARGV[4]) }
local record = load(KEYS[1])
local hold = read_hold(KEYS[2], ARGV[2])
if not hold then
  return { 0, now, 0, 0, 0 }
end

for k = 0, 2 do
  if hold[HELD + k] == found[k + 1] then
    lower(record, hold, k, max(found[k + 1] - most[k + 1], 0))
  end
end
save_hold(KEYS[2], ARGV[2], hold, record)
return { 1, now, 0, 0, 0, save(KEYS[1], record) }
