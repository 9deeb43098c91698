-- What all scripts share: the time, the record of a subject, and the holds on it.
--
-- This file stands in front of every other one: a script in Redis cannot load another.
--
-- It counts as `account.rs`, `window.rs` and `gcra.rs` do; a test holds the two together. Numbers
-- of Lua are doubles, exact up to 2^53: that is why times are microseconds, and the pace is the
-- debt in nanoseconds from now on, not a date.
--
-- All keys of a subject have the subject as their hash tag, so that they are in one slot:
--
--   {prefix}:{subject}            the record, a string packed as RECORD
--   {prefix}:{subject}:h          the holds, a hash: request id -> a string packed as HOLD
--   {prefix}:{subject}:s:{id}     a request that has ended here and must not be paid again
--   {prefix}:{subject}:c:{id}     the same for what was admitted while Redis did not answer
--
-- The record lives as long as its longest window, or what runs, may need it; the time is kept in
-- the record itself, so that it is never shortened.

local floor, max, min = math.floor, math.max, math.min

-- The largest number of tokens or milliseconds that a record can hold.
local MOST = 2 ^ 48 - 1

-- A record: version, then by the names below; then a book for each of minute, hour, day, month.
local RECORD = '<I1I7I2I4I6I6I4I4I6I6I6I6I6I6I4I4I6I6I6I6I6I6I4I4I6I6I6I6I6I6I4I4I6I6I6I6I6I6'
local FIELDS = 38
local TAT_US, TAT_NS = 2, 3 -- theoretical arrival time (gcra.rs), and its nanoseconds 0 to 999
local IN_FLIGHT = 4         -- requests that run
local EXPIRES = 5           -- when the record may be forgotten, in Unix milliseconds
local SWEEP = 6             -- no hold expires before this moment; 0 if there is none
-- A book begins after field BOOKS[window]: index of the window, requests, then prompt tokens,
-- completion tokens and GPU milliseconds that are used, and the same of what is reserved.
local BOOKS = { [0] = 6, 14, 22, 30 }
local INDEX, REQUESTS, USED, RESERVED = 1, 2, 3, 6

-- A hold: when its lease ends (Unix milliseconds), which windows count it (bit 0 is the minute),
-- what is reserved in all, and for each window its index and the part that it holds.
local HOLD = '<I6I1I6I6I6I4I6I6I6I4I6I6I6I4I6I6I6I4I6I6I6'
local LEASE, MASK, HELD = 1, 2, 3
local PLACES = { [0] = 5, 9, 13, 17 }
local PART = 2

local BITS = { [0] = 1, 2, 4, 8 }
local NONE = {}
local LENGTH_MS = { [0] = 60000, 3600000, 86400000, 31 * 86400000 }

