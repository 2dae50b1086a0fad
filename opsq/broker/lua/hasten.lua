-- hasten: make revoked tasks of a delayed set due at once, so that they are seen to be revoked now and not when they were
-- due. A part of the set at a time: a large one would keep the server from its other work.
--
-- KEYS  1 delayed set
-- ARGV  1 place of the first message to look at  2 how many  3 how many ids, and these
--       then for each stamp its header and its value, both as they stand in JSON
-- Returns {how many were made due, how many were looked at}
--
-- Invariant: nothing but their due times is changed. A message that is taken for a revoked one by mistake (the text of its
-- id stands in another one) goes back to its due time when it is taken.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
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

local found = redis.call('ZRANGE', KEYS[1], first, first + tonumber(ARGV[2]) - 1)
local hastened = 0
for _, message in ipairs(found) do
  if is_meant(message) then
    redis.call('ZADD', KEYS[1], 'XX', 'LT', now, message)
    hastened = hastened + 1
  end
end
return { hastened, #found }
