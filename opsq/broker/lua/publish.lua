-- publish: messages of one list into it, or for later; without a copy when they are sent again.
--
-- KEYS  1 list  2 delayed set  3 registry of the queue's consumers
-- ARGV  1 '1' = may have been sent before  2 what their members of the delayed set begin with
--       then for each message: due time in ms ('' = now), message
-- Returns how many messages went into the list
--
-- Invariant: after a retried publish each message is there once, as long as its first copy was not yet taken. They go
-- into the list all in one step, so the last one tells of all (the last 1,000 of the list are looked at). A message for
-- later goes to the delayed set only if an opsq worker that lives consumes the queue; else it goes out at once with its
-- `eta`, as Celery does.

local again, consumed = ARGV[1] == '1', nil

local function is_consumed()
  if consumed == nil then
    local now = redis.call('TIME')
    now = now[1] * 1000 + math.floor(now[2] / 1000)
    consumed = #redis.call('ZRANGEBYSCORE', KEYS[3], now, '+inf', 'LIMIT', 0, 1) > 0
  end
  return consumed
end

local now = {}
for at = 3, #ARGV, 2 do
  local due, message = ARGV[at], ARGV[at + 1]
  local member = due ~= '' and ARGV[2] .. message
  if member and (is_consumed() or (again and redis.call('ZSCORE', KEYS[2], member))) then
    redis.call('ZADD', KEYS[2], due, member)
  else
    now[#now + 1] = message
  end
end
if #now == 0 or (again and redis.call('LPOS', KEYS[1], now[#now], 'MAXLEN', 1000)) then return 0 end
redis.call('LPUSH', KEYS[1], unpack(now))
return #now
