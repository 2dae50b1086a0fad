-- Functions that turn.lua and chord_part.lua begin with: the counting of chords, as Celery 5.7 does it.
--
-- count_part(a, i): a part of a chord has ended. The database is that of the results. Arguments from a[i] on:
--   0 key of the group: its `.j` holds the parts, `.d` which are counted, `.s` how many are wanted, `.t` how many more,
--     `.c` who sends the body (a token, or "done")
--   1 what is counted once (task id, index), 2 its place, 3 the part, 4 '1': `.j` is a sorted set, else a list
--   5 seconds that these keys live, 0 = for ever; 6 seconds that a saved group lives
--   7 seconds that the body is ours to send once the last part is counted (0 = it is left to a reaper), 8 our token
--   9 the set of chords that are looked after, 10 ours of this chord (a hash: `facts`, `at`: when it was heard of last, ms,
--     `run`: names this run of it, should it be sent again under the same name), 11 its name, 12 what is to be known of it (JSON), ''
--     when the part does not know: it is then counted only if others do
-- Returns true if it was the last part and the body is ours to send. Never raises: a part that cannot be counted must
-- not keep its message in flight; the chord then fails when its time has come.

local function chord_is_complete(key, ordered)
  local size = redis.pcall('GET', key .. '.s')
  if type(size) ~= 'string' then return nil end
  local count = ordered == '1' and redis.pcall('ZCARD', key .. '.j') or redis.pcall('LLEN', key .. '.j')
  local more = redis.pcall('GET', key .. '.t')
  local wanted = tonumber(size) + (type(more) == 'string' and tonumber(more) or 0)
  return type(count) == 'number' and count >= wanted, count, wanted
end

-- Clients of Celery 4 say with the body how many parts there are, and nowhere else.
local function learn_size(key, facts)
  local read, told = pcall(cjson.decode, facts)
  local size = read and type(told.body) == 'table' and told.body.chord_size
  if type(size) == 'number' then redis.pcall('SET', key .. '.s', string.format('%.0f', size)) end
end

local function count_part(a, i)
  local key, ordered, ttl = a[i], a[i + 4], tonumber(a[i + 5])
  if a[i + 12] ~= '' and redis.call('EXISTS', key .. '.s') == 0 then learn_size(key, a[i + 12]) end
  if redis.pcall('GET', key .. '.c') == 'done' then return false end
  if a[i + 12] == '' and redis.call('EXISTS', key .. '.s') == 0 then return false end
  if redis.pcall('SISMEMBER', key .. '.d', a[i + 1]) == 0 then
    local done
    if ordered == '1' then done = redis.pcall('ZADD', key .. '.j', a[i + 2], a[i + 3])
    else done = redis.pcall('RPUSH', key .. '.j', a[i + 3]) end
    if type(done) == 'table' and done.err then return false end
    redis.pcall('SADD', key .. '.d', a[i + 1])
  end
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  if a[i + 12] ~= '' then redis.pcall('HSET', a[i + 10], 'facts', a[i + 12]) end
  redis.pcall('HSETNX', a[i + 10], 'run', now .. ':' .. a[i + 1])
  redis.pcall('HSET', a[i + 10], 'at', now)
  redis.pcall('ZADD', a[i + 9], now + math.max(tonumber(a[i + 7]), 1) * 1000, a[i + 11])
  if ttl > 0 then
    for _, part in ipairs({ '.j', '.t', '.s', '.d' }) do redis.pcall('EXPIRE', key .. part, ttl) end
    redis.pcall('EXPIRE', a[i + 10], ttl)
    if tonumber(a[i + 6]) > 0 then redis.pcall('EXPIRE', key, a[i + 6]) end
  else
    redis.pcall('PERSIST', a[i + 10])
  end
  if a[i + 7] == '0' or not chord_is_complete(key, ordered) then return false end
  local claimed = redis.pcall('SET', key .. '.c', a[i + 8], 'NX', 'EX', a[i + 7])
  return type(claimed) == 'table' and claimed.ok == 'OK'
end
