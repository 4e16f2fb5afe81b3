-- Counts one request in the sliding minute of a key, or says when it could be counted. Kept to Redis 6.2.
--
-- KEYS[1]  a hash: `r<second>` requests and `t<second>` tokens that began in that second, `R` and `T` the sums of all,
--          `o` the oldest second that may be among them, `g` the last second in which room was given, `gr` and `gt` how much
-- ARGV     limit of requests, limit of tokens (-1: none), tokens of this request, 1 to count it or 0 only to look,
--          for how many more of its kind room is asked for, to be counted by who asks
-- returns  requests and tokens counted (this one too if it was, and those there is room given for), milliseconds until
--          all of them have left the minute, milliseconds until this request would fit (0 if it did), the second it
--          counts in, which limit refused (`requests`, `tokens` or the empty string), whether Redis has known the whole
--          minute, for how many more there is room given, how many milliseconds are left of the second
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

if ARGV[4] == '0' then return {used.r, used.t, reset(), 0, now, '', knows, 0, 0} end
-- The end of this second, never too late: whoever was given room uses it until then.
local left_ms = 999 - ms
for _, kind in ipairs({'r', 't'}) do
  if limits[kind] >= 0 and used[kind] + asks[kind] > limits[kind] then
    local name = kind == 'r' and 'requests' or 'tokens'
    local room = redis.call('HMGET', key, 'g', 'g' .. kind)
    -- What is left of the room that was given in this second is back soon after it.
    local may_fit_soon = room[1] == tostring(now) and used[kind] - room[2] + asks[kind] <= limits[kind]
    local retry_ms = may_fit_soon and left_ms + 50 or fits_in(kind)
    return {used.r, used.t, reset(), retry_ms, now, name, knows, 0, left_ms}
  end
end

-- Room is given while less than half of the minute is used, and a sixteenth of what is left of that half at most: what
-- lies unused with one process is little, and mostly back long before another would be refused for it.
local given = knows * tonumber(ARGV[5])
for kind, asked in pairs(asks) do
  if limits[kind] >= 0 and asked > 0 then
    given = math.min(given, math.floor((limits[kind] / 2 - used[kind] - asked) / 16 / asked))
  end
end
given = math.max(given, 0)

local requests, tokens = 1 + given, (1 + given) * asks.t
redis.call('HSET', key, 'o', oldest, 'R', used.r + requests, 'T', used.t + tokens,
  'r' .. now, (tonumber(stored[4]) or 0) + requests, 't' .. now, (tonumber(stored[5]) or 0) + tokens)
if given > 0 then
  local before = redis.call('HMGET', key, 'g', 'gr', 'gt')
  local is_more = before[1] == tostring(now)
  redis.call('HSET', key, 'g', now, 'gr', (is_more and before[2] or 0) + given,
    'gt', (is_more and before[3] or 0) + given * asks.t)
end
-- The first one of its second outlives them all.
if not stored[4] then redis.call('EXPIRE', key, 62) end
return {used.r + requests, used.t + tokens, left_in(now), 0, now, '', knows, given, left_ms}
