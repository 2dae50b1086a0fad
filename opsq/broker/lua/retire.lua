-- retire: take a consumer out of the registry of a queue, if it holds nothing.
--
-- KEYS  1 registry  2 its in-flight store
-- ARGV  1 consumer
-- Returns 1 when it was taken out, 0 when it holds messages and stays.
--
-- Invariant: a store that is not empty has its consumer in the registry, where reapers look.

if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
