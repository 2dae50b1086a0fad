-- find: a task's messages in one part of a list or a sorted set. Writes nothing.
--
-- KEYS  1 list or sorted set
-- ARGV  1 the task's id as it stands in JSON  2 how many to pass by  3 how many to look at
-- Returns {length, then for each that may be one: its place, its score or '', its bytes}
--
-- Places count from the end where new ones come in, so that none is missed while others are taken: a list from its left
-- end, a sorted set from its highest score. Where the key holds something else there is nothing.

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'list' and kind ~= 'zset' then return { 0 } end
local first, last = tonumber(ARGV[2]), tonumber(ARGV[2]) + tonumber(ARGV[3]) - 1
local step, parts, answer = 1, nil, nil
if kind == 'list' then
  answer, parts = { redis.call('LLEN', KEYS[1]) }, redis.call('LRANGE', KEYS[1], first, last)
else
  step = 2
  answer, parts = { redis.call('ZCARD', KEYS[1]) }, redis.call('ZREVRANGE', KEYS[1], first, last, 'WITHSCORES')
end
local spaced, tight = '"id": ' .. ARGV[1], '"id":' .. ARGV[1]
for i = 1, #parts, step do
  if string.find(parts[i], spaced, 1, true) or string.find(parts[i], tight, 1, true) then
    answer[#answer + 1] = first + (i - 1) / step
    answer[#answer + 1] = step == 2 and parts[i + 1] or ''
    answer[#answer + 1] = parts[i]
  end
end
return answer
