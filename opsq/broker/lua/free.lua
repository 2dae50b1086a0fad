-- free: keys of unique messages that are thrown away.
--
-- KEYS  the keys
-- ARGV  for each the id of its message
-- Returns how many were freed
--
-- Invariant: a key that is another message's by now stays.

local freed = 0
for k = 1, #KEYS do
  if redis.call('GET', KEYS[k]) == ARGV[k] then freed = freed + redis.call('DEL', KEYS[k]) end
end
return freed
