-- renew: extend the leases of a worker's consumers on one queue.
--
-- KEYS  1 registry (consumer -> end of its lease, ms)  2.. the consumers' in-flight stores, in the order of ARGV[2..]
-- ARGV  1 lease in ms  2.. consumers
-- Returns {for each consumer the number of messages in its store, consumers whose leases have run out (at most 100),
--          the server's time (ms), how many consumers there are}
--
-- Invariant: the end of a lease is by the server's clock alone.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local deadline = now + tonumber(ARGV[1])
local held = {}
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], deadline, ARGV[i])
  held[i - 1] = KEYS[i] and redis.call('HLEN', KEYS[i]) or 0
end
return { held, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - 1, 'LIMIT', 0, 100), now, redis.call('ZCARD', KEYS[1]) }
