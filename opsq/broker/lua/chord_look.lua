-- chord_look: the chords that somebody has to look after: complete and not sent, without a counter, too old.
--
-- KEYS  1 the set of chords that are looked after (name -> when to look next, ms)
-- ARGV  1 what stands before a group's key, 2 before ours, 3 '1': parts are in a sorted set, 4 seconds that chords live (0
--       = for ever), 5 seconds that a counter may be missing, 6 seconds that a body is ours to send, 7 our token, 8 ms
--       until an incomplete chord is looked at again, 9 how many chords are looked at
-- Returns for each of them: its name, and why: 'complete', 'counter' (it has none) or 'old'. Its `.c` is then ours.
--
-- Invariant: whoever is told of a chord alone may send its body, for that many seconds.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[9])) do
  local key, ours = ARGV[1] .. name, ARGV[2] .. name
  local at, holder = redis.pcall('HGET', ours, 'at'), redis.pcall('GET', key .. '.c')
  local again, why = now + tonumber(ARGV[8]), nil
  local complete = chord_is_complete(key, ARGV[3])
  -- Without counter and parts it was done by a Celery worker, whose "done" has expired meanwhile.
  local gone = complete == nil and redis.call('EXISTS', key .. '.j') == 0
    and type(at) == 'string' and now - tonumber(at) >= tonumber(ARGV[5]) * 1000
  if type(at) ~= 'string' or holder == 'done' or gone then
    redis.call('ZREM', KEYS[1], name)
    if type(at) == 'string' then redis.call('DEL', ours) end
  else
    local life = tonumber(ARGV[4]) * 1000
    local last = tonumber(at) + life - math.min(120000, life / 4)
    if complete then why = 'complete'
    elseif complete == nil and now - tonumber(at) >= tonumber(ARGV[5]) * 1000 then why = 'counter'
    elseif life > 0 and now >= last then why = 'old'
    elseif life > 0 then again = math.min(again, last)
    end
    if why then
      again = now + tonumber(ARGV[6]) * 1000
      if redis.call('SET', key .. '.c', ARGV[7], 'NX', 'EX', ARGV[6]) then
        found[#found + 1] = name
        found[#found + 1] = why
      end
    end
    redis.call('ZADD', KEYS[1], again, name)
  end
end
return found
