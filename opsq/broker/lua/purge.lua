-- purge: everything that waits in a queue is put aside in one step, to be thrown away.
--
-- KEYS  1 delayed set  2 lanes  3 facts of the lanes  4.. the queue's lists
-- ARGV  1 what the names begin with under which they are put aside  2 how long these live at most, in s
-- Returns {messages, names}
--
-- Invariant: whoever takes from the queue gets a message or it is counted here, never both.

local lists = { unpack(KEYS, 4) }
for _, lane in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local facts = redis.call('HGET', KEYS[3], '=' .. lane)
  local data = facts and cjson.decode(facts) or { steps = {} }
  for _, suffix in ipairs(data.steps) do lists[#lists + 1] = data.from .. suffix end
end
redis.call('DEL', KEYS[2], KEYS[3])

local count, names = redis.call('ZCARD', KEYS[1]), {}
for _, list in ipairs(lists) do count = count + redis.call('LLEN', list) end
lists[#lists + 1] = KEYS[1]
for k, place in ipairs(lists) do
  if redis.call('EXISTS', place) == 1 then
    local name = ARGV[1] .. k
    redis.call('RENAME', place, name)
    redis.call('EXPIRE', name, ARGV[2])
    names[#names + 1] = name
  end
end
return { count, names }
