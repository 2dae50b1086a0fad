-- restore_celery: messages that Celery's workers took and never acknowledged go back to the heads of their lists.
--
-- KEYS  1 kombu's store (tag -> [message, exchange, routing key])  2 its index (tag -> when it was delivered, Unix
--       seconds by the worker's clock)  3 its mutex
-- ARGV  1 visibility timeout (seconds)  then for each message: tag, entry as it was read, list, message
-- Returns how many were put back, or 'held' while a Celery process has the mutex (nothing done)
--
-- Invariant: an entry is removed only in the step that has put its message into its list, only as it was read, and never
-- before its timeout; so of two who restore it one does. Nothing is dropped: what cannot be pushed stays where it is.
-- A script is one step, so nobody can take the mutex meanwhile: looking at it is as good as holding it.

if redis.call('EXISTS', KEYS[3]) == 1 then return 'held' end
redis.call('HDEL', KEYS[1], '-')
local latest = tonumber(redis.call('TIME')[1]) - tonumber(ARGV[1])
local restored = 0
for at = 2, #ARGV, 4 do
  local tag, score = ARGV[at], redis.call('ZSCORE', KEYS[2], ARGV[at])
  if score and tonumber(score) <= latest and redis.call('HGET', KEYS[1], tag) == ARGV[at + 1] then
    local done = redis.pcall('RPUSH', ARGV[at + 2], ARGV[at + 3])
    if not (type(done) == 'table' and done.err) then
      redis.call('HDEL', KEYS[1], tag)
      redis.call('ZREM', KEYS[2], tag)
      restored = restored + 1
    end
  end
end
return restored
