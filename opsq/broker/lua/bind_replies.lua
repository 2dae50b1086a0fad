-- bind_replies: a list for replies of the mailbox, known to who replies, as kombu writes it.
--
-- KEYS  1 bindings of the exchange of replies (set)  2 Celery's ends of bindings (sorted set: exchange -> ms)
-- ARGV  1 member of the bindings  2 exchange  3 how long they are kept after the last one came (ms)
-- Returns 1.
--
-- Invariant: processes of kombu 5.7 take away all bindings of an exchange whose end has passed; it is only ever moved on.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], 'GT', now + tonumber(ARGV[3]), ARGV[2])
return 1
