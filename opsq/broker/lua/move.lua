-- move: messages of one list (of a queue, or of a lane in which they wait for limits), or of one delayed set, to another
-- queue's.
--
-- KEYS  1 source  2 target  and of a lane 3 facts of the queue's lanes
-- ARGV  1 'list' or 'set'  2 how far from the head of the list to look for them at least, 3 at most (messages; '' for a set)
--       then for each message, the next one first: as it stands in the source, as it is to stand in the target
-- Returns how many were moved; the others are not where they were
--
-- Invariant: a message is in the target before it leaves the source, all in one step; one that cannot be written stays.

-- What stands for a moment in the place of a moved message; no message is like it.
local MOVED = '\0moved'
local moved = 0

if ARGV[1] == 'set' then
  for i = 4, #ARGV, 2 do
    local due = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if due then
      redis.call('ZADD', KEYS[2], due, ARGV[i + 1])
      redis.call('ZREM', KEYS[1], ARGV[i])
      moved = moved + 1
    end
  end
  return moved
end

-- The head of the list, from which is taken, is its right end.
local nearest, farthest = tonumber(ARGV[2]), tonumber(ARGV[3])
local at, window = {}, redis.call('LRANGE', KEYS[1], -farthest - 1, -nearest - 1)
for k = #window, 1, -1 do
  local places = at[window[k]] or {}
  at[window[k]] = places
  places[#places + 1] = k
end
local taken = {}
for i = 4, #ARGV, 2 do
  local places = at[ARGV[i]]
  if places and #places > 0 then
    redis.call('LPUSH', KEYS[2], ARGV[i + 1])
    taken[#taken + 1] = table.remove(places, 1)
  end
end
for _, k in ipairs(taken) do redis.call('LSET', KEYS[1], -nearest - 1 - #window + k, MOVED) end
if #taken > 0 then
  redis.call('LREM', KEYS[1], -#taken, MOVED)
  if KEYS[3] then lane().add_parked({ facts = KEYS[3] }, -#taken) end
end
return #taken
