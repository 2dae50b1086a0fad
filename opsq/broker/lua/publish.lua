-- publish: one message into its queue, or for later; without a copy when it is sent again.
--
-- KEYS  1 list  2 delayed set  3 registry of the queue's consumers
-- ARGV  1 message  2 due time in ms, '' = now  3 member of the delayed set  4 '1' = may have been sent before
-- Returns 'sent' (in the list), 'delayed' (in the delayed set) or 'there' (an earlier try had arrived; nothing done)
--
-- Invariant: after a retried publish the message is there once, as long as its first copy was not yet taken (the last
-- 1,000 of the list are looked at). A message for later goes to the delayed set only if an opsq worker that lives
-- consumes the queue; else it goes out at once with its `eta`, as Celery does.

if ARGV[2] ~= '' then
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  if #redis.call('ZRANGEBYSCORE', KEYS[3], now, '+inf', 'LIMIT', 0, 1) > 0 then
    redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
    return 'delayed'
  end
end
if ARGV[4] == '1' and redis.call('LPOS', KEYS[1], ARGV[1], 'MAXLEN', 1000) then return 'there' end
redis.call('LPUSH', KEYS[1], ARGV[1])
return 'sent'
