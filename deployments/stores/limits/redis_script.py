"""What Redis runs in one step. Its own clock counts, for all replicas of all hosts.

A subject is a hash with the fields `r:<second>` and `t:<second>` (requests and tokens) and
`d:<day>` (tokens), and a sorted set of leases by the millisecond that they run out at.
"""

TAKE = """
local WINDOW, KEPT_DAYS = 60, 7
local time = redis.call('TIME')
local second = tonumber(time[1])
local ms = second * 1000 + math.floor(tonumber(time[2]) / 1000)
local day = math.floor(second / 86400)
local requests, tokens = tonumber(ARGV[1]), tonumber(ARGV[2])
local lease, lease_ms = ARGV[3], tonumber(ARGV[4])
local NONE = -1
local is_refused = 0
local answer = {0, second, tonumber(time[2])}

for i = 1, #KEYS, 2 do
  local hash, leases = KEYS[i], KEYS[i + 1]
  local base = 4 + (i - 1) * 2
  local rpm, tpm = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
  local tpd, most = tonumber(ARGV[base + 3]), tonumber(ARGV[base + 4])
  local flat = redis.call('HGETALL', hash)
  local sums, day_tokens, buckets = {r = 0, t = 0}, 0, {}
  for j = 1, #flat, 2 do
    local field, amount = flat[j], tonumber(flat[j + 1])
    local kind, at = string.sub(field, 1, 1), tonumber(string.sub(field, 3))
    if kind == 'd' then
      if at == day then day_tokens = amount end
      if at < day - KEPT_DAYS then redis.call('HDEL', hash, field) end
    elseif at < second - WINDOW then
      redis.call('HDEL', hash, field)
    else
      if at > second then  -- the clock went back: it counts as of now
        redis.call('HDEL', hash, field)
        redis.call('HINCRBY', hash, kind .. ':' .. second, amount)
        at = second
      end
      sums[kind] = sums[kind] + amount
      buckets[#buckets + 1] = {kind, at, amount}
    end
  end
  redis.call('ZREMRANGEBYSCORE', leases, '-inf', ms)
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. (ms + lease_ms), '+inf')) do
    redis.call('ZADD', leases, ms + lease_ms, one)
  end
  local num_leases = redis.call('ZCARD', leases)
  if (rpm ~= NONE and requests > 0 and sums.r + requests > rpm)
    or (tpm ~= NONE and tokens > 0 and sums.t + tokens > tpm)
    or (tpd ~= NONE and tokens > 0 and day_tokens + tokens > tpd)
    or (most ~= NONE and lease ~= '' and num_leases >= most) then
    is_refused = 1
  end
  answer[#answer + 1] = {num_leases, day_tokens, buckets}
end

answer[1] = is_refused
if is_refused == 1 then return answer end
for i = 1, #KEYS, 2 do
  local hash, leases = KEYS[i], KEYS[i + 1]
  local base = 4 + (i - 1) * 2
  if tonumber(ARGV[base + 1]) ~= NONE or tonumber(ARGV[base + 2]) ~= NONE then
    if requests > 0 then redis.call('HINCRBY', hash, 'r:' .. second, requests) end
    if tokens > 0 then redis.call('HINCRBY', hash, 't:' .. second, tokens) end
  end
  if tonumber(ARGV[base + 3]) ~= NONE and tokens > 0 then
    redis.call('HINCRBY', hash, 'd:' .. day, tokens)
    redis.call('EXPIRE', hash, KEPT_DAYS * 86400)
  elseif redis.call('TTL', hash) < 2 * WINDOW then
    redis.call('EXPIRE', hash, 2 * WINDOW)
  end
  if lease ~= '' and tonumber(ARGV[base + 4]) ~= NONE then
    redis.call('ZADD', leases, ms + lease_ms, lease)
    redis.call('PEXPIRE', leases, 2 * lease_ms)
  end
end
return answer
"""

FINISH = """
local now = redis.call('TIME')[1]
local today = math.floor(tonumber(now) / 86400)
for i = 1, #KEYS, 2 do
  local hash, base = KEYS[i], (i - 1) * 3
  local more, second, day = tonumber(ARGV[base + 1]), ARGV[base + 2], ARGV[base + 3]
  if more > 0 then second, day = now, today end
  local fields = {}
  if ARGV[base + 5] == '1' then fields[#fields + 1] = 't:' .. second end
  if ARGV[base + 6] == '1' then fields[#fields + 1] = 'd:' .. day end
  for _, field in ipairs(more ~= 0 and fields or {}) do
    local known = tonumber(redis.call('HGET', hash, field) or '0')
    if known + more > 0 then
      redis.call('HSET', hash, field, known + more)
    else
      redis.call('HDEL', hash, field)
    end
  end
  if more > 0 and redis.call('TTL', hash) < 120 then
    redis.call('EXPIRE', hash, ARGV[base + 6] == '1' and 7 * 86400 or 120)
  end
  if ARGV[base + 4] ~= '' then redis.call('ZREM', KEYS[i + 1], ARGV[base + 4]) end
end
"""

RENEW = """
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])
for i, leases in ipairs(KEYS) do
  redis.call('ZADD', leases, 'XX', ms, ARGV[i + 1])
  redis.call('PEXPIRE', leases, 2 * tonumber(ARGV[1]))
end
"""
