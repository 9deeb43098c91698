-- Holds more for a request that runs, as much as all levels have room for.
--
-- KEYS  for each level: its record, its holds; then, once, the mark that this request has ended
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
--       2  the request id, 16 bytes
--       3  I6 lease in milliseconds; I6 I6 I6 what is held by now (prompt tokens, completion
--          tokens, GPU milliseconds); I6 I6 how much more of the last two
--       for each level: its limits (unpack_limits); the record that the gateway remembers, or ''
-- Reply 1, or -1 if the request has ended; the time; how much more is held of the three; records
--
-- It says what is to be held in all, not how much is to be added, so that a question that is asked
-- twice holds no more than one. A hold that was lost, with the data or with its lease, is taken
-- up again: the request does run.

local id = ARGV[2]
local lease_ms, prompt, completion, gpu_ms, more_completion, more_gpu_ms =
  struct.unpack('<I6I6I6I6I6I6', ARGV[3])
local had = { prompt, completion, gpu_ms }
local total = { prompt, min(completion + more_completion, MOST), min(gpu_ms + more_gpu_ms, MOST) }

local stored = load_all()
if stored[1] then
  return { -1, now, 0, 0, 0 }
end

local levels = {}
for i = 1, (#KEYS - 1) / 2 do
  local limits = unpack_limits(ARGV[2 * i + 2])
  local record = open(stored[i + 1], ARGV[2 * i + 3])
  sweep(record, KEYS[2 * i])
  local hold = read_hold(KEYS[2 * i], id) or place(record, limits.mask, limits.windows, had, lease_ms, 0)
  local wish = { 0, max(total[2] - hold[HELD + 1], 0), max(total[3] - hold[HELD + 2], 0) }
  clamp(record, limits, wish)
  for k = 2, 3 do
    total[k] = min(total[k], hold[HELD + k - 1] + wish[k])
  end
  levels[i] = { record = record, hold = hold }
end

-- The part of a window that is over stays there; only what is new is held in this one.
local function grow(record, hold, windows)
  -- On a cluster a level may hold more than all levels granted; a trim that is still on its way must
  -- not find this and take what is granted now.
  for k = 1, 2 do
    lower(record, hold, k, max(hold[HELD + k] - total[k + 1], 0))
  end
  local completion, gpu_ms = max(total[2] - hold[HELD + 1], 0), max(total[3] - hold[HELD + 2], 0)
  hold[HELD + 1], hold[HELD + 2] = hold[HELD + 1] + completion, hold[HELD + 2] + gpu_ms
  for _, window in ipairs(windows) do
    local book, at = BOOKS[window], PLACES[window]
    if hold[at + 1] ~= record[book + INDEX] then
      hold[at + 1] = record[book + INDEX]
      hold[at + PART], hold[at + PART + 1], hold[at + PART + 2] = 0, 0, 0
    end
    hold[at + PART + 1] = hold[at + PART + 1] + completion
    hold[at + PART + 2] = hold[at + PART + 2] + gpu_ms
    record[book + RESERVED + 1] = min(record[book + RESERVED + 1] + completion, MOST)
    record[book + RESERVED + 2] = min(record[book + RESERVED + 2] + gpu_ms, MOST)
  end
end

local reply = { 1, now, 0, max(total[2] - had[2], 0), max(total[3] - had[3], 0) }
for i, level in ipairs(levels) do
  local windows = windows_of(level.hold[MASK])
  grow(level.record, level.hold, windows)
  level.hold[LEASE] = now_ms + lease_ms
  local longer = keep(level.record, windows, 2 * lease_ms)
  save_hold(KEYS[2 * i], id, level.hold, level.record, longer)
  reply[5 + i] = save(KEYS[2 * i - 1], level.record)
end
return reply
