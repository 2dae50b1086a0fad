-- send_once: put messages into their queues, unless that was done under this mark.
--
-- KEYS  1 the mark
-- ARGV  1 seconds that the mark is kept, then each message: 'L', its list, its bytes; or 'Z', its delayed set, when (ms),
--       its member
-- Returns 1, or 0 if the mark was there (nothing is written).
--
-- Invariant: the mark is there if and only if the messages were written.

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], '1', 'EX', ARGV[1])
local wants = { L = 3, Z = 4 }
local holds = { L = 'list', Z = 'zset' }
local i = 2
while i <= #ARGV do
  local found = redis.call('TYPE', ARGV[i + 1]).ok
  if found ~= 'none' and found ~= holds[ARGV[i]] then
    redis.call('DEL', KEYS[1])
    return redis.error_reply('WRONGTYPE ' .. ARGV[i + 1] .. ' is a ' .. found)
  end
  i = i + wants[ARGV[i]]
end
i = 2
while i <= #ARGV do
  if ARGV[i] == 'L' then redis.call('LPUSH', ARGV[i + 1], ARGV[i + 2])
  else redis.call('ZADD', ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end
  i = i + wants[ARGV[i]]
end
return 1
