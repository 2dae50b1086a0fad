-- lead: take, keep or give up the lease of the beats of one app.
--
-- KEYS  1 lease
-- ARGV  1 the lease as the caller writes it (unlike any other's)  2 its length in ms, 0 = give it up
--       3 the lease of a process that is known to be dead, '' = none
-- Returns {who has it now, or ''; how long it still lasts in ms}
--
-- Invariant: nobody takes a lease that runs, except from the dead whose lease it named.

local held = redis.call('GET', KEYS[1])
if ARGV[2] == '0' then
  if held == ARGV[1] then redis.call('DEL', KEYS[1]) end
  return {'', 0}
end
if not held or held == ARGV[1] or held == ARGV[3] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  held = ARGV[1]
end
return {held, redis.call('PTTL', KEYS[1])}
