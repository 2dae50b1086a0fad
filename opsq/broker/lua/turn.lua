-- turn: settle what a consumer has finished, then lease up to N more messages, in one step.
--
-- KEYS  for each of Q queues: its in-flight store of this consumer, its pause key;
--       then the source lists: the first priority of all queues, then the second of all, ...
-- ARGV  1 Q  2 N  3 number of the first leased message  4 consumer
--       5 database of the results, '' = this one  6 this connection's database
--       7 which queue is served first (0..Q-1), or `i,j,...;a,b,...`: the queues (0..) in the order of serving, and how
--         much each may take before the others get what it leaves
--       8 '' or 'expired': act only if the consumer's lease has run out (a peer takes over)
--       9 channel of events, 10 a message for it ('' = none)
--       then each queue's registry of consumers (not among KEYS: servers up to 7.0 arm the notice for every key that is
--       named there, and an idle consumer must not be woken by the renewals of the registry)
--       then each queue's totals, then the set of revocations (neither among KEYS)
--       then how many tallies, seconds that counts by the minute are kept, most totals of a queue, seconds that a
--       profile is kept; and each tally (what
--       has come of how many messages; counted are those that this turn settles): key of the queue's counts by the minute
--       (without its hour), key of its totals, state, task, how many, microseconds they took together,
--       key of its profile (without its day), what the runs cost: `field=number ...`, '' = nothing ran (`broker/profile.py`)
--       then how many groups of messages that are only to be removed, and each: queue (1..Q), tally (0 = none), how many,
--       their numbers;
--       then how many groups of messages of which only a result is stored, and each: queue (1..Q), tally (0 = none), ttl,
--       how many, and of each its number, key of the result, bytes: stored for ttl seconds (0 = for ever) and announced;
--       then for each other finished message: queue, number, tally, count of writes, and the writes:
--         R key ttl bytes           a result, as above
--         L list bytes              a new message, at the end of its list
--         H list bytes              a message given back, to the head of its list
--         Z set score member        a message for later, of the queue that it was taken from
--         W set list score member   a new message for later: into the set if somebody who lives consumes that queue, else
--                                   into its list with its `eta`, as Celery does
--         P channel bytes           a broadcast, to who listens now (never fails)
--         N channel                 a notice that a result is there which was stored elsewhere; no trouble here hurts a message
--         U key id                  a unique message has ended: its key is free, if it still holds this id (never fails)
--         D hash index id time record cap oldest  a dead letter; an id that is taken gets a suffix; of those that are
--                                   older than `oldest` or more than `cap` the oldest go
--         F passes number ended     it had passed its limits: what it holds of them becomes free, and who waited for that
--                                   comes to the head of its queue; `ended` as lane.lua says; never fails
--         C and 13 arguments        a part of a chord (chord_functions.lua); never fails
--         X hash field counts totals task ttl     after D, of a peer that takes over: what its holder needs to take the dead
--                                   letter back (below), kept for ttl seconds
-- Returns {failed, leased, held, unregistered, revoked, complete}, and when a circuit has changed {..., changed}
--       failed   flat: number, error of each message whose writes did not go through (it stays in flight)
--       leased   flat: index of its source list (1..), messages; in the order of their numbers
--       held     messages in this consumer's stores now
--       unregistered  1 if a queue was passed over because this consumer is not in its registry
--       revoked  1 if messages were leased, and there are revocations: who leased them has to look
--       complete  names of the chords that are complete now and whose body is the caller's to send
--       changed  flat: task, 'open' or 'closed', for how many ms
--       or the string 'alive' (nothing done) when ARGV[8] says 'expired' and the lease has not run out
--
-- Invariant: a message is in exactly one of its list, one store, the delayed set or the dead letters whenever the script
-- ends, however it ends. A script is no transaction, so: a message's writes come first, each by pcall, the removals last
-- and in bulk; a slice of leased messages is recorded before the next is popped. A message that is no longer in the store
-- was settled or taken over: it is passed by, nothing is written for it and it is not counted; unless a peer took it for
-- lost and the dead letter that it wrote (X) is still there: then its holder, who knows better, takes that back, and what it
-- says is written and counted in its place. A store that is not empty
-- has its consumer in the registry: nothing is leased to a consumer that is not registered.
-- The books balance: of each queue what was taken is what has ended (tallies), was moved on (settled without a tally: given
-- back, for later), or is held.

local Q, want, number, consumer = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local failed, leased, unregistered, complete = {}, {}, 0, {}

if ARGV[8] == 'expired' then
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  for q = 1, Q do
    local deadline = redis.call('ZSCORE', ARGV[10 + q], consumer)
    if deadline and tonumber(deadline) >= now then return 'alive' end
  end
end

-- The first write is a removal: a full Redis then lets the script through, and it can drain.
for q = 1, Q do redis.call('HDEL', KEYS[2 * q - 1], '-') end