-- Of this server, so that all gateways agree. ARGV[1] is empty but in tests.
local function unix_us()
  if ARGV[1] ~= '' then
    return tonumber(ARGV[1])
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Months since January 1970 of a day since then (H. Hinnant, civil_from_days).
local function month_of_day(day)
  local shifted = day + 719468
  local of_era = shifted % 146097
  local leaps = floor(of_era / 36524) - floor(of_era / 1460) - floor(of_era / 146096)
  local year = floor((of_era + leaps) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local months_from_march = floor((5 * of_year + 2) / 153)
  return (floor(shifted / 146097) * 400 + year) * 12 + months_from_march + 2 - 1970 * 12
end

local now = unix_us()
local now_ms = (now - now % 1000) / 1000
local minute, hour, day = floor(now_ms / 60000), floor(now_ms / 3600000), floor(now_ms / 86400000)
local month

-- The windows of a mask, the longest first.
local function windows_of(mask)
  local list, n = {}, 0
  for window = 3, 0, -1 do
    if mask >= BITS[window] then
      n, mask = n + 1, mask - BITS[window]
      list[n] = window
    end
  end
  return list
end

-- Opens a new book if the window is over. One that is a window ahead stays: the clock was set back
-- (window.rs).
local function roll_book(record, book, current)
  local index = record[book + INDEX]
  if index ~= current and index ~= current + 1 then
    record[book + INDEX] = current
    for field = book + REQUESTS, book + 8 do
      record[field] = 0
    end
  end
end

-- On the same day it is the same month: that is not found out for nothing.
local function roll(record)
  if record[BOOKS[0] + INDEX] == minute then
    return
  end
  if record[BOOKS[2] + INDEX] ~= day then
    month = month or month_of_day(day)
    roll_book(record, BOOKS[3], month)
  end
  roll_book(record, BOOKS[0], minute)
  roll_book(record, BOOKS[1], hour)
  roll_book(record, BOOKS[2], day)
end

local function blank()
  return { 1, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
end

-- What a gateway remembers of a subject whose record was lost. The holds were lost with it.
local function remembered(seed)
  local record = { struct.unpack(RECORD, seed) }
  record[IN_FLIGHT], record[SWEEP] = 0, 0
  for window = 0, 3 do
    for field = BOOKS[window] + RESERVED, BOOKS[window] + 8 do
      record[field] = 0
    end
  end
  return record
end

-- The record of a subject from its bytes, which are false if there is none; brought to this moment.
local function open(bytes, seed)
  local record
  if bytes then
    record = { struct.unpack(RECORD, bytes) }
  elseif seed and seed ~= '' then
    record = remembered(seed)
  else
    record = blank()
  end
  roll(record)
  return record
end

local function load(key, seed)
  local bytes = redis.call('GET', key)
  return open(bytes, seed), bytes
end

-- What is stored under all keys of a call by levels: first the mark, then the records.
local function load_all()
  local keys = { KEYS[#KEYS] }
  for i = 1, #KEYS - 1, 2 do
    keys[#keys + 1] = KEYS[i]
  end
  return redis.call('MGET', unpack(keys))
end

local function packed(record)
  return struct.pack(RECORD, unpack(record, 1, FIELDS))
end

-- Keeps the record for so many milliseconds, and the longest of some windows; then for an eighth
-- longer, so that this is not to be done again with each request. Says whether it was done.
local function keep(record, windows, ms)
  if windows[1] and LENGTH_MS[windows[1]] > ms then
    ms = LENGTH_MS[windows[1]]
  end
  local longer = record[EXPIRES] < now_ms + ms
  if longer then
    record[EXPIRES] = floor(now_ms + ms + ms / 8)
  end
  return longer
end

local function save(key, record)
  keep(record, NONE, 1)
  local bytes = packed(record)
  redis.call('SET', key, bytes, 'PX', max(record[EXPIRES] - now_ms, 1))
  return bytes
end

-- Nanoseconds of GCRA that are not paid back yet (gcra.rs).
local function debt_ns(record)
  return max((record[TAT_US] - now) * 1000 + record[TAT_NS], 0)
end

local function set_debt_ns(record, debt)
  record[TAT_NS] = debt % 1000
  record[TAT_US] = now + (debt - record[TAT_NS]) / 1000
end

-- What is used and reserved of a resource: 0 requests, 1 tokens, 2 prompt tokens, 3 completion
-- tokens, 4 GPU milliseconds.
local function taken(record, book, resource)
  if resource == 0 then
    return record[book + REQUESTS]
  elseif resource == 1 then
    return record[book + 3] + record[book + 4] + record[book + 6] + record[book + 7]
  end
  return record[book + resource + 1] + record[book + resource + 4]
end

-- The limits of a level: windows to count, nanoseconds that a request is worth (0: not paced),
-- nanoseconds of a burst, slots (2^32-1: not limited); then resource, window and limit of each
-- ceiling, one after the other in the list.
local function unpack_limits(bytes)
  local mask, interval, burst, slots, n, at = struct.unpack('<I1I6I7I4I1', bytes)
  local ceilings = n == 0 and {} or { struct.unpack('<' .. string.rep('I1I1I7', n), bytes, at) }
  return {
    mask = mask,
    windows = windows_of(mask),
    interval = interval,
    burst = burst,
    slots = slots,
    ceilings = ceilings,
    n = n,
  }
end

-- As much of a wish as there is room for (account.rs). Of the prompt nothing is taken off.
local function clamp(record, limits, wish)
  local ceilings = limits.ceilings
  for i = 1, 3 * limits.n, 3 do
    local resource, book = ceilings[i], BOOKS[ceilings[i + 1]]
    local room = max(ceilings[i + 2] - taken(record, book, resource), 0)
    if resource == 1 then
      wish[2] = min(wish[2], max(room - wish[1], 0))
    elseif resource == 3 then
      wish[2] = min(wish[2], room)
    elseif resource == 4 then
      wish[3] = min(wish[3], room)
    end
  end
end

-- A new hold on the windows of a level, for all of a charge; it may count as a request.
local function place(record, mask, windows, charge, lease_ms, requests)
  local prompt, completion, gpu_ms = charge[1], charge[2], charge[3]
  local hold = { now_ms + lease_ms, mask, prompt, completion, gpu_ms,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  for i = 1, #windows do
    local book, at = BOOKS[windows[i]], PLACES[windows[i]]
    hold[at + 1], hold[at + 2] = record[book + INDEX], prompt
    hold[at + 3], hold[at + 4] = completion, gpu_ms
    record[book + REQUESTS] = record[book + REQUESTS] + requests
    local p, c, g = record[book + 6] + prompt, record[book + 7] + completion, record[book + 8] + gpu_ms
    record[book + 6], record[book + 7] = p < MOST and p or MOST, c < MOST and c or MOST
    record[book + 8] = g < MOST and g or MOST
  end
  record[IN_FLIGHT] = record[IN_FLIGHT] + 1
  local sweep = record[SWEEP]
  if sweep == 0 or sweep > hold[LEASE] then
    record[SWEEP] = hold[LEASE]
  end
  return hold
end

local function read_hold(key, id)
  local bytes = redis.call('HGET', key, id)
  return bytes and { struct.unpack(HOLD, bytes) }
end

-- The hash lives as long as the record: who forgets it could not give back what it held. It is told
-- so when it is new, and when the record is kept longer.
local function save_hold(key, id, hold, record, longer)
  redis.call('HSET', key, id, struct.pack(HOLD, unpack(hold, 1, 21)))
  if longer or record[IN_FLIGHT] == 1 then
    redis.call('PEXPIRE', key, max(record[EXPIRES] - now_ms, 1))
  end
end

-- Ends a hold: frees the slot, gives back what each window holds, and charges instead. What a
-- window that is over has held is spent there, so only the rest of the charge is new.
local function finish(record, hold, charge)
  record[IN_FLIGHT] = max(record[IN_FLIGHT] - 1, 0)
  local windows = windows_of(hold[MASK])
  for i = 1, #windows do
    local book, at = BOOKS[windows[i]], PLACES[windows[i]]
    local here = hold[at + 1] == record[book + INDEX]
    for k = 0, 2 do
      local part = here and hold[at + PART + k] or 0
      local reserved, used = record[book + RESERVED + k] - part, book + USED + k
      local new = charge[k + 1] - hold[HELD + k] + part
      if hold[HELD + k] < part then
        new = charge[k + 1]
      end
      record[book + RESERVED + k] = reserved > 0 and reserved or 0
      if new > 0 then
        record[used] = min(record[used] + new, MOST)
      end
    end
  end
  if record[IN_FLIGHT] == 0 then
    record[SWEEP] = 0
  end
end

-- Gives back what gateways hold that do not renew their leases any more. This reads all holds,
-- but only when one of them may be over.
local function sweep(record, key)
  if record[SWEEP] == 0 or record[SWEEP] > now_ms then
    return
  end
  local all, earliest = redis.call('HGETALL', key), 0
  for i = 1, #all, 2 do
    local lease = struct.unpack('<I6', all[i + 1])
    if lease <= now_ms then
      finish(record, { struct.unpack(HOLD, all[i + 1]) }, { 0, 0, 0 })
      redis.call('HDEL', key, all[i])
    elseif earliest == 0 or lease < earliest then
      earliest = lease
    end
  end
  record[SWEEP] = earliest
end

-- Lets go of a part of what a hold has: of prompt tokens (k = 0), completion tokens (1) or GPU time (2).
local function lower(record, hold, k, less)
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
