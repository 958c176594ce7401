-- An answer ----------------------------------------------------------------------------------------------------------

Answer = {
  -- Finds the rings of the call's limits, lets time pass in them, and reads what the call will need of them. Returns whether
  -- replicas count otherwise than before.
  prepare = function(now)
    local by_name, is_changed = {}, false
    for i = 1, #ledger.rings do by_name[ledger.rings[i].name] = ledger.rings[i] end
    local wanted = {}
    for i = 1, #limits / K.LIMIT do
      local at = K.LIMIT * (i - 1) + 1
      local ring = by_name[limits[at]]
      if not ring then
        ring = State.open_ring({
          name = limits[at], life = 0, asked = 0, width = 1, amount = 0, told = 0, source = 0, since = 0, ends = 0, live = 0,
          refunded = 0, low = 1, top = 0, size = 0, held = 0, kept = 0, part = 0, rate = 0, round = 0,
          index = #ledger.rings + 1,
        })
        ledger.rings[ring.index], by_name[ring.name], is_changed = ring, ring, true
      end
      ring.key = KEYS[2 + i]
      run.rings[i] = ring
      if Ring.adopt(ring, now, at) then is_changed = true end
      wanted[i] = {}
      if #asks > 0 then wanted[i][1] = floor(now / ring.width) end
      local first = Ring.first_live(ring, now)
      if first <= ring.top then
        for bucket = ring.low, min(first - 1, ring.low + K.SLOT) do wanted[i][#wanted[i] + 1] = bucket end
      end
    end
    for at = 1, #entries, 4 do
      local kind, i = entries[at], entries[at + 1]
      if kind <= 2 and run.rings[i] then
        local stamp = entries[at + 2]
        if stamp == 0 and kind == 2 then stamp = now end
        wanted[i][#wanted[i] + 1] = floor(stamp / run.rings[i].width)
      end
    end
    for i = 1, #run.rings do
      local ring = run.rings[i]
      Ring.load(ring, wanted[i])
      Ring.advance(ring, Ring.first_live(ring, now))
    end
    if is_changed then
      ledger.life, ledger.short = 0, 0
      for i = 1, #ledger.rings do
        local ring = ledger.rings[i]
        ledger.life = max(ledger.life, ring.life)
        if floor(ring.name / 8) <= K.WINDOW_MAX then ledger.short = max(ledger.short, ring.life) end
      end
    end
    -- The requests name limits by their place in the call.
    local at = 6
    while asks[at] do
      for k = at + 1, at + 3 * asks[at], 3 do asks[k] = run.rings[asks[k]].index end
      at = at + 6 + 3 * asks[at]
    end
    return is_changed
  end,

  -- Notes who calls, and what it holds. Returns its record, which is counted.
  meet = function(now, me)
    local was_there, claimed = false, 0
    if me then
      was_there, claimed = Replica.is_there(me, now), Replica.claim(me, now)
      if less(now, me[K.CONTACT]) > K.CUT_OFF_AFTER then ledger.known = 0 end
      Replica.count(me, now, -1)
    else
      me = { 0, now, now, now, now, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
      ledger.known = 0
    end
    for at = K.PER_RING, K.PER_RING * #ledger.rings, K.PER_RING do
      if not me[K.HELD + at] then
        me[K.HELD + at], me[K.TOLD_SEEN + at], me[K.TOLD_MARK + at], me[K.SEEN + at], me[K.MARK + at], me[K.GRANTED + at] = 0, 0, -1, 0, -1, -1
      end
    end
    local sent = their_time > 0 and min(now, their_time) or now
    if me[K.SEQUENCE] == 0 then
      me[K.CONTACT] = sent
    else
      Replica.confirm(me, Replica.is_answered(me[K.SEQUENCE]))
    end
    me[K.SENT], me[K.SEQUENCE], me[K.BEAT], me[K.SHARE_LIFE], me[K.LEASE] = sent, sequence, now, share_life, lease
    -- What it held and knew of limits that it does not ask for any more is forgotten.
    local is_asked = {}
    for i = 1, #run.rings do is_asked[run.rings[i].index] = true end
    for i = 1, #ledger.rings do
      local at = K.PER_RING * i
      if not is_asked[i] then
        me[K.HELD + at], me[K.TOLD_SEEN + at], me[K.TOLD_MARK + at], me[K.SEEN + at], me[K.MARK + at], me[K.GRANTED + at] = 0, 0, -1, 0, -1, -1
      end
    end
    for i = 1, #run.rings do me[K.HELD + K.PER_RING * run.rings[i].index] = limits[K.LIMIT * i] end
    ledger.there = ledger.there - (was_there and 1 or 0)
    ledger.shares = ledger.shares - claimed
    if leaves then
      me[K.LEFT] = 1
    else
      -- Whoever does not know the time is never in touch.
      local all = their_time > 0 and not learning and not missing_ones and min(shares, K.SHARES) or 0
      ledger.there = ledger.there + 1
      me[K.TOLD_SHARE] = min(floor(all / ledger.there), less(all, ledger.shares))
      ledger.shares = ledger.shares + Replica.claim(me, now)
    end
    Replica.enroll()
    Replica.count(me, now, 1)
    return me
  end,

  -- Reads what is remembered of the flows that the call speaks of.
  read_flows = function()
    local flows, lists = {}, { entries }
    for i = 1, #missed do lists[i + 1] = missed[i][2] end
    for i = 1, #lists do
      local list = lists[i]
      for at = 1, #list, 4 do
        if list[at] == 6 then flows[#flows + 1] = list[at + 1] .. list[at + 2] end
      end
    end
    local at = 1
    while asks[at] do
      flows[#flows + 1] = asks[at] .. asks[at + 1]
      at = at + 6 + 3 * asks[at + 5]
    end
    Tags.load(flows)
  end,

  -- Enters corrections.
  enter = function(now, list)
    for k = 1, #list, 4 do
      local kind, a, b, c = list[k], list[k + 1], list[k + 2], list[k + 3]
      local ring = kind <= 4 and run.rings[a]
      if kind == 5 then
        ledger.paused_until = max(ledger.paused_until, a)
      elseif kind == 6 then
        Tags.correct(a .. b, a, c)
      elseif not ring then
        -- It speaks of a limit that is none of the call's.
      elseif kind == 1 then
        Ring.refund(ring, b, c)
      elseif kind == 2 then
        Ring.charge(ring, now, b == 0 and now or b, c)
      elseif kind == 3 then
        Ring.charge(ring, now, now, less(b, ring.live))
        if learning and ring.name % 8 < 5 then State.insert(learning.proven, ring.name % 8) end
      elseif ring.told ~= b or ring.source ~= c then
        ring.told, ring.source = b, c
        ledger.facts_version = ledger.facts_version + 1
      end
    end
  end,

  -- Makes up for calls whose answers were given up.
  make_up = function(now, me)
    local last = me and me[K.SEQUENCE] or 0
    for i = 1, #missed do
      local its_sequence, its_entries, takes = unpack(missed[i])
      if its_sequence > last then
        Answer.enter(now, its_entries)
      elseif me and its_sequence == last then
        -- Its moment is the third number of what was answered, and who was let in is told from the thirteenth on.
        local answered = { decode(redis_call('HGET', KEYS[1], 'a' .. id)) }
        for order = 1, answered[12] do
          for k = 1, answered[12 + order] == 1 and #run.rings or 0 do
            local take = takes[#run.rings * (order - 1) + k]
            if take then Ring.refund(run.rings[k], answered[3], take) end
          end
        end
      end
    end
  end,

  -- Takes note of what a replica knows of lost charges.
  sow = function(now)
    for i = 1, #run.rings do
      local ring = run.rings[i]
      Ring.load_slots(ring)
      if ring.low <= ring.top then Ring.load_range(ring, ring.low, ring.top) end
    end
    for at = 1, #own, 3 do
      local ring = run.rings[own[at]]
      if ring then Ring.charge(ring, now, own[at + 1], own[at + 2]) end
    end
    if missing_ones then
      local at = State.has(missing_ones.names, replica)
      if at then table.remove(missing_ones.names, at) end
      if #missing_ones.names == 0 then missing_ones = nil end
    end
    if not learning then return end
    learning.is_fresh = false
    State.insert(learning.seeded, replica)
    for i = 1, #their_names do State.insert(learning.named, their_names[i]) end
    local slots, place = learning.slots, {}
    for at = 1, #slots, 3 do place[slots[at] .. ':' .. format('%.0f', slots[at + 1])] = at end
    for k = 1, #seen, 3 do
      local ring = run.rings[seen[k]]
      if ring then
        local name = ring.index .. ':' .. format('%.0f', seen[k + 1])
        local at = place[name]
        if not at then
          at = #slots + 1
          place[name], slots[at], slots[at + 1], slots[at + 2] = at, ring.index, seen[k + 1], 0
        end
        slots[at + 2] = max(slots[at + 2], seen[k + 2])
      end
    end
  end,

  -- Ends learning if enough is known.
  learn = function(now)
    local is_fresh = learning.is_fresh
    local all_said = not is_fresh and #learning.named > 0 and State.has_all(learning.seeded, learning.named)
      and now >= learning.began + K.LEARNING_MIN
    local all_proven = is_fresh and #learning.proven > 0
    if all_proven then
      local wanted = {}
      for i = 1, #run.rings do
        local dimension = run.rings[i].name % 8
        if floor(run.rings[i].name / 8) <= K.WINDOW_MAX and dimension ~= 4 then wanted[#wanted + 1] = dimension end
      end
      all_proven = State.has_all(learning.proven, wanted)
    end
    if not all_said and not all_proven and now < learning.last then return end
    if not is_fresh and not all_said then
      local silent = {}
      for i = 1, #learning.named do
        if not State.has(learning.seeded, learning.named[i]) then silent[#silent + 1] = learning.named[i] end
      end
      -- 0 stands for those whom nobody knew for sure.
      if #silent == 0 then silent[1] = 0 end
      missing_ones = { names = silent, shares = min(shares, K.SHARES), last = learning.began + share_life + 2 * K.SILENT_AFTER }
    end
    -- What anybody saw and nobody has owned up to was charged by somebody who is gone, or who does not share the ledger. All
    -- sums come first, for one slot's charge may fall into another.
    local slots, missing = learning.slots, {}
    for at = 1, #slots, 3 do
      local ring = ledger.rings[slots[at]]
      Ring.load_slots(ring)
      missing[at] = less(slots[at + 2], ring.s[slots[at + 1]] or 0)
    end
    for at = 1, #slots, 3 do
      local ring = ledger.rings[slots[at]]
      Ring.charge(ring, now, ((slots[at + 1] + 1) * K.SLOT - 1) * ring.width, missing[at])
    end
    learning = nil
  end,

  -- Returns those of the call's requests that wait on, at most so many.
  waiting = function(granted)
    local list, at, order, count = {}, 1, 0, 0
    while asks[at] do
      order = order + 1
      local size = 6 + 3 * asks[at + 5]
      if not granted[order] and count < K.HEADS_MAX then
        count = count + 1
        for k = at, at + size - 1 do list[#list + 1] = asks[k] end
      end
      at = at + size
    end
    return list
  end,

  push_facts = function(reply)
    if known_facts == ledger.facts_version then
      reply[#reply + 1] = 0
      return
    end
    local told = {}
    for i = 1, #ledger.rings do
      if ledger.rings[i].source > 0 then told[#told + 1] = ledger.rings[i] end
    end
    table.sort(told, function(a, b) return a.name < b.name end)
    reply[#reply + 1] = #told
    for i = 1, #told do
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3] = told[i].name, told[i].told, told[i].source
    end
  end,

  -- Adds everybody's charges in slots.
  push_view = function(reply)
    reply[#reply + 1] = #run.rings
    for i = 1, #run.rings do
      local ring = run.rings[i]
      Ring.load_slots(ring)
      local count_at = #reply + 1
      local n = count_at
      reply[count_at] = 0
      if ring.low <= ring.top then
        for slot = floor(ring.low / K.SLOT), floor(ring.top / K.SLOT) do
          local sum = ring.s[slot] or 0
          if sum > 0 then reply[n + 1], reply[n + 2], n = slot, sum, n + 2 end
        end
      end
      reply[count_at] = (n - count_at) / 2
    end
  end,

  -- Does what is asked. Returns the reply, and the fields of the state that change, but for the ledger's own.
  answer = function(now, me)
    if Answer.prepare(now) or now >= ledger.recount_at then me = Replica.recount(now, me) end
    if missing_ones and now > missing_ones.last + ledger.life then missing_ones = nil end
    Answer.read_flows()
    Answer.make_up(now, me)
    if not me and not leaves then Replica.introduce(now, Replica.read_all()) end
    me = Answer.meet(now, me)
    local waited = Replica.stop_waiting(replica)
    Answer.enter(now, entries)
    if own then Answer.sow(now) end
    if learning then Answer.learn(now) end
    local granted, denial, denied_by, wake_at, is_behind = Line.pass(now, me)
    local reply, order, is_denied = State.brief(now, learning and K.LEARNING or K.OPEN), 0, false
    reply[4], reply[5], reply[8], reply[9], reply[10] = ledger.there, leaves and 0 or me[K.TOLD_SHARE], denial, denied_by, wake_at
    local n, at, their_tags = 12, 1, {}
    while asks[at] do
      order = order + 1
      reply[n + order] = granted[order] and 1 or 0
      is_denied = is_denied or not granted[order]
      their_tags[order] = Tags.of(now, asks[at] .. asks[at + 1], asks[at])
      at = at + 6 + 3 * asks[at + 5]
    end
    reply[n], n = order, n + order + 1
    reply[n] = #run.rings
    for i = 1, #run.rings do reply[n + i] = Line.total_of(now, run.rings[i]) end
    n = n + #run.rings + 1
    reply[n] = order
    for i = 1, order do reply[n + i] = their_tags[i] end
    Answer.push_facts(reply)
    local list = Replica.names()
    n = #reply + 1
    reply[n] = #list
    for i = 1, #list do reply[n + i] = list[i] end
    local is_shown = wants_view or is_denied or is_behind
    local knew = Replica.told_at(me)
    Replica.count(me, now, -1)
    if #list > 0 then me[K.TOLD_AT] = now end
    -- Whoever knows somebody now may not know everybody.
    if knew == 0 and Replica.told_at(me) ~= 0 then ledger.known = 0 end
    for i = 1, #run.rings do Replica.tell(me, run.rings[i], run.taken[run.rings[i].index] or 0, is_shown) end
    Replica.count(me, now, 1)
    ledger.recount_at = min(ledger.recount_at, Replica.changes_at(me, now))
    -- Whoever repeats a call does not need to see everything again.
    n = #reply + 1
    reply[n] = 0
    local fields = { 'm' .. id, pack(unpack(me)), 'a' .. id, pack(unpack(reply)) }
    if is_shown then
      reply[n] = nil
      Answer.push_view(reply)
    end
    if is_denied and not leaves then
      fields[5], fields[6] = 'h' .. id, pack(unpack(Answer.waiting(granted)))
      ledger.waiters[#ledger.waiters + 1] = { id = replica, beat = now, woken = wake_at }
    elseif waited then
      run.gone[#run.gone + 1] = 'h' .. id
    end
    if run.is_roll_new then
      fields[#fields + 1] = 'i'
      fields[#fields + 1] = pack(unpack(run.roll))
    end
    return reply, fields
  end,
}

