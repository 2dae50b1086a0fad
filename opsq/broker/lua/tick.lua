-- tick: one run of an entry of the schedule: its message and the record that it was sent, both or neither.
--
-- KEYS  1 lease of the beats  2 due times  3 entries  4 orders  5 last messages  6 list  7 delayed set
--       8 registry of the queue's consumers  9 key that the message claims, if it is a unique one
-- ARGV  1 lease as the caller holds it  2 entry  3 due time that was served last, '' = none  4 due time served now
--       5 the entry's record  6 message, '' = none  7 due time of the message in ms, '' = now
--       8 member of the delayed set  9 order that asks for this run, '' = the clock does  10 '1' = keep the message
--       11 id of a unique message, '' = it is none  12 how long its key is kept at most, in ms
-- Returns 'sent', 'there' (an earlier try of the same caller had arrived), 'lost' (the lease is another's) or
-- 'superseded' (this due time, or this order, was served by somebody else)
--
-- Invariant: for each due time of an entry, and for each order, at most one message is ever sent: who sends holds the
-- lease at that moment, and the due time that it saw as the last one still is.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end
if ARGV[9] ~= '' then
  if not redis.call('LPOS', KEYS[4], ARGV[9]) then return 'superseded' end
else
  local served = redis.call('HGET', KEYS[2], ARGV[2]) or ''
  if served == ARGV[4] then return 'there' end
  if served ~= ARGV[3] then return 'superseded' end
end
-- A unique message that still waits or runs stands for this one.
if ARGV[6] ~= '' and (ARGV[11] == '' or redis.call('EXISTS', KEYS[9]) == 0) then
  if ARGV[7] ~= '' and is_consumed(KEYS[8]) then
    redis.call('ZADD', KEYS[7], ARGV[7], ARGV[8])
  else
    redis.call('LPUSH', KEYS[6], ARGV[6])
  end
  if ARGV[11] ~= '' then redis.call('SET', KEYS[9], ARGV[11], 'PX', ARGV[12]) end
  if ARGV[10] == '1' then redis.call('HSET', KEYS[5], ARGV[2], ARGV[6]) end
end
if ARGV[9] ~= '' then
  redis.call('LREM', KEYS[4], 1, ARGV[9])
else
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[5])
return 'sent'
