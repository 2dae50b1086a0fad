-- chord_part: count parts of chords, on a server whose results the turn cannot reach.
--
-- ARGV  the parts, 13 arguments each (chord_functions.lua)
-- Returns the names of the chords of which this was the last part, and whose body is ours to send.
--
-- Invariant: a part is counted once, however often it is told.

local complete = {}
-- The first write is a removal: a full Redis then lets the script through.
if #ARGV > 0 then redis.call('HDEL', ARGV[11], '-') end
for i = 1, #ARGV, 13 do
  if count_part(ARGV, i) then complete[#complete + 1] = ARGV[i + 11] end
end
return complete
