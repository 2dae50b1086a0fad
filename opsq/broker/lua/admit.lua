-- admit: which of the messages that a consumer is about to run may run now; the others go to their lanes, in one step.
--
-- KEYS  for each group of messages (one lane): store of the consumer, its passes, lanes, facts, totals of the queue
-- ARGV  1 worker  then for each group: lane, its facts, how many messages, and of each: number, its priority step (1..)
-- Returns {parked, stuck}: numbers of the messages that are not in the store any more (they are in their lane, or somebody
-- else has them), and of those that cannot be put anywhere and must not run now
--
-- Invariant: a message is in its store or in its lane, never in both; what passes has its pass, and asking again changes
-- nothing. New messages never pass those that wait in their lane. (What limits and lanes are: lane.lua)

for k = 1, #KEYS, 5 do redis.call('HDEL', KEYS[k], '-') end -- a full Redis lets the script through

local lanes = lane()
local worker, parked, stuck = ARGV[1], {}, {}
local at = 2

local function park(store, data, place, message, raw, head)
  local list = data.from .. data.steps[message.step]
  local done = redis.pcall(head and 'RPUSH' or 'LPUSH', list, raw)
  if type(done) == 'table' and done.err then
    stuck[#stuck + 1] = message.number
    return 0
  end
  redis.call('HDEL', store, message.number)
  parked[#parked + 1] = message.number
  return 1
end

local function pass(passes, place, data, number, holder)
  local paid = lanes.pay(data.gates, worker, holder)
  redis.call('HSET', passes, number, cjson.encode({ holder = holder, place = place, paid = paid }))
end

for k = 1, #KEYS, 5 do
  local store, passes = KEYS[k], KEYS[k + 1]
  local place = { lanes = KEYS[k + 2], facts = KEYS[k + 3], lane = ARGV[at] }
  local text, count = ARGV[at + 1], tonumber(ARGV[at + 2])
  local data = cjson.decode(text)
  local known = redis.call('HMGET', place.facts, '=' .. place.lane, '+' .. place.lane)
  local waiting, out, out_until = 0, 0, 0
  if known[1] then
    waiting = lanes.lengths(data)
    out, out_until = lanes.on_their_way(known[2], data)
    lanes.learn(place, known[1], text, data.made)
  end
  local returned, left, moved, passed = {}, nil, 0, 0
  for i = at + 3, at + 1 + 2 * count, 2 do
    local message = { number = ARGV[i], step = tonumber(ARGV[i + 1]) }
    local raw = redis.call('HGET', store, message.number)
    local back = lanes.is_marked(raw)
    if not raw then
      parked[#parked + 1] = message.number
    elseif redis.call('HEXISTS', passes, message.number) == 0 then
      if back then out = math.max(out - 1, 0) end
      left = left or lanes.free(data.gates, worker)
      if left > 0 and (back or waiting + out == 0) then
        left = left - 1
        passed = passed + 1
        pass(passes, place, data, message.number, message.number .. '@' .. store)
      elseif back then
        returned[#returned + 1] = { message, raw }
      else
        local one = park(store, data, place, message, raw, false)
        waiting, moved = waiting + one, moved + one
      end
    end
  end
  for i = #returned, 1, -1 do moved = moved + park(store, data, place, returned[i][1], returned[i][2], true) end
  if passed > 0 then redis.call('PEXPIRE', passes, lanes.KEPT) end
  if moved > 0 then
    lanes.add_parked(place, moved)
    redis.pcall('HINCRBY', KEYS[k + 4], 'moved', moved)
    if not known[1] then redis.call('HSET', place.facts, '=' .. place.lane, text) end
  end
  if known[2] then redis.call('HSET', place.facts, '+' .. place.lane, lanes.whole(out) .. ' ' .. lanes.whole(out_until)) end
  if known[1] or moved > 0 then lanes.release(place, worker, 100, true) end
  at = at + 3 + 2 * count
end

return { parked, stuck }