local revocations = ARGV[11 + 2 * Q]
local at = 12 + 2 * Q
local tallies, kept, most, profile_kept = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
local first_tally, settled = at + 4, {}
at = first_tally + 8 * tallies

-- Removes messages from a store, in slices; how many of them were still there.
local function remove(q, fields, first, last)
  local removed = 0
  for k = first, last, 500 do
    removed = removed + redis.call('HDEL', KEYS[2 * q - 1], unpack(fields, k, math.min(k + 499, last)))
  end
  return removed
end

local taken, moved = {}, {}
for q = 1, Q do
  taken[q] = 0
  moved[q] = 0
end

local function tally(t, count)
  if t > 0 and count > 0 then settled[t] = (settled[t] or 0) + count end
end

-- What a peer has written down when it took a message of this consumer for lost, if its dead letter is still there:
-- hash, index, id and digest of the letter, where it was counted.
local function buried(q, field)
  local told = redis.call('HGET', (string.gsub(KEYS[2 * q - 1], 'opsq:inflight:', 'opsq:taken:', 1)), field)
  if not told then return nil end
  local found = cjson.decode(told)
  local letter = redis.call('HGET', found[1], found[3])
  return letter and redis.sha1hex(letter) == found[4] and found or nil
end

local risen = {}
local function take_back(q, field, found)
  redis.call('HDEL', (string.gsub(KEYS[2 * q - 1], 'opsq:inflight:', 'opsq:taken:', 1)), field)
  redis.call('HDEL', found[1], found[3])
  redis.call('ZREM', found[2], found[3])
  risen[#risen + 1] = found
end

local groups = tonumber(ARGV[at])
at = at + 1
for _ = 1, groups do
  local n = tonumber(ARGV[at + 2])
  local q, t = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local removed = remove(q, ARGV, at + 3, at + 2 + n)
  if removed < n then
    for i = at + 3, at + 2 + n do
      local found = buried(q, ARGV[i])
      if found then
        take_back(q, ARGV[i], found)
        removed = removed + 1
      end
    end
  end
  tally(t, removed)
  at = at + 3 + n
end

local wants = { R = 3, L = 2, H = 2, Z = 3, W = 4, P = 2, N = 1, D = 7, C = 13, U = 2, F = 3, X = 6 }
local holds = { L = { 'list' }, H = { 'list' }, Z = { 'zset' }, W = { 'zset', 'list' }, D = { 'hash' }, X = { 'hash' } }

-- The error of the first write that cannot succeed because its key holds something else, or nil.
local function wrong_type(first, count)
  local i = first
  for _ = 1, count do
    local op = ARGV[i]
    for k, kind in ipairs(holds[op] or {}) do
      local found = redis.call('TYPE', ARGV[i + k]).ok
      if found ~= 'none' and found ~= kind then return 'WRONGTYPE ' .. ARGV[i + k] .. ' is a ' .. found end
    end
    i = i + wants[op] + 1
  end
end

local function to_results() if ARGV[5] ~= '' then redis.call('SELECT', ARGV[5]) end end
local function to_broker() if ARGV[5] ~= '' then redis.call('SELECT', ARGV[6]) end end

local function set_result(key, ttl, bytes)
  local done
  if ttl == '0' then done = redis.pcall('SET', key, bytes) else done = redis.pcall('SETEX', key, ttl, bytes) end
  if not done.err then redis.pcall('PUBLISH', key, bytes) end
  return done
end

local function store_result(key, ttl, bytes)
  to_results()
  local done = set_result(key, ttl, bytes)
  to_broker()
  return done
end

local function forget(hash, index, ids)
  for _, id in ipairs(ids) do
    redis.pcall('HDEL', hash, id)
    redis.pcall('ZREM', index, id)
  end
end

local letter
local function bury(hash, index, id, time, record, cap, oldest)
  local free, n = id, 1
  while redis.call('HEXISTS', hash, free) == 1 do n = n + 1; free = id .. '~' .. n end
  local done = redis.pcall('HSET', hash, free, record)
  if type(done) == 'table' and done.err then return done end
  letter = { hash, index, free, redis.sha1hex(record) }
  done = redis.pcall('ZADD', index, time, free)
  if type(done) == 'table' and done.err then return done end
  forget(hash, index, redis.call('ZRANGEBYSCORE', index, '-inf', '(' .. oldest, 'LIMIT', 0, 100))
  local more = redis.call('ZCARD', index) - tonumber(cap)
  if more > 0 then forget(hash, index, redis.call('ZRANGE', index, 0, math.min(more, 100) - 1)) end
  return done
end

local function count_chord(i)
  to_results()
  if count_part(ARGV, i) then complete[#complete + 1] = ARGV[i + 11] end
  to_broker()
  return {}
end

local function free(key, id)
  if redis.pcall('GET', key) == id then redis.pcall('DEL', key) end
  return 1
end

-- Limits: no trouble here hurts a message.
local lanes, changed = nil, {}

local function hand_in(i)
  lanes = lanes or lane()
  local worker = string.match(consumer, '^(.*):')
  local well, told = pcall(lanes.hand_in, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], worker)
  for _, each in ipairs(well and told or {}) do changed[#changed + 1] = each end
end

local function remember(hash, field, counts, totals, task, ttl)
  local told = { letter[1], letter[2], letter[3], letter[4], counts, totals, task }
  local done = redis.pcall('HSET', hash, field, cjson.encode(told))
  redis.pcall('EXPIRE', hash, ttl)
  return done
end

local function write(i)
  local op = ARGV[i]
  if op == 'R' then return store_result(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end
  if op == 'L' then return redis.pcall('LPUSH', ARGV[i + 1], ARGV[i + 2]) end
  if op == 'H' then return redis.pcall('RPUSH', ARGV[i + 1], ARGV[i + 2]) end
  if op == 'Z' then return redis.pcall('ZADD', ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end
  if op == 'W' then return send_later(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) end
  if op == 'P' then return redis.pcall('PUBLISH', ARGV[i + 1], ARGV[i + 2]) end
  if op == 'N' then return redis.pcall('PUBLISH', ARGV[i + 1], '1') and 1 end
  if op == 'C' then return count_chord(i + 1) end
  if op == 'U' then return free(ARGV[i + 1], ARGV[i + 2]) end
  if op == 'F' then return hand_in(i) end
  if op == 'X' then return remember(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]) end
  return bury(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7])
end

local gone = {}
for q = 1, Q do gone[q] = {} end

-- Which of n messages of a group (each `width` arguments from ARGV[first] on) are in a store: the whole store is read at
-- once where that is cheaper than asking for each.
local function present(store, first, n, width)
  local here = {}
  if n > 1 and redis.call('HLEN', store) <= 4 * n then
    for _, field in ipairs(redis.call('HKEYS', store)) do here[field] = true end
  else
    for i = first, first + (n - 1) * width, width do
      here[ARGV[i]] = redis.call('HEXISTS', store, ARGV[i]) == 1
    end
  end
  return here
end

local function store_group(q, t, ttl, first, n)
  local here, removable, stored, absent = present(KEYS[2 * q - 1], first, n, 3), gone[q], 0, nil
  to_results()
  for i = first, first + (n - 1) * 3, 3 do
    local field = ARGV[i]
    if here[field] then
      local done = set_result(ARGV[i + 1], ttl, ARGV[i + 2])
      if done.err then
        failed[#failed + 1] = field
        failed[#failed + 1] = done.err
      else
        removable[#removable + 1] = field
        stored = stored + 1
      end
    else
      absent = absent or {}
      absent[#absent + 1] = i
    end
  end
  to_broker()
  for _, i in ipairs(absent or {}) do
    local found = buried(q, ARGV[i])
    if found then
      local done = store_result(ARGV[i + 1], ttl, ARGV[i + 2])
      if done.err then
        failed[#failed + 1] = ARGV[i]
        failed[#failed + 1] = done.err
      else
        take_back(q, ARGV[i], found)
        stored = stored + 1
      end
    end
  end
  tally(t, stored)
end

local result_groups = tonumber(ARGV[at])
at = at + 1
for _ = 1, result_groups do
  local n = tonumber(ARGV[at + 3])
  store_group(tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2], at + 4, n)
  at = at + 4 + 3 * n
end

while at <= #ARGV do
  local q, field, count = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 3])
  local i = at + 4
  local here, found = redis.call('HEXISTS', KEYS[2 * q - 1], field) == 1, nil
  if not here then
    found = buried(q, field)
    here = found ~= nil
  end
  local trouble = here and wrong_type(i, count)
  for _ = 1, count do
    if here and not trouble then
      local done = write(i)
      if type(done) == 'table' and done.err then trouble = done.err end
    end
    i = i + wants[ARGV[i]] + 1
  end
  if trouble then
    failed[#failed + 1] = field
    failed[#failed + 1] = trouble
  elseif here then
    if found then take_back(q, field, found) else gone[q][#gone[q] + 1] = field end
    if ARGV[at + 2] == '0' then moved[q] = moved[q] + 1 else tally(tonumber(ARGV[at + 2]), 1) end
  end
  at = i
end

for q = 1, Q do remove(q, gone[q], 1, #gone[q]) end

-- Counting: nothing is read (what is read arms the notice), and no trouble here hurts a message.
local function count(counts, totals, state, task, n, took, profile, costs)
  local now = tonumber(redis.call('TIME')[1])
  local key, minute = counts .. ':' .. math.floor(now / 3600), math.floor(now / 60) % 60
  local one, all = minute .. ':' .. state, 'n:' .. state .. ':' .. task
  if redis.pcall('HINCRBY', key, one, n) == n then redis.pcall('EXPIRE', key, kept) end
  if redis.pcall('HINCRBY', totals, all, n) == n then
    local known = redis.pcall('HINCRBY', totals, '#', 1)
    if type(known) == 'number' and known > most then
      redis.pcall('HDEL', totals, all)
      redis.pcall('HINCRBY', totals, '#', -1)
      task = '(other)'
      redis.pcall('HINCRBY', totals, 'n:' .. state .. ':' .. task, n)
    end
  end
  if took ~= '0' then
    redis.pcall('HINCRBY', key, minute .. ':us', took)
    redis.pcall('HINCRBY', totals, 'us:' .. state .. ':' .. task, took)
  end
  if costs ~= '' then
    profile = profile .. ':' .. math.floor(now / 86400)
    for field, more in string.gmatch(costs, '(%w+)=(%d+)') do
      if redis.pcall('HINCRBY', profile, field .. ':' .. task, more) == tonumber(more) then
        redis.pcall('EXPIRE', profile, profile_kept)
      end
    end
  end
end

for t = 1, tallies do
  if settled[t] then
    local i = first_tally + 8 * (t - 1)
    local sent, took, costs = tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 7]
    if settled[t] < sent then
      took, costs = string.format('%.0f', tonumber(took) * settled[t] / sent), ''
    end
    count(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], settled[t], took, ARGV[i + 6], costs)
  end
end

for _, found in ipairs(risen) do count(found[5], found[6], 'dead', found[7], -1, '0', '', '') end

-- Looked at only when there is something to lease: what an empty turn reads arms its notice.
local known = {}
local function registered(q)
  if known[q] == nil then
    known[q] = redis.call('ZSCORE', ARGV[10 + q], consumer) ~= false
    if not known[q] then unregistered = 1 end
  end
  return known[q]
end

-- Whether anything waits at all is asked at once: most turns of a worker that has little to do find nothing. A pause counts
-- only for what waits.
local anything = 0
for k = 2 * Q + 1, want > 0 and #KEYS or 0, 500 do
  anything = anything + redis.call('EXISTS', unpack(KEYS, k, math.min(k + 499, #KEYS)))
end
local open = {}
for q = 1, anything > 0 and Q or 0 do open[q] = redis.call('EXISTS', KEYS[2 * q]) == 0 end

local function lease(index, q, most)
  local list = KEYS[2 * Q + index]
  local have = math.min(most > 0 and open[q] and redis.call('LLEN', list) or 0, most)
  while have > 0 and registered(q) do
    local part = redis.call('RPOP', list, math.min(have, 500))
    if not part then break end
    local flat = {}
    for k = 1, #part do
      flat[2 * k - 1] = number
      flat[2 * k] = part[k]
      number = number + 1
    end
    redis.call('HSET', KEYS[2 * q - 1], unpack(flat))
    leased[#leased + 1] = index
    leased[#leased + 1] = part
    taken[q] = taken[q] + #part
    want = want - #part
    have = have - #part
  end
end

local steps, order, quota = (#KEYS - 2 * Q) / Q, {}, {}
local first = tonumber(ARGV[7])
if anything == 0 then
  steps = 0
elseif first then
  for j = 0, Q - 1 do order[j + 1] = (first + j) % Q + 1 end
else
  local ranking, shares = string.match(ARGV[7], '^(.*);(.*)$')
  for q in string.gmatch(ranking, '%d+') do order[#order + 1] = tonumber(q) + 1 end
  for share in string.gmatch(shares, '%d+') do quota[#quota + 1] = tonumber(share) end
end
for step = 0, steps - 1 do -- within a priority: its part for each queue, then what they leave
  if quota[1] then
    for _, q in ipairs(order) do lease(step * Q + q, q, math.min(quota[q] - taken[q], want)) end
  end
  for _, q in ipairs(order) do lease(step * Q + q, q, want) end
end

for q = 1, Q do
  if taken[q] > 0 then redis.pcall('HINCRBY', ARGV[10 + Q + q], 'taken', taken[q]) end
  if moved[q] > 0 then redis.pcall('HINCRBY', ARGV[10 + Q + q], 'moved', moved[q]) end
end

if ARGV[10] ~= '' then redis.pcall('PUBLISH', ARGV[9], ARGV[10]) end

local held = 0
for q = 1, Q do held = held + redis.call('HLEN', KEYS[2 * q - 1]) end

-- Looked at only when something was leased, for the same reason.
local revoked = #leased > 0 and redis.call('EXISTS', revocations) or 0
if changed[1] then return { failed, leased, held, unregistered, revoked, complete, changed } end
return { failed, leased, held, unregistered, revoked, complete }
