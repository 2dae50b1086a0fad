-- claim: a message that is sent only if none with its key waits or runs, or that replaces the one that waits.
--
-- KEYS  1 list  2 delayed set  3 registry of the queue's consumers  4 key that the message claims
--       then, if the queue is limited, all of its lists
-- ARGV  1 message  2 due time in ms, '' = now  3 what members of the delayed set begin with  4 its id
--       5 '1' = that id is another message's, whose place it is to take  6 its delivery tag
--       7 how long the key is kept at most, in ms
--       8 '1' = debounced: the key names the message that waits in the delayed set, and this one takes its place
--       9 how many messages the queue holds at most, now and for later; '' = as many as there are
-- Returns {word, id}: 'sent', 'replaced' or 'there' (an earlier try had arrived), and its id; 'held' (nothing done) and the
-- id of the message that has the key; 'gone' (nothing done): the message whose place it was to take is due; or 'full'
--
-- Invariant: the key and the message are written in one step, so nobody who dies leaves one without the other. A unique
-- message's key holds its id, until the turn in which it ends deletes it (if it still holds this id), or its time is up.
-- A debounced message's key holds its due time, tag and id; what it names is looked for in the delayed set: once that
-- message is due the key says nothing. A debounced message keeps the id of the first, so who wants to replace it has to
-- come with that id.

local message, due, id = ARGV[1], ARGV[2], ARGV[4]
local member = ARGV[3] .. message

local function is_full()
  return ARGV[9] ~= '' and held(KEYS[2], 5) >= tonumber(ARGV[9])
end

-- The member of the delayed set that a key's words name, and its id.
local function waiting(stands)
  local when, tag, holder = string.match(stands, '^(%d+)|([^|]*)|(.*)$')
  if tag == ARGV[6] then return nil, nil, true end
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], when, when)) do
    if string.find(each, tag, 1, true) then return each, holder end
  end
end

local function debounce()
  local stands = redis.call('GET', KEYS[4])
  local before, holder, there
  if stands then before, holder, there = waiting(stands) end
  if there then return { 'there', id } end
  if before and holder ~= id then return { 'held', holder } end
  if not before and ARGV[5] == '1' then return { 'gone', '' } end
  if not before and is_full() then return { 'full', '' } end
  if before then redis.call('ZREM', KEYS[2], before) end
  redis.call('ZADD', KEYS[2], due, member)
  redis.call('SET', KEYS[4], due .. '|' .. ARGV[6] .. '|' .. id, 'PX', ARGV[7])
  return { before and 'replaced' or 'sent', id }
end

local function unique()
  local holder = redis.call('GET', KEYS[4])
  if holder then return { holder == id and 'there' or 'held', holder } end
  if is_full() then return { 'full', '' } end
  if due ~= '' and is_consumed(KEYS[3]) then
    redis.call('ZADD', KEYS[2], due, member)
  else
    redis.call('LPUSH', KEYS[1], message)
  end
  redis.call('SET', KEYS[4], id, 'PX', ARGV[7])
  return { 'sent', id }
end

if ARGV[8] == '1' then return debounce() end
return unique()
