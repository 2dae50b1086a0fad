-- hand_over: messages for later go into lists at once; who takes them waits until they are due (Celery's way).
--
-- KEYS  1 delayed set
-- ARGV  for each message: member of the set, its list, its bytes as they are to stand there
-- Returns {moved, ''}, or {moved, why the next one could not be}; those that are not in the set are passed by
--
-- Invariant: a message is in its list before it leaves the set, all in one step; one that cannot be written stays.

redis.call('ZREM', KEYS[1], '') -- a full Redis lets the script through
local moved = 0
for i = 1, #ARGV, 3 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    local done = redis.pcall('LPUSH', ARGV[i + 1], ARGV[i + 2])
    if type(done) == 'table' and done.err then return { moved, done.err } end
    redis.call('ZREM', KEYS[1], ARGV[i])
    moved = moved + 1
  end
end
return { moved, '' }
