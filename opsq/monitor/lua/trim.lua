-- trim: take the oldest records out of the history, down to its cap by number and age.
--
-- KEYS  1 records (hash: id -> record)  2 an index of them (sorted set: id -> last change)
-- ARGV  1 most records  2 oldest time kept (Unix s)  3 most records taken out by this call
-- Returns how many were taken out
--
-- Invariant: an id leaves the index together with its record.

local limit = tonumber(ARGV[3])
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[2], 'LIMIT', 0, limit)
local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1])
if excess > #gone then
  gone = redis.call('ZRANGE', KEYS[2], 0, math.min(excess, limit) - 1)
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
end
return #gone
