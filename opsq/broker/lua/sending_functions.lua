-- Functions that publish.lua, claim.lua and tick.lua begin with: what decides where a message goes, and whether it may.
--
-- is_consumed(registry): whether an opsq worker that lives consumes the queue; only then a message for later goes to the
--   delayed set, else it goes out at once with its `eta`, as Celery does.
-- held(delayed, first): how many messages the queue holds, now and for later; its lists are KEYS[first] and all after it.

local function is_consumed(registry)
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  return #redis.call('ZRANGEBYSCORE', registry, now, '+inf', 'LIMIT', 0, 1) > 0
end

local function held(delayed, first)
  local count = redis.call('ZCARD', delayed)
  for k = first, #KEYS do count = count + redis.call('LLEN', KEYS[k]) end
  return count
end

