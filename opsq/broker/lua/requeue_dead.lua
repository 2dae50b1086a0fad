-- requeue_dead: dead letters go back to their queue, at its end, in one step.
--
-- KEYS  1 dead letters (hash)  2 their index (sorted set)  3.. lists
-- ARGV  for each letter: id, its record as it was read, list (1..), message
-- Returns one word for each letter: 'sent', 'gone' (no longer there, or not as it was read), or the error of its list
--
-- Invariant: a letter is removed only after its message is in the list, and only by the call that put it there.

local answers = {}
for at = 1, #ARGV, 4 do
  local id, list = ARGV[at], KEYS[2 + tonumber(ARGV[at + 2])]
  local answer = 'gone'
  if redis.call('HGET', KEYS[1], id) == ARGV[at + 1] then
    local done = redis.pcall('LPUSH', list, ARGV[at + 3])
    if type(done) == 'table' and done.err then
      answer = done.err
    else
      redis.call('HDEL', KEYS[1], id)
      redis.pcall('ZREM', KEYS[2], id)
      answer = 'sent'
    end
  end
  answers[#answers + 1] = answer
end
return answers
