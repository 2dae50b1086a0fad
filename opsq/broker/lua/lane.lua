-- lane: limits, and the messages that wait for them. No script of its own: the function `lane` of admit, release and turn,
-- which returns what they use of it.
--
-- A lane holds the messages of one queue that are under the same limits (its gates): those of one task, with one key.
-- Of each queue:
--   lanes  sorted set: lane -> when to look at it (ms). It is there while messages wait in it or are on their way back.
--   facts  hash: '=<lane>' -> its facts (JSON), '+<lane>' -> '<n> <until>': so many were put back into the queue and have
--          not been asked for yet, which is believed until then (ms); '#' -> messages in all lanes of the queue
-- Facts: {gates, made, from, to, steps}: `from` and `to` are the lane's lists and the queue's, without the suffixes `steps`
-- of the priorities; of two the ones that were made later (Unix s) count. Gates:
--   ["rate", key, us from one start to the next, us that a start may come early, 1 = each worker has its own]
--         the key holds the point in time (us) at which the next start is due by the rate (GCRA); '@<worker>' is added
--   ["places", key, how many]   sorted set: holder -> since when (ms). A holder is '<number>@<store>': a message in flight.
--         Who is no longer in flight holds nothing.
--   ["circuit", key, failures in a row that open it, for how many ms, for how many at most, task]
--         hash: failures in a row; once open: until (ms), opens in a row, probe (its holder)
-- '<key>:waiting' of the latter two is a sorted set of the lanes (JSON: lanes, facts, lane) that wait for them.
--
-- Invariant: a message leaves a lane only after it is in its queue. Nothing is paid for when it leaves: who runs it asks,
-- and pays then. So nothing can be paid twice or leak, and what is put back too much comes back to the head of its lane.

local function lane()

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)

local MANY = 1000000000
-- So long (ms) a message that was put back is believed to be on its way, and a lane waits to be told of a free place.
local ON_ITS_WAY, PATIENCE = 1000, 5000
-- So long (ms) what nobody writes any more is kept.
local KEPT = 7 * 86400 * 1000
local MARK = '{"x-opsq-parked": 1, '

local function whole(n) return string.format('%.0f', n) end

local function is_held(holder)
  local number, store = string.match(holder, '^(%d+)@(.*)$')
  return number ~= nil and redis.call('HEXISTS', store, number) == 1
end

local function bucket(gate, worker)
  if gate[5] == 1 then return gate[2] .. '@' .. worker end
  return gate[2]
end

local function by_rate(gate, worker)
  local key = bucket(gate, worker)
  local due = math.max(tonumber(redis.call('GET', key) or '0'), now_us)
  local latest = now_us + gate[3] + gate[4]
  if due > latest then -- it was paid by a slower rate that is no more
    due = latest
    redis.call('SET', key, whole(due), 'KEEPTTL')
  end
  local early = now_us + gate[4] - due
  if early < 0 then return 0, math.ceil((due - gate[4]) / 1000) end
  return math.floor(early / gate[3]) + 1, math.ceil((now_us + gate[3]) / 1000)
end

local function by_places(gate)
  local key, most = gate[2], gate[3]
  local taken = redis.call('ZCARD', key)
  if taken >= most then
    for _, holder in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if not is_held(holder) then taken = taken - redis.call('ZREM', key, holder) end
    end
  end
  return math.max(most - taken, 0), now + PATIENCE
end

local function by_circuit(gate)
  local closed_at = redis.call('HMGET', gate[2], 'until', 'probe')
  if not closed_at[1] then return MANY, now + 1 end
  if tonumber(closed_at[1]) > now then return 0, tonumber(closed_at[1]) end
  if closed_at[2] and is_held(closed_at[2]) then return 0, now + PATIENCE end
  return 1, now + PATIENCE
end

-- How many may start now by all gates; and when to look again if that is none (ms).
local function free(gates, worker)
  local n, again = MANY, now + 1
  for _, gate in ipairs(gates) do
    local here, at
    if gate[1] == 'rate' then here, at = by_rate(gate, worker)
    elseif gate[1] == 'places' then here, at = by_places(gate)
    else here, at = by_circuit(gate) end
    n = math.min(n, here)
    if here == 0 then again = math.max(again, at) end
  end
  return n, again
end

