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
  local less = hold[HELD + k] == found[k + 1] and max(found[k + 1] - most[k + 1], 0) or 0
  hold[HELD + k] = hold[HELD + k] - less
  for window = 0, 3 do
    local part, reserved = PLACES[window] + PART + k, BOOKS[window] + RESERVED + k
    local given_back = min(less, hold[part])
    hold[part] = hold[part] - given_back
    if hold[PLACES[window] + 1] == record[BOOKS[window] + INDEX] then
      record[reserved] = max(record[reserved] - given_back, 0)
    end
  end
end
save_hold(KEYS[2], ARGV[2], hold, record)
return { 1, now, 0, 0, 0, save(KEYS[1], record) }
