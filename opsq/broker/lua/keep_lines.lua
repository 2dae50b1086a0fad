-- keep_lines: put log lines of some tasks behind those that are kept, and let go of the oldest.
--
-- KEYS  1 index: task id -> when it last logged (ms)  2 sizes: task id -> bytes, '#' -> all of them
--       then the lines of each task
-- ARGV  1 what all keys of lines begin with  2 seconds that lines are kept  3 most bytes of a task  4 most bytes in all
--       then for each task: its id, its new lines (each ends with a newline)
-- Returns how many bytes are kept in all.
--
-- Invariant: '#' is the sum of the sizes; what the index does not name is not kept. Of a task with too much the first
-- lines go, until three quarters of what it may have are left; of too many tasks the ones that have not logged for the
-- longest time. Whoever follows a task has subscribed to the channel of its key.

local front, ttl, most, all = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local index, sizes = KEYS[1], KEYS[2]

local function account(id, size)
  local before = tonumber(redis.call('HGET', sizes, id) or 0)
  if size == 0 then redis.call('HDEL', sizes, id) else redis.call('HSET', sizes, id, size) end
  return redis.call('HINCRBY', sizes, '#', size - before)
end

local total = 0
for i = 3, #KEYS do
  local key, id, lines = KEYS[i], ARGV[2 * i - 1], ARGV[2 * i]
  local size = redis.call('APPEND', key, lines)
  if size > most then
    local rest = redis.call('GETRANGE', key, size - math.floor(most * 3 / 4), -1)
    rest = string.sub(rest, (string.find(rest, '\n', 1, true) or 0) + 1)
    redis.call('SET', key, rest)
    size = #rest
  end
  redis.call('EXPIRE', key, ttl)
  redis.call('ZADD', index, now, id)
  total = account(id, size)
  redis.pcall('PUBLISH', key, lines)
end

local old = redis.call('ZRANGEBYSCORE', index, '-inf', now - ttl * 1000, 'LIMIT', 0, 100)
for _, id in ipairs(old) do
  redis.call('ZREM', index, id)
  total = account(id, 0)
end
while total > all do
  local oldest = redis.call('ZPOPMIN', index)
  if #oldest == 0 then break end
  redis.call('DEL', front .. oldest[1])
  total = account(oldest[1], 0)
end
redis.call('EXPIRE', index, ttl)
redis.call('EXPIRE', sizes, ttl)
return total