-- A message starts: what it takes of each gate, as its pass says it.
local function pay(gates, worker, holder)
  local paid = {}
  for _, gate in ipairs(gates) do
    local kind, key = gate[1], gate[2]
    if kind == 'rate' then
      key = bucket(gate, worker)
      local due = math.max(tonumber(redis.call('GET', key) or '0'), now_us) + gate[3]
      redis.call('SET', key, whole(due), 'PX', whole(math.ceil((due - now_us) / 1000) + 1000))
      paid[#paid + 1] = { kind, key, gate[3] }
    elseif kind == 'places' then
      redis.call('ZADD', key, now, holder)
      redis.call('PEXPIRE', key, KEPT)
      paid[#paid + 1] = { kind, key }
    else
      if redis.call('HEXISTS', key, 'until') == 1 then redis.call('HSET', key, 'probe', holder) end
      paid[#paid + 1] = gate
    end
  end
  return paid
end

-- A message that was put back says so: it was here before those that wait.
local function is_marked(raw) return raw and string.sub(raw, 1, #MARK) == MARK end

local function marked(raw)
  if is_marked(raw) then return raw end
  local changed = string.gsub(raw, '^%s*{', MARK, 1)
  return changed
end

local function lengths(data)
  local total, of = 0, {}
  for i, suffix in ipairs(data.steps) do
    local n = redis.pcall('LLEN', data.from .. suffix)
    of[i] = type(n) == 'number' and n or 0 -- a key that holds something else holds no message
    total = total + of[i]
  end
  return total, of
end

-- How many were put back and have not been asked for, and until when that is believed. Those that nobody takes still wait
-- at the head of the queue.
local function on_their_way(text, data)
  local n, until_ms = string.match(text or '', '^(%d+) (%d+)$')
  n, until_ms = tonumber(n or 0), tonumber(until_ms or 0)
  if n == 0 or until_ms > now then return n, until_ms end
  for _, suffix in ipairs(data.steps) do
    if is_marked(redis.call('LINDEX', data.to .. suffix, -1)) then return n, now + ON_ITS_WAY end
  end
  return 0, 0
end

-- Takes those from the head of a queue's list that were put back and wait there, at most n; the last one is the next.
local function lift(list, n)
  if redis.call('TYPE', list).ok ~= 'list' then return {} end
  local run = redis.call('LRANGE', list, -n, -1)
  local first = #run + 1
  while first > 1 and is_marked(run[first - 1]) do first = first - 1 end
  if first > #run then return {} end
  redis.call('LTRIM', list, 0, first - #run - 2)
  return { unpack(run, first) }
end

-- Puts n messages back to the head of the queue, the first one next, behind the `out` ones that were put back before; how
-- many that were.
local function put_back(data, of, n, out)
  local moved = 0
  for i, suffix in ipairs(data.steps) do
    local part = math.min(of[i], n - moved)
    if part > 0 then
      local raws = redis.call('LRANGE', data.from .. suffix, -part, -1)
      for k = 1, #raws do raws[k] = marked(raws[k]) end
      local before = out > 0 and lift(data.to .. suffix, math.min(out, 500))
      local done = redis.pcall('RPUSH', data.to .. suffix, unpack(raws))
      if before and #before > 0 then redis.call('RPUSH', data.to .. suffix, unpack(before)) end
      if type(done) == 'table' and done.err then return moved end
      redis.call('LTRIM', data.from .. suffix, 0, -part - 1)
      moved = moved + part
    end
  end
  return moved
end

-- A lane has these facts from now on, unless it has newer ones; whether that changes it.
local function learn(place, known, text, made)
  if known == text or (known and cjson.decode(known).made > made) then return false end
  redis.call('HSET', place.facts, '=' .. place.lane, text)
  return true
end

local function add_parked(place, n)
  if redis.call('HINCRBY', place.facts, '#', n) <= 0 then redis.call('HDEL', place.facts, '#') end
end

-- Looks at a lane: puts back what may start, at most `most`, and says when to look again. `told`: something has happened
-- that all workers must know (each has times of its own for a rate of its own); else only the caller is told.
-- Returns how many were put back, how many wait, when the caller should look again (ms, nil = not at all).
local function release(place, worker, most, told)
  local lane, facts = place.lane, place.facts
  local known = redis.call('HMGET', facts, '=' .. lane, '+' .. lane)
  if not known[1] then
    redis.call('ZREM', place.lanes, lane)
    return 0, 0
  end
  local data = cjson.decode(known[1])
  local total, of = lengths(data)
  local out, out_until = on_their_way(known[2], data)
  if total == 0 and out == 0 then
    redis.call('ZREM', place.lanes, lane)
    redis.call('HDEL', facts, '=' .. lane, '+' .. lane)
    return 0, 0
  end
  local n, again = free(data.gates, worker)
  if #data.gates > 0 then n = n - out else out = 0 end
  n = math.min(n, total, most)
  local moved = 0
  if n > 0 then
    moved = put_back(data, of, n, out)
    add_parked(place, -moved)
    if moved == 0 then again = now + ON_ITS_WAY end
    if moved > 0 and #data.gates > 0 then out, out_until = out + moved, now + ON_ITS_WAY end
    total = total - moved
  end
  if out > 0 then again = math.max(out_until, again) end
  local own = false
  for _, gate in ipairs(data.gates) do
    own = own or gate[5] == 1
    if total > 0 and gate[1] ~= 'rate' then
      local key = gate[2] .. ':waiting'
      redis.call('ZADD', key, 'NX', now, cjson.encode(place))
      redis.call('PEXPIRE', key, KEPT)
    end
  end
  if out > 0 then redis.call('HSET', facts, '+' .. lane, whole(out) .. ' ' .. whole(out_until))
  elseif known[2] then redis.call('HDEL', facts, '+' .. lane) end
  if not own then redis.call('ZADD', place.lanes, whole(again), lane)
  elseif told or not redis.call('ZSCORE', place.lanes, lane) then redis.call('ZADD', place.lanes, whole(now), lane) end
  return moved, total, again
end

-- A place has become free: the lane that has waited for it longest gets it; or all, when nothing is in the way any more.
local function wake(key, worker, all)
  local waiting = key .. ':waiting'
  for _, member in ipairs(redis.call('ZRANGE', waiting, 0, all and 99 or 9)) do
    local moved, left = release(cjson.decode(member), worker, 100, true)
    if left == 0 then redis.call('ZREM', waiting, member)
    elseif moved > 0 then redis.call('ZADD', waiting, now, member) end
    if moved > 0 and not all then return end
  end
end

-- A task behind a circuit breaker has ended, as hand_in says. Of an open circuit only its probe decides. Returns 'open' and
-- for how long (ms), or 'closed', when it has changed.
local function judge(gate, holder, ended, worker)
  local key, most, pause, longest = gate[2], gate[3], gate[4], gate[5]
  local said = redis.call('HMGET', key, 'until', 'probe')
  if not said[1] then
    if ended == 'well' then redis.call('DEL', key) end
    if ended ~= 'failed' then return end
    local failures = redis.call('HINCRBY', key, 'failures', 1)
    redis.call('PEXPIRE', key, KEPT)
    if failures < most then return end
    redis.call('HSET', key, 'until', whole(now + pause), 'opens', 1)
    return 'open', pause
  end
  if said[2] ~= holder then return end
  if ended == 'well' then
    redis.call('DEL', key)
    wake(key, worker, true)
    return 'closed', 0
  end
  redis.call('HDEL', key, 'probe')
  if ended ~= 'failed' then
    wake(key, worker)
    return
  end
  pause = math.min(pause * 2 ^ math.min(redis.call('HINCRBY', key, 'opens', 1) - 1, 30), longest)
  redis.call('HSET', key, 'until', whole(now + pause))
  redis.call('PEXPIRE', key, KEPT)
  wake(key, worker, true) -- they look again by then
  return 'open', pause
end

-- A message that had passed the gates is settled: what it holds becomes free. `ended`: 'well', 'failed', 'unused' (it was
-- not started: what it has paid is paid back), or ''. Returns what has changed of circuits: task, word, ms, ...
local function hand_in(passes, number, ended, worker)
  local text = redis.call('HGET', passes, number)
  if not text then return {} end
  redis.call('HDEL', passes, number)
  local pass, changed = cjson.decode(text), {}
  for _, paid in ipairs(pass.paid) do
    local kind, key = paid[1], paid[2]
    if kind == 'places' then
      redis.call('ZREM', key, pass.holder)
      wake(key, worker)
    elseif kind == 'circuit' then
      local word, ms = judge(paid, pass.holder, ended, worker)
      if word then changed = { paid[6], word, whole(ms) } end
    elseif ended == 'unused' then
      local due = redis.call('GET', key)
      if due then redis.call('SET', key, whole(tonumber(due) - paid[3]), 'KEEPTTL') end
    end
  end
  if ended == 'unused' then release(pass.place, worker, 100, true) end
  return changed
end

return {
  now = now, KEPT = KEPT, whole = whole, free = free, pay = pay, lengths = lengths, is_marked = is_marked, marked = marked, learn = learn,
  on_their_way = on_their_way, add_parked = add_parked, release = release, hand_in = hand_in,
}

end

