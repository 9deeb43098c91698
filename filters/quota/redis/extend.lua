-- Renews the leases of requests of one subject that still run.
--
-- KEYS  the record, the holds
-- ARGV  1  the time in Unix microseconds, for tests; empty: the time of this server
--       2  I6 lease in milliseconds
--       3  the record that the gateway remembers, or ''
--       for each request: its id, 16 bytes; I1 windows that count it, I1 whether to take it up
--       again if it is not held any more, I6 I6 I6 what it holds
-- Reply how many were taken up again; the time; 0 0 0; the record
--
-- A hold can be lost while its request runs: the data was lost, or the gateway could not reach
-- Redis for longer than a lease. The request does run, so it is held again, even beyond a limit.

local lease_ms = struct.unpack('<I6', ARGV[2])
local record = load(KEYS[1], ARGV[3])
local again = 0

for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local bytes = redis.call('HGET', KEYS[2], id)
  if bytes then
    redis.call('HSET', KEYS[2], id, struct.pack('<I6', now_ms + lease_ms) .. string.sub(bytes, 7))
  else
    local mask, running, prompt, completion, gpu_ms = struct.unpack('<I1I1I6I6I6', ARGV[i + 1])
    if running == 1 then
      local windows, charge = windows_of(mask), { prompt, completion, gpu_ms }
      local hold = place(record, mask, windows, charge, lease_ms, 0)
      redis.call('HSET', KEYS[2], id, struct.pack(HOLD, unpack(hold, 1, 21)))
      keep(record, windows, 2 * lease_ms)
      again = again + 1
    end
  end
end
keep(record, NONE, 2 * lease_ms)
redis.call('PEXPIRE', KEYS[2], record[EXPIRES] - now_ms)
return { again, now, 0, 0, 0, save(KEYS[1], record) }
