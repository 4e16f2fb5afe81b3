-- Counts one request in the sliding minute of a key, or says when it could be counted. Kept to Redis 6.2.
--
-- KEYS[1]  a hash of seconds: `r<second>` requests and `t<second>` tokens that began in that second
-- ARGV     limit of requests, limit of tokens (-1: none), tokens of this request
-- returns  allowed (0 or 1), requests and tokens counted (this one too if allowed), milliseconds until all of them
--          have left the minute, milliseconds until this request would fit (0 if allowed), the second it counts in,
--          which limit refused (`requests`, `tokens` or the empty string)
local time = redis.call('TIME')
local now, ms = tonumber(time[1]), math.floor(tonumber(time[2]) / 1000)
local limits = {r = tonumber(ARGV[1]), t = tonumber(ARGV[2])}
local asks = {r = 1, t = tonumber(ARGV[3])}
local used = {r = 0, t = 0}
local seconds, gone, newest = {}, {}, now

local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local kind, second = string.sub(stored[i], 1, 1), tonumber(string.sub(stored[i], 2))
  -- A second has left the minute when 60 s have passed since its end: no window of 60 s ever holds more than the limit.
  if now - second > 60 then
    gone[#gone + 1] = stored[i]
  else
    local count = tonumber(stored[i + 1])
    used[kind] = used[kind] + count
    seconds[#seconds + 1] = {kind, second, count}
  end
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end

local function left_in(second) return (second + 61 - now) * 1000 - ms end

local function reset()
  local last = 0
  for _, entry in ipairs(seconds) do last = math.max(last, left_in(entry[2])) end
  return last
end

local function fits_in(kind)
  table.sort(seconds, function(a, b) return a[2] < b[2] end)
  local excess = used[kind] + asks[kind] - limits[kind]
  for _, entry in ipairs(seconds) do
    if entry[1] == kind then
      excess = excess - entry[3]
      if excess <= 0 then return left_in(entry[2]) end
    end
  end
  return 61000 - ms
end

for _, kind in ipairs({'r', 't'}) do
  if limits[kind] >= 0 and used[kind] + asks[kind] > limits[kind] then
    return {0, used.r, used.t, reset(), fits_in(kind), now, kind == 'r' and 'requests' or 'tokens'}
  end
end
redis.call('HINCRBY', KEYS[1], 'r' .. now, 1)
if asks.t > 0 then redis.call('HINCRBY', KEYS[1], 't' .. now, asks.t) end
redis.call('EXPIRE', KEYS[1], 62)
return {1, used.r + 1, used.t + asks.t, left_in(now), 0, now, ''}
