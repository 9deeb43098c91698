-- Ends a request: replaces what it holds by what it has cost, or gives all of it back.
--
-- KEYS  for each level: its record, its holds; then, once, the mark that this has been done
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
--       2  the request id, 16 bytes
--       3  I1 what to do, see below; I6 milliseconds to keep the mark; I6 I6 I6 the charge
--          (prompt tokens, completion tokens, GPU milliseconds)
--       for each level: its limits (unpack_limits); the record that the gateway remembers, or ''
-- Reply 1 done, 0 it was done before; the time; 0 0 0; the record of each level, if it was done
--
-- What to do:
--   0 PAY     charge; in full if the hold is gone (the lease ran out, or the data was lost)
--   1 UNDO    as if it had never been asked for: the request does not count either. For a request
--             that another level refused, or of which the gateway does not know the answer.
--   2 FINISH  charge only if it is held. For a question so old that the mark may be forgotten.
--   3 ADD     charge, and count the request: it was admitted while Redis did not answer.
--
-- Why the mark: an answer can be lost, and then the gateway asks again, and would pay twice. It is
-- the first thing written, so that a server without memory refuses all or nothing.

local PAY, UNDO, ADD = 0, 1, 3
local id = ARGV[2]
local what, mark_ms, prompt, completion, gpu_ms = struct.unpack('<I1I6I6I6I6', ARGV[3])
local charge = { prompt, completion, gpu_ms }

if not redis.call('SET', KEYS[#KEYS], '', 'PX', mark_ms, 'NX') then
  return { 0, now, 0, 0, 0 }
end

-- Takes back the pace and the count of a request, in the windows that are still open.
local function forget(record, limits, hold)
  set_debt_ns(record, max(debt_ns(record) - limits.interval, 0))
  for _, window in ipairs(windows_of(hold[MASK])) do
    local book = BOOKS[window]
    if hold[PLACES[window] + 1] == record[book + INDEX] then
      record[book + REQUESTS] = max(record[book + REQUESTS] - 1, 0)
    end
  end
end

local function charge_in_full(record, limits)
  for _, window in ipairs(limits.windows) do
    local book = BOOKS[window]
    record[book + REQUESTS] = record[book + REQUESTS] + (what == ADD and 1 or 0)
    for k = 0, 2 do
      record[book + USED + k] = min(record[book + USED + k] + charge[k + 1], MOST)
    end
  end
  keep(record, limits.windows, 1)
end

local stored = load_all()
local reply = { 1, now, 0, 0, 0 }
for i = 1, (#KEYS - 1) / 2 do
  local limits = unpack_limits(ARGV[2 * i + 2])
  local record = open(stored[i + 1], ARGV[2 * i + 3])
  local hold = what ~= ADD and read_hold(KEYS[2 * i], id)
  if hold then
    redis.call('HDEL', KEYS[2 * i], id)
    finish(record, hold, what == UNDO and { 0, 0, 0 } or charge)
    if what == UNDO then
      forget(record, limits, hold)
    end
  elseif what == PAY or what == ADD then
    charge_in_full(record, limits)
  end
  sweep(record, KEYS[2 * i])
  reply[5 + i] = save(KEYS[2 * i - 1], record)
end
return reply
