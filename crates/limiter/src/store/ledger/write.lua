-- Writing ------------------------------------------------------------------------------------------------------------

Run = {
  write_ring = function(ring, life)
    local key, size, is_done, n = Ring.key(ring), ring.size, {}, 6
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
      set(size * (K.SLOT + 1), 0)
    end
    for i = 1, #ring.dirty do
      local bucket = ring.dirty[i]
      local slot = floor(bucket / K.SLOT)
      if not is_done[bucket] then
        is_done[bucket] = true
        set(1 + size + bucket % (size * K.SLOT), ring.b[bucket])
      end
      if not is_done[-slot - 1] then
        is_done[-slot - 1] = true
        set(1 + slot % size, ring.s[slot])
      end
    end
    redis_call(unpack(out, 1, n))
    if ring.is_fresh then redis_call('PEXPIRE', key, life) end
  end,

  write_tags = function(life)
    local puts, removed = {}, {}
    for i = 1, #run.tags_gone do
      if not run.tags[run.tags_gone[i]] then removed[#removed + 1] = run.tags_gone[i] end
    end
    for flow in pairs(run.is_tag_new) do
      if run.tags[flow] then
        puts[#puts + 1] = flow
        puts[#puts + 1] = pack(run.tags[flow], run.tags_seen[flow])
      end
    end
    for at = 1, #removed, 1000 do redis_call('HDEL', KEYS[2], unpack(removed, at, min(at + 999, #removed))) end
    for at = 1, #puts, 1000 do redis_call('HSET', KEYS[2], unpack(puts, at, min(at + 999, #puts))) end
    if #puts > 0 and ledger.tags == #puts / 2 then redis_call('PEXPIRE', KEYS[2], life) end
  end,

  write = function(now, fields)
    if #run.wakenings > 0 then
      local prefix, group = KEYS[1]:match('^(.*):{([^}]*)}:state$')
      for i = 1, #run.wakenings, 2 do
        -- A process listens on one channel, whatever the numbers under which it has joined its groups.
        local process = floor(run.wakenings[i] / 4096)
        redis_call('PUBLISH', format('%s:wake:%.0f', prefix, process),
          format('%s %.0f %.0f', group, run.wakenings[i], run.wakenings[i + 1]))
      end
    end
    local life = floor((K.DAY + ledger.life) / 1000)
    local is_due = now >= ledger.expire_at
    if is_due then ledger.expire_at = now + K.HALF_DAY end
    fields[#fields + 1] = 'c'
    fields[#fields + 1] = State.write()
    if learning or missing_ones then
      fields[#fields + 1] = 'l'
      fields[#fields + 1] = State.write_learning()
    end
    if run.forgotten then redis_call('DEL', unpack(run.forgotten)) end
    -- The tags come first: nobody may have looked at them yet, and what is there may be of another kind.
    Run.write_tags(life)
    -- A replica that was forgotten may be the one that calls.
    if #run.gone > 0 then redis_call('HDEL', KEYS[1], unpack(run.gone)) end
    redis_call('HSET', KEYS[1], unpack(fields))
    for i = 1, #ledger.rings do
      if #ledger.rings[i].dirty > 0 then Run.write_ring(ledger.rings[i], life) end
    end
    if is_due then
      redis_call('PEXPIRE', KEYS[1], life)
      redis_call('PEXPIRE', KEYS[2], life)
      for i = 1, #ledger.rings do redis_call('PEXPIRE', Ring.key(ledger.rings[i]), life) end
    end
  end,

  -- The call is answered -----------------------------------------------------------------------------------------------

  push_zeros = function(reply)
    for _ = 1, 6 do reply[#reply + 1] = 0 end
    return reply
  end,

  -- Returns the time of a call, which is never earlier than before; nil: it is in doubt.
  time_of = function(me)
    local last, raw = ledger.last, max(server_time + ledger.skew, 0)
    if their_time == 0 or ledger.epoch ~= 0 and known_epoch ~= ledger.epoch then
      local is_alone = ledger.there == 0
      if last >= ledger.recount_at then
        local members = Replica.read_all(me)
        is_alone = true
        for i = 1, #members do is_alone = is_alone and not Replica.is_there(members[i], last) end
      end
      if is_alone or raw <= last + K.CLOCK_SLACK then return max(raw, last) end
      if ledger.doubt == 0 or raw < ledger.doubt then ledger.doubt = raw end
      if raw - ledger.doubt < K.SILENT_AFTER then
        -- Whoever knows the time tells it when it calls.
        Replica.introduce(last, Replica.read_all(me))
        return nil
      end
      ledger.doubt = 0
      return raw
    end
    ledger.doubt = 0
    local off = their_time - raw
    local function is_off(by) return by > K.CLOCK_SLACK or by < -K.CLOCK_SLACK end
    if me and sequence > me[K.SEQUENCE] then
      local near = K.CLOCK_JITTER + floor(math.abs(off) / 64)
      local is_same = math.abs(off - me[K.OFF]) <= near and Replica.is_answered(me[K.SEQUENCE])
      if is_off(off) and (off > 0 or is_off(me[K.OFF]) and is_same) then
        ledger.skew, me[K.OFF] = ledger.skew + off, 0
      else
        me[K.OFF] = off
      end
    end
    return max(last, is_off(off) and their_time or raw)
  end,

  -- Returns whether the call comes right after the one with this number, but for those that it makes up for.
  follows = function(last)
    if sequence <= last or sequence - last > K.MISSED_MAX + 1 then return false end
    local is_missed = {}
    for i = 1, #missed do is_missed[missed[i][1]] = true end
    for number = last + 1, sequence - 1 do
      if not is_missed[number] then return false end
    end
    return true
  end,

  -- Reads how the ledger stands. Returns the caller's record; nil: there is none.
  read_state = function()
    local got = redis_call('HMGET', KEYS[1], 'c', 'm' .. id, 'i', 'l')
    local c = got[1] and { decode(got[1]) }
    if not c or c[1] ~= K.FORMAT then
      ledger = State.blank(0, 0, 0, 0)
      return nil
    end
    ledger = State.read(c)
    if got[3] then run.roll = { decode(got[3]) } end
    if got[4] then State.read_learning(got[4]) end
    return got[2] and { decode(got[2]) } or nil
  end,
}

local me = Run.read_state()
local had_learning = learning or missing_ones
local now = Run.time_of(me)
local reply, fields
if not now then
  reply, fields = Run.push_zeros(State.brief(0, K.LEARNING)), {}
else
  if ledger.epoch == 0 then
    State.begin(now, known_epoch == 0)
  elseif ledger.server == 0 then
    ledger.server = server
  elseif server ~= 0 and server ~= ledger.server then
    State.begin(now, false)
    me = nil
  end
  ledger.last = now
  local mine = me and { 'm' .. id } or {}
  if known_epoch ~= 0 and known_epoch ~= ledger.epoch then
    reply, fields = Run.push_zeros(State.brief(now, K.LOST)), mine
  elseif me and sequence == me[K.SEQUENCE] then
    me[K.REPEATED] = 1
    reply, fields = { decode(redis_call('HGET', KEYS[1], 'a' .. id)) }, mine
  elseif me and (sequence < me[K.SEQUENCE] or me[K.LEFT] == 1) then
    reply, fields = Run.push_zeros(State.brief(now, K.STALE)), mine
  elseif Run.follows(me and me[K.SEQUENCE] or 0) then
    reply, fields = Answer.answer(now, me)
  end
  if fields == mine and me then fields[2] = pack(unpack(me)) end
  if not reply or run.is_damaged then
    -- What was here once is not here any more.
    State.begin(now, false)
    reply, fields, run.wakenings, run.is_tag_new, run.tags_gone = Run.push_zeros(State.brief(now, K.LOST)), {}, {}, {}, {}
  elseif had_learning and not learning and not missing_ones and not run.forgotten then
    run.gone[#run.gone + 1] = 'l'
  end
end
Run.write(now or ledger.last, fields)
for i = 1, #run.wakenings do reply[#reply + 1] = run.wakenings[i] end
reply[#reply + 1] = #run.wakenings / 2
return reply
