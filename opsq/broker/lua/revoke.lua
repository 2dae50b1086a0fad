-- revoke: remember ids (or stamps) of tasks that are not to run.
--
-- KEYS  1 revocations: id or stamp -> until when, in ms (sorted set)
-- ARGV  1 how long they are remembered (ms)  2 most of them  3 how many delayed sets, and these (not among KEYS: whoever
--       tracks would be told)  then the ids
-- Returns those that were not there before.
--
-- Invariant: a task that waits in a delayed set is remembered until it was due, and as long again as all others. The set
-- has a time to live, and never more than the most: those that would go first go first.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local life, sets = tonumber(ARGV[1]), tonumber(ARGV[3])
local last = now
for i = 4, 3 + sets do
  local latest = redis.call('ZRANGE', ARGV[i], -1, -1, 'WITHSCORES')
  if latest[2] then last = math.max(last, math.floor(tonumber(latest[2]))) end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
local new = {}
for i = 4 + sets, #ARGV do
  if not redis.call('ZSCORE', KEYS[1], ARGV[i]) then new[#new + 1] = ARGV[i] end
  redis.call('ZADD', KEYS[1], 'GT', string.format('%.0f', last + life), ARGV[i])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
local ends = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if ends[2] then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', tonumber(ends[2]))) end
return new
