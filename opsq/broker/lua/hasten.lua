-- hasten: have revoked tasks that wait for their time, or for their limits, taken at once, so that they are seen to be revoked
-- now and not when they would have run. A part of them at a time: a large set would keep the server from its other work.
--
-- KEYS  1 delayed set; or 1 list of a lane, 2 its queue's list of that priority, 3 facts of the queue's lanes
-- ARGV  1 how many to pass by, from the one that is next  2 how many to look at  3 how many ids, and these
--       then for each stamp its header and its value, both as they stand in JSON
-- Returns {how many were found, how many were looked at}
--
-- Invariant: of a delayed set nothing but due times is changed. A message of a lane is put at the head of its queue, then
-- taken out of the lane, all in one step; those that are found together keep their order. A message that is taken for a
-- revoked one by mistake (the text of its id stands in another one) goes back to where it was when it is taken.

local first, ids = tonumber(ARGV[1]), {}
local stamps = 4 + tonumber(ARGV[3])
for i = 4, stamps - 1 do ids[ARGV[i]] = true end

local function is_meant(message)
  for id in string.gmatch(message, '"id"%s*:%s*"([^"]*)"') do
    if ids[id] then return true end
  end
  for i = stamps, #ARGV, 2 do
    if string.find(message, ARGV[i], 1, true) and string.find(message, ARGV[i + 1], 1, true) then return true end
  end
  return false
end

if #KEYS == 1 then
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  local found = redis.call('ZRANGE', KEYS[1], first, first + tonumber(ARGV[2]) - 1)
  local hastened = 0
  for _, message in ipairs(found) do
    if is_meant(message) then
      redis.call('ZADD', KEYS[1], 'XX', 'LT', now, message)
      hastened = hastened + 1
    end
  end
  return { hastened, #found }
end

-- The head of a list, from which is taken, is its right end.
if redis.call('TYPE', KEYS[1]).ok ~= 'list' then return { 0, 0 } end
local lanes = lane()
-- What stands for a moment in the place of a message that is taken out; no message is like it.
local GONE = '\0gone'
local found = redis.call('LRANGE', KEYS[1], -first - tonumber(ARGV[2]), -first - 1)
local hastened = 0
for k = 1, #found do
  if is_meant(found[k]) then
    redis.call('RPUSH', KEYS[2], lanes.marked(found[k]))
    redis.call('LSET', KEYS[1], -first - 1 - #found + k, GONE)
    hastened = hastened + 1
  end
end
if hastened > 0 then
  redis.call('LREM', KEYS[1], -hastened, GONE)
  lanes.add_parked({ facts = KEYS[3] }, -hastened)
end
return { hastened, #found }
