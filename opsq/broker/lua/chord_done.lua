-- chord_done: the body of a chord was sent, or its failure told: nothing of it is needed any more.
--
-- KEYS  1 key of the group, 2 the set of chords that are looked after, 3 ours of this chord
-- ARGV  1 our token, 2 seconds that others shall know that it is done, 3 its name
-- Returns 1, or 0 if the chord is not ours (nothing is done).

if redis.call('GET', KEYS[1] .. '.c') ~= ARGV[1] then return 0 end
for _, part in ipairs({ '.j', '.t', '.s', '.d' }) do redis.call('DEL', KEYS[1] .. part) end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1] .. '.c', 'done', 'EX', ARGV[2])
return 1
