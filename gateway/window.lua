-- Counts one request in the sliding minute of a key, or says when it could be counted. Kept to Redis 6.2.
--
-- KEYS[1]  a hash: `r<second>` requests and `t<second>` tokens that began in that second, `R` and `T` the sums of all,
--          `o` the oldest second that may be among them
-- ARGV     limit of requests, limit of tokens (-1: none), tokens of this request, 1 to count it or 0 only to look
-- returns  allowed (0 or 1), requests and tokens counted (this one too if it was), milliseconds until all of them
--          have left the minute, milliseconds until this request would fit (0 if allowed), the second it counts in,
--          which limit refused (`requests`, `tokens` or the empty string), whether Redis has known the whole minute
local time = redis.call('TIME')
local now, ms = tonumber(time[1]), math.floor(tonumber(time[2]) / 1000)
local limits = {r = tonumber(ARGV[1]), t = tonumber(ARGV[2])}
local asks = {r = 1, t = tonumber(ARGV[3])}
local key = KEYS[1]

-- A Redis that was emptied or started anew does not know what it counted before.
local since = tonumber(redis.call('GET', 'minute:since'))
if not since then
  since = now
  redis.call('SET', 'minute:since', now)
end
local knows = now - since > 60 and 1 or 0

local stored = redis.call('HMGET', key, 'o', 'R', 'T', 'r' .. now, 't' .. now)
local oldest = tonumber(stored[1]) or now
local used = {r = tonumber(stored[2]) or 0, t = tonumber(stored[3]) or 0}

-- A second has left the minute when 60 s have passed since its end: no window of 60 s ever holds more than the limit.
if oldest < now - 60 then
  for second = oldest, now - 61 do
    local gone = redis.call('HMGET', key, 'r' .. second, 't' .. second)
    if gone[1] or gone[2] then
      used.r = used.r - (tonumber(gone[1]) or 0)
      used.t = used.t - (tonumber(gone[2]) or 0)
      redis.call('HDEL', key, 'r' .. second, 't' .. second)
    end
  end
  oldest = now - 60
  if stored[1] then redis.call('HSET', key, 'o', oldest, 'R', used.r, 'T', used.t) end
end

local function left_in(second) return (second + 61 - now) * 1000 - ms end

local function reset()
  for second = now, oldest, -1 do
    if redis.call('HEXISTS', key, 'r' .. second) == 1 then return left_in(second) end
  end
  return 0
end

local function fits_in(kind)
  local excess = used[kind] + asks[kind] - limits[kind]
  for second = oldest, now do
    excess = excess - (tonumber(redis.call('HGET', key, kind .. second)) or 0)
    if excess <= 0 then return left_in(second) end
  end
  return 61000 - ms
end

if ARGV[4] == '0' then return {1, used.r, used.t, reset(), 0, now, '', knows} end
for _, kind in ipairs({'r', 't'}) do
  if limits[kind] >= 0 and used[kind] + asks[kind] > limits[kind] then
    return {0, used.r, used.t, reset(), fits_in(kind), now, kind == 'r' and 'requests' or 'tokens', knows}
  end
end
redis.call('HSET', key, 'o', oldest, 'R', used.r + 1, 'T', used.t + asks.t,
  'r' .. now, (tonumber(stored[4]) or 0) + 1, 't' .. now, (tonumber(stored[5]) or 0) + asks.t)
-- The first one of its second outlives them all.
if not stored[4] then redis.call('EXPIRE', key, 62) end
return {1, used.r + 1, used.t + asks.t, left_in(now), 0, now, '', knows}
