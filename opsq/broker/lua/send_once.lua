-- send_once: put messages into their queues, unless that was done under this mark.
--
-- KEYS  1 the mark
-- ARGV  1 seconds that the mark is kept, then each message: 'L', its list, its bytes; or 'W', its delayed set, its list,
--       when (ms), its member of the set (later_functions.lua)
-- Returns 1, or 0 if the mark was there (nothing is written).
--
-- Invariant: the mark is there if and only if the messages were written.

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], '1', 'EX', ARGV[1])
local wants = { L = 3, W = 5 }
local holds = { L = { 'list' }, W = { 'zset', 'list' } }
local i = 2
while i <= #ARGV do
  for k, kind in ipairs(holds[ARGV[i]]) do
    local found = redis.call('TYPE', ARGV[i + k]).ok
    if found ~= 'none' and found ~= kind then
      redis.call('DEL', KEYS[1])
      return redis.error_reply('WRONGTYPE ' .. ARGV[i + k] .. ' is a ' .. found)
    end
  end
  i = i + wants[ARGV[i]]
end
i = 2
while i <= #ARGV do
  if ARGV[i] == 'L' then redis.call('LPUSH', ARGV[i + 1], ARGV[i + 2])
  else send_later(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) end
  i = i + wants[ARGV[i]]
end
return 1
