-- promote: put delayed messages into their lists: those that are due, or sooner.
--
-- KEYS  1 delayed set
-- ARGV  1 most messages to move  2 up to which due time (ms, '+inf' = all), '' = now  then priority suffix and list of each
--       priority step, the first one first
--       (the lists are not among KEYS: servers up to 7.0 arm the notice for every key that is named there)
-- Returns {moved, next due time in ms or '', the server's time in ms}; what is next is read after the moves, so that a
-- client that tracks the set is told of every earlier one.
--
-- Invariant: a message is pushed first and removed from the set after, in the same step; one that cannot be pushed stays.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local list_of = {}
for i = 3, #ARGV, 2 do list_of[ARGV[i]] = ARGV[i + 1] end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2] ~= '' and ARGV[2] or now, 'LIMIT', 0, ARGV[1])
local moved = 0
for _, member in ipairs(due) do
  local bar = string.find(member, '|', 1, true)
  local list = list_of[string.sub(member, 1, bar - 1)] or ARGV[4]
  local done = redis.pcall('LPUSH', list, string.sub(member, bar + 1))
  if type(done) == 'table' and done.err then break end
  redis.call('ZREM', KEYS[1], member)
  moved = moved + 1
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { moved, first[2] or '', now }
