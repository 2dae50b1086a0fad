-- purge: everything that waits in a queue is put aside in one step, to be thrown away.
--
-- KEYS  1 delayed set  2.. the queue's lists
-- ARGV  1 what the names begin with under which they are put aside  2 how long these live at most, in s
-- Returns {messages, names}
--
-- Invariant: whoever takes from the queue gets a message or it is counted here, never both.

local count, names = redis.call('ZCARD', KEYS[1]), {}
for k = 2, #KEYS do count = count + redis.call('LLEN', KEYS[k]) end
for k = 1, #KEYS do
  if redis.call('EXISTS', KEYS[k]) == 1 then
    local name = ARGV[1] .. k
    redis.call('RENAME', KEYS[k], name)
    redis.call('EXPIRE', name, ARGV[2])
    names[#names + 1] = name
  end
end
return { count, names }
