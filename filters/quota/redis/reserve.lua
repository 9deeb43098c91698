-- Reserves on all levels of a demand, or on none.
--
-- KEYS  for each level: its record, its holds; then, once, the mark that this request has ended
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
--       2  the request id, 16 bytes
--       3  I6 lease in milliseconds; I6 I6 I6 what it will probably cost (prompt tokens,
--          completion tokens, GPU milliseconds); I6 I6 what it must have of the last two
--       for each level: its limits (unpack_limits); the record that the gateway remembers, or ''
-- Reply 1 admitted, 0 refused, -1 the request has ended already; the time in microseconds; what
--       is granted of the three; the record of each level, as it is now
--
-- Why a script: between the look at the meters and the entry in them nobody else may come. Why the
-- records are the reply: the gateway finds out itself, by the code that the store in memory uses,
-- which meter refuses, until when, and what the headers say.
--
-- The same request asked for twice is held once. A request that has ended is not admitted: its
-- question came late, after the gateway gave up on it.

local id = ARGV[2]
local lease_ms, prompt, completion, gpu_ms, least_completion, least_gpu_ms =
  struct.unpack('<I6I6I6I6I6I6', ARGV[3])
local least = { prompt, least_completion, least_gpu_ms }
local granted = { prompt, completion, gpu_ms }
local count = (#KEYS - 1) / 2

local stored = load_all()
if stored[1] then
  return { -1, now, 0, 0, 0 }
end

local function ask(resource)
  if resource == 0 then
    return 1
  elseif resource == 1 then
    return least[1] + least[2]
  end
  return least[resource - 1]
end

-- Whether the least that the request needs does not fit.
local function obstacle(record, limits)
  if limits.interval > 0 and debt_ns(record) > limits.burst - limits.interval then
    return true
  end
  if record[IN_FLIGHT] >= limits.slots then
    return true
  end
  local ceilings = limits.ceilings
  for i = 1, 3 * limits.n, 3 do
    local resource = ceilings[i]
    if ask(resource) > max(ceilings[i + 2] - taken(record, BOOKS[ceilings[i + 1]], resource), 0) then
      return true
    end
  end
  return false
end

-- After a reload to a smaller burst the bucket is empty, not in debt (gcra.rs, fit).
local function fit(record, limits)
  if limits.interval > 0 and debt_ns(record) > limits.burst then
    set_debt_ns(record, limits.burst)
  end
end

local function admit(record, limits)
  if limits.interval > 0 then
    set_debt_ns(record, debt_ns(record) + limits.interval)
  end
  local hold = place(record, limits.mask, limits.windows, granted, lease_ms, 1)
  return hold, keep(record, limits.windows, max(2 * lease_ms, debt_ns(record) / 1000000))
end

local levels, refused = {}, false
local held = read_hold(KEYS[2], id)
for i = 1, count do
  local limits = unpack_limits(ARGV[2 * i + 2])
  local bytes = stored[i + 1]
  local record = open(bytes, ARGV[2 * i + 3])
  fit(record, limits)
  sweep(record, KEYS[2 * i])
  refused = refused or obstacle(record, limits)
  clamp(record, limits, granted)
  levels[i] = { record = record, limits = limits, bytes = bytes }
end
if held then
  granted, refused = { held[HELD], held[HELD + 1], held[HELD + 2] }, false
end

local reply = { refused and 0 or 1, now, granted[1], granted[2], granted[3] }
for i = 1, count do
  local level = levels[i]
  if not refused and not held then
    local hold, longer = admit(level.record, level.limits)
    save_hold(KEYS[2 * i], id, hold, level.record, longer)
    reply[5 + i] = save(KEYS[2 * i - 1], level.record)
  else
    reply[5 + i] = packed(level.record)
    -- Only what time has changed: books rolled over, expired leases, a debt forgiven.
    if level.bytes and level.bytes ~= reply[5 + i] then
      save(KEYS[2 * i - 1], level.record)
    end
  end
end
return reply
