-- publish: messages of one list into it, or for later; without a copy when they are sent again, and as far as there is room.
--
-- KEYS  1 list  2 delayed set  3 registry of the queue's consumers  then, if the queue is limited, all of its lists
-- ARGV  1 '1' = may have been sent before  2 what their members of the delayed set begin with
--       3 how many messages the queue holds at most, now and for later; '' = as many as there are
--       then for each message: due time in ms ('' = now), message
-- Returns how many of the messages, from the first one on, are there now
--
-- Invariant: after a retried publish each message is there once, as long as its first copy was not yet taken. They go
-- into the list in one step and in order, so the last one that is found tells of all before it (the last 1,000 of the list
-- are looked at); if there is no limit they go all or none, so the very last one tells.

local count, limited, consumed = (#ARGV - 3) / 2, ARGV[3] ~= '', nil

local function is_there(i)
  local due, message = ARGV[2 + 2 * i], ARGV[3 + 2 * i]
  return due ~= '' and redis.call('ZSCORE', KEYS[2], ARGV[2] .. message)
    or redis.call('LPOS', KEYS[1], message, 'MAXLEN', 1000)
end

local first, room = 1, count
if ARGV[1] == '1' then
  for i = count, limited and 1 or count, -1 do
    if is_there(i) then
      first = i + 1
      break
    end
  end
end
if limited then
  room = tonumber(ARGV[3]) - held(KEYS[2], 4)
end
local last = math.min(count, first - 1 + math.max(room, 0))
local now = {}
for i = first, last do
  local due, message = ARGV[2 + 2 * i], ARGV[3 + 2 * i]
  if due ~= '' and consumed == nil then consumed = is_consumed(KEYS[3]) end
  if due ~= '' and consumed then
    redis.call('ZADD', KEYS[2], due, ARGV[2] .. message)
  else
    now[#now + 1] = message
  end
end
if #now > 0 then redis.call('LPUSH', KEYS[1], unpack(now)) end
return last
