-- empty_lanes: what waits for limits goes back to the head of its queue, whatever the limits say; in its order.
--
-- KEYS  1 lanes  2 facts of the lanes (both as lane.lua says)
-- ARGV  1 most messages
-- Returns {moved, ''}, or {moved, why the next one could not be}
--
-- Invariant: a message goes from its lane to its queue in one command.

redis.call('HDEL', KEYS[2], '-') -- a full Redis lets the script through
local moved, most, trouble = 0, tonumber(ARGV[1]), ''
for _, lane in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local text = redis.call('HGET', KEYS[2], '=' .. lane)
  local data = text and cjson.decode(text) or { steps = {} }
  for _, suffix in ipairs(data.steps) do
    -- The youngest first: so the oldest ends up as the next one.
    while moved < most and trouble == '' do
      local done = redis.pcall('LMOVE', data.from .. suffix, data.to .. suffix, 'LEFT', 'RIGHT')
      if not done then break end
      if type(done) == 'table' then trouble = done.err else moved = moved + 1 end
    end
  end
  if moved >= most or trouble ~= '' then break end
  redis.call('ZREM', KEYS[1], lane)
  redis.call('HDEL', KEYS[2], '=' .. lane, '+' .. lane)
end
if moved > 0 and redis.call('HINCRBY', KEYS[2], '#', -moved) <= 0 then redis.call('HDEL', KEYS[2], '#') end
return { moved, trouble }
