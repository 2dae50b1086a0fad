-- chord_take: the body of a chord is this process's to send from now on, if it was to be sent by its worker.
--
-- KEYS  1 key of the group
-- ARGV  1 the worker's token, 2 our token, 3 seconds that the body is ours to send
-- Returns 1, or 0 if somebody else has it, or it was sent (nothing is done).
--
-- Invariant: of several processes that were told of a chord one has it at a time.

local holder = redis.call('GET', KEYS[1] .. '.c')
if holder and holder ~= ARGV[1] and holder ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1] .. '.c', ARGV[2], 'EX', ARGV[3])
return 1
