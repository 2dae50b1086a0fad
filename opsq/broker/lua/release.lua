-- release: put back into a queue what waits in its lanes and may start now.
--
-- KEYS  1 lanes (facts are not among KEYS: servers up to 7.0 arm the notice for every key that is named there)
-- ARGV  1 facts  2 worker  3 most messages of a lane  then for lanes whose limits have changed: lane, its facts
-- Returns {moved, when to look again in ms or ''}; the lanes are read after the moves, so that a client that tracks them is
-- told of every change.
--
-- Invariant: as lane.lua says.

redis.call('HDEL', ARGV[1], '-') -- a full Redis lets the script through

local lanes = lane()
local facts, worker, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local function place(name) return { lanes = KEYS[1], facts = facts, lane = name } end

for i = 4, #ARGV, 2 do
  local known, text = redis.call('HGET', facts, '=' .. ARGV[i]), ARGV[i + 1]
  if known and lanes.learn(place(ARGV[i]), known, text, cjson.decode(text).made) then
    redis.call('ZADD', KEYS[1], lanes.now, ARGV[i])
  end
end

local moved, again = 0, nil
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', lanes.now, 'LIMIT', 0, 200)) do
  local n, _, at = lanes.release(place(name), worker, most, false)
  moved = moved + n
  if at and (not again or at < again) then again = at end
end
local first = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. lanes.now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if first[2] and (not again or tonumber(first[2]) < again) then again = tonumber(first[2]) end
return { moved, again and lanes.whole(again) or '' }
