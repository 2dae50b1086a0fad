-- A function that turn.lua and send_once.lua begin with: a new message for later.
--
-- send_later(set, list, due, member): into the delayed set of its queue if an opsq worker that lives consumes that queue,
-- else into its list: the message says its `eta`, and whoever takes it waits, as Celery's workers do. Returns what the
-- write has answered.

local function send_later(set, list, due, member)
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  local consumers = string.gsub(set, 'opsq:delayed:', 'opsq:consumers:', 1)
  if #redis.call('ZRANGEBYSCORE', consumers, now, '+inf', 'LIMIT', 0, 1) > 0 then
    return redis.pcall('ZADD', set, due, member)
  end
  return redis.pcall('LPUSH', list, string.sub(member, string.find(member, '|', 1, true) + 1))
end

