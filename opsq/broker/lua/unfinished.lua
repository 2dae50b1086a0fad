-- unfinished: whether a message that was sent still waits or runs somewhere. Writes nothing.
--
-- KEYS  1 registry of the queue's consumers  2 delayed set  3.. the queue's lists
-- ARGV  1 the task's id  2 the message as it was sent, '' = not known  3 what the names of in-flight stores begin with
--       4 Celery's store of messages in hand  5 lanes of the queue  6 their facts
-- Returns 1 or 0. In lists the message itself is looked for at any depth, and its later tries (same id, other bytes)
-- among the last 1,000.

local function has_id(messages)
  for _, message in ipairs(messages) do
    if string.find(message, ARGV[1], 1, true) then return true end
  end
  return false
end

for _, consumer in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if has_id(redis.call('HVALS', ARGV[3] .. consumer)) then return 1 end
end
for index = 3, #KEYS do
  if ARGV[2] ~= '' and redis.call('LPOS', KEYS[index], ARGV[2]) then return 1 end
  if has_id(redis.call('LRANGE', KEYS[index], -1000, -1)) then return 1 end
end
if has_id(redis.call('ZRANGE', KEYS[2], 0, 999)) then return 1 end
for _, lane in ipairs(redis.call('ZRANGE', ARGV[5], 0, -1)) do
  local data = cjson.decode(redis.call('HGET', ARGV[6], '=' .. lane) or '{"steps":[]}')
  for _, suffix in ipairs(data.steps) do
    if has_id(redis.call('LRANGE', data.from .. suffix, -1000, -1)) then return 1 end
  end
end
if redis.call('HLEN', ARGV[4]) <= 10000 and has_id(redis.call('HVALS', ARGV[4])) then return 1 end
return 0
