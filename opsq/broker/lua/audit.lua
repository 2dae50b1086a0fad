-- audit: the books of a queue and what it holds, at one instant. Writes nothing.
--
-- KEYS  1 totals  2 registry of the queue's consumers  3 delayed set  4 dead letters  5 facts of its lanes  6.. the queue's lists
-- ARGV  1 what the names of the queue's in-flight stores begin with
-- Returns {taken, moved, known, in flight, delayed, dead letters, waiting, limited, state, how many, state, how many, ...}
--
-- Only what registered consumers hold is in flight: a store that nobody would rescue is not.

local totals, fields = redis.call('HGETALL', KEYS[1]), {}
local ended, states = {}, {}
for i = 1, #totals, 2 do
  local state = string.match(totals[i], '^n:([^:]*):')
  if state then
    if not ended[state] then states[#states + 1] = state end
    ended[state] = (ended[state] or 0) + tonumber(totals[i + 1])
  else
    fields[totals[i]] = tonumber(totals[i + 1])
  end
end

local held = 0
for _, consumer in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  held = held + redis.call('HLEN', ARGV[1] .. consumer)
end
local waiting = 0
for i = 6, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[i]) end

local answer = { fields['taken'] or 0, fields['moved'] or 0, fields['known'] or 0, held }
answer[5], answer[6], answer[7] = redis.call('ZCARD', KEYS[3]), redis.call('HLEN', KEYS[4]), waiting
answer[8] = tonumber(redis.call('HGET', KEYS[5], '#') or 0)
for _, state in ipairs(states) do
  answer[#answer + 1] = state
  answer[#answer + 1] = ended[state]
end
return answer
