-- Writing ------------------------------------------------------------------------------------------------------------

local function write_ring(ring, life)
  local key, size, is_done, n = ring_key(ring), ring.size, {}, 6
  local out = { 'BITFIELD', key, 'SET', 'i64', '#0', ledger.epoch }
  local function set(cell, value)
    if n > 1000 then
      redis_call(unpack(out, 1, n))
      n = 2
    end
    out[n + 1], out[n + 2], out[n + 3], out[n + 4], n = 'SET', 'i64', '#' .. cell, value, n + 4
  end
  if ring.is_fresh then
    redis_call('DEL', key)
    -- The last cell, so that the string is as long as it will be.
    set(size * (SLOT + 1), 0)
  end
  for i = 1, #ring.dirty do
    local bucket = ring.dirty[i]
    local slot = floor(bucket / SLOT)
    if not is_done[bucket] then
      is_done[bucket] = true
      set(1 + size + bucket % (size * SLOT), ring.b[bucket])
    end
    if not is_done[-slot - 1] then
      is_done[-slot - 1] = true
      set(1 + slot % size, ring.s[slot])
    end
  end
  redis_call(unpack(out, 1, n))
  if ring.is_fresh then redis_call('PEXPIRE', key, life) end
end

local function write_tags(life)
  local puts, removed = {}, {}
  for i = 1, #tags_gone do
    if not tags[tags_gone[i]] then removed[#removed + 1] = tags_gone[i] end
  end
  for flow in pairs(is_tag_new) do
    if tags[flow] then
      puts[#puts + 1] = flow
      puts[#puts + 1] = format('%.0f', tags[flow])
    end
  end
  for at = 1, #removed, 1000 do redis_call('HDEL', KEYS[2], unpack(removed, at, min(at + 999, #removed))) end
  for at = 1, #puts, 1000 do redis_call('HSET', KEYS[2], unpack(puts, at, min(at + 999, #puts))) end
  if #puts > 0 and ledger.tags == #puts / 2 then redis_call('PEXPIRE', KEYS[2], life) end
end

local function write(now, fields)
  if #wakenings > 0 then
    local prefix, group = KEYS[1]:match('^(.*):{([^}]*)}:state$')
    for i = 1, #wakenings, 2 do
      -- A process listens on one channel, whatever the numbers under which it has joined its groups.
      local process = floor(wakenings[i] / 4096)
      redis_call('PUBLISH', format('%s:wake:%.0f', prefix, process),
        format('%s %.0f %.0f', group, wakenings[i], wakenings[i + 1]))
    end
  end
  local life = floor((DAY + ledger.life) / 1000)
  local is_due = now >= ledger.expire_at
  if is_due then ledger.expire_at = now + HALF_DAY end
  fields[#fields + 1] = 'c'
  fields[#fields + 1] = write_ledger()
  if learning then
    fields[#fields + 1] = 'l'
    fields[#fields + 1] = write_learning()
  end
  if forgotten then redis_call('DEL', unpack(forgotten)) end
  -- A replica that was forgotten may be the one that calls.
  if #gone > 0 then redis_call('HDEL', KEYS[1], unpack(gone)) end
  redis_call('HSET', KEYS[1], unpack(fields))
  for i = 1, #ledger.rings do
    if #ledger.rings[i].dirty > 0 then write_ring(ledger.rings[i], life) end
  end
  write_tags(life)
  if is_due then
    redis_call('PEXPIRE', KEYS[1], life)
    redis_call('PEXPIRE', KEYS[2], life)
    for i = 1, #ledger.rings do redis_call('PEXPIRE', ring_key(ledger.rings[i]), life) end
  end
end

-- The call is answered -----------------------------------------------------------------------------------------------

local function push_zeros(reply)
  for _ = 1, 6 do reply[#reply + 1] = 0 end
  return reply
end

-- Returns the time of a call: the server's, but never earlier than before, and never further from that of a replica that
-- is known for some time than the slack.
local function time_of(me)
  local server_time = tonumber(ARGV[1])
  if server_time == 0 then
    local time = redis_call('TIME')
    server_time = time[1] * 1000000 + time[2]
  end
  local last = ledger and ledger.last or 0
  local raw = max(server_time + (ledger and ledger.skew or 0), 0)
  local now = raw
  if their_time > 0 then now = min(now, their_time + CLOCK_SLACK) end
  if their_time > 0 and me and me[LEFT] == 0 and less(last, me[BORN]) >= TRUSTED_AFTER then
    now = max(now, less(their_time, CLOCK_SLACK))
    ledger.skew = ledger.skew + now - raw
  end
  return max(now, last)
end

-- Returns whether the call comes right after the one with this number, but for those that it makes up for.
local function follows(last)
  if sequence <= last or sequence - last > MISSED_MAX + 1 then return false end
  local is_missed = {}
  for i = 1, #missed do is_missed[missed[i][1]] = true end
  for number = last + 1, sequence - 1 do
    if not is_missed[number] then return false end
  end
  return true
end

local got = redis_call('HMGET', KEYS[1], 'c', 'm' .. id, 'l')
local me
if got[1] and decode(got[1]) == FORMAT then
  ledger = read_ledger(got[1])
  me = got[2] and { decode(got[2]) }
  learning = got[3] and read_learning(got[3])
end
local had_learning = learning

local now = time_of(me)
if not ledger then begin(now, known_epoch == 0) end
ledger.last = now

local reply, fields
if known_epoch ~= 0 and known_epoch ~= ledger.epoch then
  reply, fields = push_zeros(brief(now, LOST)), {}
elseif me and sequence == me[SEQUENCE] then
  reply, fields = { decode(redis_call('HGET', KEYS[1], 'a' .. id)) }, {}
elseif me and (sequence < me[SEQUENCE] or me[LEFT] == 1) then
  reply, fields = push_zeros(brief(now, STALE)), {}
elseif follows(me and me[SEQUENCE] or 0) then
  reply, fields = answer(now, me)
end
if not reply or is_damaged then
  -- What was here once is not here any more.
  begin(now, false)
  reply, fields, wakenings, gone, is_tag_new, tags_gone = push_zeros(brief(now, LOST)), {}, {}, {}, {}, {}
elseif had_learning and not learning and not forgotten then
  gone[#gone + 1] = 'l'
end
write(now, fields)
for i = 1, #wakenings do reply[#reply + 1] = wakenings[i] end
reply[#reply + 1] = #wakenings / 2
return reply
