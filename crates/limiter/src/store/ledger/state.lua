-- The ledger ---------------------------------------------------------------------------------------------------------

State = {
  -- Adds what a ring has only while the script runs: buckets and slots that were read, and the buckets that changed.
  open_ring = function(ring)
    ring.b, ring.s, ring.dirty = {}, {}, {}
    -- The cells that are stored. Where nothing is charged, nothing that is stored matters.
    ring.from, ring.to, ring.is_fresh = ring.low, ring.top, ring.low > ring.top
    return ring
  end,

  read = function(c)
    local waiters, rings, count = {}, {}, c[K.HEAD]
    for i = 1, count do
      local at = K.HEAD - 2 + 3 * i
      waiters[i] = { id = c[at], beat = c[at + 1], woken = c[at + 2] }
    end
    local at = K.HEAD + 3 * count + 1
    while c[at] do
      rings[#rings + 1] = State.open_ring({
        name = c[at], life = c[at + 1], asked = c[at + 2], width = c[at + 3], amount = c[at + 4], told = c[at + 5],
        source = c[at + 6], since = c[at + 7], ends = c[at + 8], live = c[at + 9], refunded = c[at + 10], low = c[at + 11],
        top = c[at + 12], size = c[at + 13],
        -- What replicas hold; what is kept for them, and a millionth part of it; the shares of those for whom a refund is kept.
        held = c[at + 14], kept = c[at + 15], part = c[at + 16], rate = c[at + 17],
        -- What was refunded when everybody was last asked to look at that.
        round = c[at + 18], index = #rings + 1,
      })
      at = at + K.RING
    end
    return {
      epoch = c[2], last = c[3], skew = c[4], doubt = c[5], paused_until = c[6], facts_version = c[7],
      -- Of the tiers 0 to 3: the service from which newcomers begin, and what was earned. How many flows are remembered.
      virtual = { [0] = c[8], c[9], c[10], c[11] }, credit = { [0] = c[12], c[13], c[14], c[15] }, tags = c[16],
      -- Sums over all replicas: how many are there, the shares that they claim, and in the rings what is held and kept. They
      -- are right until `recount_at`, as long as lives are what they were. `known` is 1 if everybody knows everybody.
      recount_at = c[17], life = c[18], short = c[19], there = c[20], shares = c[21], known = c[22],
      expire_at = c[23], server = c[24], round_at = c[25], waiters = waiters, rings = rings,
    }
  end,

  write = function()
    local v, e, waiters, rings = ledger.virtual, ledger.credit, ledger.waiters, ledger.rings
    local c = {
      K.FORMAT, ledger.epoch, ledger.last, ledger.skew, ledger.doubt, ledger.paused_until, ledger.facts_version,
      v[0], v[1], v[2], v[3], e[0], e[1], e[2], e[3], ledger.tags, ledger.recount_at, ledger.life, ledger.short, ledger.there,
      ledger.shares, ledger.known, ledger.expire_at, ledger.server, ledger.round_at, #waiters,
    }
    local n = K.HEAD
    for i = 1, #waiters do
      local waiter = waiters[i]
      c[n + 1], c[n + 2], c[n + 3], n = waiter.id, waiter.beat, waiter.woken, n + 3
    end
    for i = 1, #rings do
      local r = rings[i]
      c[n + 1], c[n + 2], c[n + 3], c[n + 4], c[n + 5], c[n + 6] = r.name, r.life, r.asked, r.width, r.amount, r.told
      c[n + 7], c[n + 8], c[n + 9], c[n + 10], c[n + 11] = r.source, r.since, r.ends, r.live, r.refunded
      c[n + 12], c[n + 13], c[n + 14], c[n + 15], c[n + 16] = r.low, r.top, r.size, r.held, r.kept
      c[n + 17], c[n + 18], c[n + 19], n = r.part, r.rate, r.round, n + K.RING
    end
    return pack(unpack(c))
  end,

  read_learning = function(text)
    local l, m = decode(text)
    learning = l and {
      began = l[1], last = l[2], is_fresh = l[3] == 1, tried_at = l[4], seeded = l[5], named = l[6], proven = l[7], slots = l[8],
    } or nil
    missing_ones = m and { names = m[1], shares = m[2], last = m[3] } or nil
  end,

  write_learning = function()
    local l, m = learning, missing_ones
    return pack(
      l and { l.began, l.last, l.is_fresh and 1 or 0, l.tried_at, l.seeded, l.named, l.proven, l.slots },
      m and { m.names, m.shares, m.last }
    )
  end,

  has = function(list, value)
    for i = 1, #list do
      if list[i] == value then return i end
    end
  end,

  insert = function(list, value)
    if not State.has(list, value) then list[#list + 1] = value end
  end,

  has_all = function(list, wanted)
    for i = 1, #wanted do
      if not State.has(list, wanted[i]) then return false end
    end
    return true
  end,

  -- Returns a ledger of which nobody knows anything yet.
  blank = function(epoch, server, last, skew)
    return {
      epoch = epoch, server = server, last = last, skew = skew, doubt = 0, paused_until = 0, facts_version = 0,
      virtual = { [0] = 0, 0, 0, 0 }, credit = { [0] = 0, 0, 0, 0 }, tags = 0,
      recount_at = 0, life = 0, short = 0, there = 0, shares = 0, known = 0, expire_at = 0, round_at = 0, waiters = {}, rings = {},
    }
  end,

  begin = function(now, is_fresh)
    run.forgotten = { KEYS[1], KEYS[2] }
    for i = 1, #ledger.rings do run.forgotten[i + 2] = Ring.key(ledger.rings[i]) end
    local epoch = max(next_epoch, 1)
    if epoch == ledger.epoch or epoch == known_epoch then epoch = epoch + 1 end
    -- Time goes on as the caller knows it: nobody else is there who could say that the server's clock has jumped.
    ledger = State.blank(epoch, server, now, now - server_time)
    learning, missing_ones, run.roll, run.is_roll_new, run.gone = nil, nil, {}, false, {}
    if not (is_fresh and trusts_empty) then
      local life = 0
      for at = 1, #limits, K.LIMIT do
        if floor(limits[at] / 8) <= K.WINDOW_MAX then life = max(life, limits[at + 1]) end
      end
      learning = {
        began = now, last = now + life, is_fresh = is_fresh, tried_at = -1, seeded = {}, named = {}, proven = {}, slots = {},
      }
    end
  end,

  brief = function(now, status)
    local paused = ledger.paused_until > now and ledger.paused_until or 0
    return { status, ledger.epoch, now, 0, 0, paused, learning and learning.last or 0, K.BY_NONE, 0, 0, ledger.facts_version }
  end,
}

-- Replicas -----------------------------------------------------------------------------------------------------------

Replica = {
  is_there = function(member, now)
    return member[K.LEFT] == 0 and less(now, member[K.BEAT]) <= K.SILENT_AFTER
  end,

  -- Until when it may use its share. It may be in touch since its last call, though that is not known.
  share_ends = function(member)
    return member[K.SENT] + member[K.SHARE_LIFE] + 2 * K.SILENT_AFTER
  end,

  claim = function(member, now)
    if member[K.LEFT] == 1 or now > Replica.share_ends(member) then return 0 end
    return max(member[K.TOLD_SHARE], member[K.SHARE])
  end,

  is_over = function(member, now)
    local silent, life = less(now, member[K.BEAT]), ledger.life
    if member[K.LEFT] == 1 then return silent > max(life, K.LEFT_KEPT) end
    return silent > max(member[K.SHARE_LIFE] + life, member[K.LEASE]) + 10 * K.SILENT_AFTER
  end,

  named_until = function(member)
    return member[K.BEAT] + ledger.short + (member[K.LEFT] == 1 and 0 or member[K.SHARE_LIFE] + 2 * K.SILENT_AFTER)
  end,

  -- Adds what replicas hold, and what is kept for them, to the sums of the rings, so many times.
  count = function(member, now, times)
    if member[K.LEFT] == 1 then return end
    local in_touch, is_held = Replica.is_in_touch(member, now), less(now, member[K.BEAT]) <= member[K.LEASE]
    local share, ends = times * max(member[K.TOLD_SHARE], member[K.SHARE]), Replica.share_ends(member)
    for i = 1, #ledger.rings do
      local ring, at = ledger.rings[i], K.PER_RING * i
      if is_held then ring.held = ring.held + times * (member[K.HELD + at] or 0) end
      if share ~= 0 and now <= ends + ring.life and ring.since <= ends then
        if in_touch then
          -- Whoever was told nothing of it counts on nothing.
          local mark = member[K.MARK + at] or -1
          if mark >= 0 then
            ring.rate = ring.rate + share
            Ring.keep(ring, ring.refunded - mark, share)
          end
        else
          local seen_and_granted = (member[K.SEEN + at] or 0) + max(member[K.GRANTED + at] or 0, 0)
          Ring.keep(ring, max(member[K.TOLD_SEEN + at] or 0, seen_and_granted), share)
        end
      end
    end
  end,

  is_in_touch = function(member, now)
    return less(now, member[K.CONTACT]) <= K.SILENT_AFTER
  end,

  -- Returns whether it does not know for sure yet what had been refunded of a limit when that was so much.
  is_behind = function(member, ring, refunded)
    local mark = member[K.MARK + K.PER_RING * ring.index]
    return mark and mark >= 0 and mark < refunded
  end,

  -- Returns the next moment at which something else of a replica counts.
  changes_at = function(member, now)
    local beat, life, best = member[K.BEAT], ledger.life, now + K.DAY
    local function at(moment)
      if moment >= now and moment < best then best = moment + 1 end
    end
    at(Replica.named_until(member))
    if member[K.LEFT] == 1 then
      at(beat + max(life, K.LEFT_KEPT))
      return best
    end
    at(beat + K.SILENT_AFTER)
    at(beat + member[K.LEASE])
    at(beat + max(member[K.SHARE_LIFE] + life, member[K.LEASE]) + 10 * K.SILENT_AFTER)
    at(member[K.CONTACT] + K.SILENT_AFTER)
    local ends = Replica.share_ends(member)
    at(ends)
    if less(now, member[K.CONTACT]) > K.SILENT_AFTER then
      for i = 1, #ledger.rings do at(ends + ledger.rings[i].life) end
    end
    return best
  end,

  -- Returns the records of all replicas, in the order of the roll.
  read_all = function(me)
    local fields, members = {}, {}
    for at = 1, #run.roll, 2 do fields[#fields + 1] = format('m%.0f', run.roll[at]) end
    for first = 1, #fields, 1000 do
      local got = redis_call('HMGET', KEYS[1], unpack(fields, first, min(first + 999, #fields)))
      for i = 1, #got do members[#members + 1] = got[i] and { decode(got[i]) } or false end
    end
    for i = 1, #members do
      if run.roll[2 * i - 1] == replica then members[i] = me end
    end
    return members
  end,

  -- Lets the others call at once: nobody new is let in before they know of it.
  introduce = function(now, members)
    for i = 1, #members do
      local other = run.roll[2 * i - 1]
      if other ~= replica and members[i] and Replica.is_there(members[i], now) then
        run.wakenings[#run.wakenings + 1] = other
        run.wakenings[#run.wakenings + 1] = now
      end
    end
  end,

  -- Notes that a replica is there.
  enroll = function()
    local at = 1
    while run.roll[at] and run.roll[at] < replica do at = at + 2 end
    if run.roll[at] == replica then
      if run.roll[at + 1] == 1 then return end
      run.roll[at + 1] = 1
    else
      table.insert(run.roll, at, replica)
      table.insert(run.roll, at + 1, 1)
    end
    run.is_roll_new = true
  end,

  stop_waiting = function(member_id)
    for i = 1, #ledger.waiters do
      if ledger.waiters[i].id == member_id then return table.remove(ledger.waiters, i) end
    end
  end,

  -- Counts all replicas anew, and forgets those of which nothing matters any more. Returns the caller's record, if it stays.
  recount = function(now, me)
    ledger.there, ledger.shares, ledger.recount_at = 0, 0, now + K.DAY
    for i = 1, #ledger.rings do
      local ring = ledger.rings[i]
      ring.held, ring.kept, ring.part, ring.rate = 0, 0, 0, 0
    end
    local members, old = Replica.read_all(me), run.roll
    run.roll, run.is_roll_new = {}, true
    for i = 1, #members do
      local member_id, member = old[2 * i - 1], members[i]
      if Replica.is_over(member, now) then
        local text = format('%.0f', member_id)
        run.gone[#run.gone + 1], run.gone[#run.gone + 2], run.gone[#run.gone + 3] = 'm' .. text, 'h' .. text, 'a' .. text
        Replica.stop_waiting(member_id)
        if member_id == replica then me = nil end
      else
        run.roll[#run.roll + 1], run.roll[#run.roll + 2] = member_id, now <= Replica.named_until(member) and 1 or 0
        if Replica.is_there(member, now) then ledger.there = ledger.there + 1 end
        ledger.shares = ledger.shares + Replica.claim(member, now)
        ledger.recount_at = min(ledger.recount_at, Replica.changes_at(member, now))
        Replica.count(member, now, 1)
      end
    end
    return me
  end,

  -- Returns whether the caller has the answer to its call of a number, the last that came here, and has not given it up.
  is_answered = function(last)
    for i = 1, #missed do
      if missed[i][1] == last then return false end
    end
    return true
  end,

  -- Notes whether the caller has its last answer, or has given it up.
  confirm = function(me, has_answer)
    if not has_answer then
      me[K.TOLD_SHARE], me[K.TOLD_AT] = me[K.SHARE], me[K.AT]
    else
      me[K.CONTACT], me[K.SHARE], me[K.AT] = me[K.SENT], me[K.TOLD_SHARE], me[K.TOLD_AT]
    end
    for at = K.PER_RING, K.PER_RING * #ledger.rings, K.PER_RING do
      local granted = me[K.GRANTED + at]
      if not has_answer then
        me[K.TOLD_SEEN + at], me[K.TOLD_MARK + at] = me[K.SEEN + at], me[K.MARK + at]
      elseif me[K.REPEATED] == 0 then
        me[K.SEEN + at], me[K.MARK + at] = me[K.TOLD_SEEN + at], me[K.TOLD_MARK + at]
      elseif granted >= 0 then
        if me[K.MARK + at] < 0 then me[K.SEEN + at], me[K.MARK + at] = me[K.TOLD_SEEN + at], me[K.TOLD_MARK + at] end
        me[K.SEEN + at] = max(me[K.TOLD_SEEN + at], me[K.SEEN + at] + granted)
      end
      me[K.GRANTED + at] = -1
    end
    me[K.REPEATED] = 0
  end,

  -- Notes what the caller is told of a limit by the answer to its call.
  tell = function(me, ring, granted, is_shown)
    local at = K.PER_RING * ring.index
    if me[K.MARK + at] < 0 then me[K.SEEN + at], me[K.MARK + at] = 0, ring.refunded end
    me[K.GRANTED + at] = granted
    if is_shown then
      me[K.TOLD_SEEN + at], me[K.TOLD_MARK + at] = ring.live, ring.refunded
    else
      me[K.TOLD_SEEN + at], me[K.TOLD_MARK + at] = me[K.SEEN + at] + granted, me[K.MARK + at]
    end
  end,

  -- When a replica was told for sure who is there; 0: it knows nobody.
  told_at = function(member)
    return member[K.AT] ~= 0 and member[K.AT] or member[K.TOLD_AT]
  end,

  -- Returns a function that says whether everybody who may still say who is there knows that a replica is.
  acquaintance = function(now, me)
    if ledger.known == 1 then return function() return true end end
    -- The two who were told longest ago: a replica need not know of itself.
    local members, first, second, first_id = Replica.read_all(me), math.huge, math.huge, 0
    for i = 1, #members do
      local member = members[i]
      local at = Replica.told_at(member)
      if at ~= 0 and member[K.LEFT] == 0 and less(now, member[K.CONTACT]) <= K.CUT_OFF_AFTER then
        if at < first then
          first, second, first_id = at, first, run.roll[2 * i - 1]
        else
          second = min(second, at)
        end
      end
    end
    local is_known, known = {}, 1
    for i = 1, #members do
      local member_id = run.roll[2 * i - 1]
      is_known[member_id] = members[i][K.BORN] < (member_id == first_id and second or first)
      if not is_known[member_id] then known = 0 end
    end
    ledger.known = known
    return function(member_id) return is_known[member_id] end
  end,

  -- Returns everybody of whom charges may count, as far as all of them are known.
  names = function()
    local list, is_sorted = {}, true
    if learning and #learning.named == 0 then return list end
    for at = 1, #run.roll, 2 do
      if run.roll[at + 1] == 1 then list[#list + 1] = run.roll[at] end
    end
    local more = { learning and learning.named or {}, missing_ones and missing_ones.names or {} }
    for i = 1, 2 do
      for k = 1, #more[i] do
        State.insert(list, more[i][k])
        is_sorted = false
      end
    end
    if not is_sorted then table.sort(list) end
    return list
  end,
}

-- Service of flows ---------------------------------------------------------------------------------------------------

Tags = {
  load = function(flows)
    local ask = {}
    for i = 1, #flows do
      local flow = flows[i]
      if run.tags[flow] == nil then
        run.tags[flow] = false
        ask[#ask + 1] = flow
      end
    end
    if ledger.tags == 0 or run.forgotten then return end
    for first = 1, #ask, 1000 do
      local got = redis_call('HMGET', KEYS[2], unpack(ask, first, min(first + 999, #ask)))
      for i = 1, #got do
        local flow = ask[first + i - 1]
        if got[i] then run.tags[flow], run.tags_seen[flow] = decode(got[i]) end
      end
    end
  end,

  -- Returns the service of a flow. Whoever was not there lately begins with those who are.
  of = function(now, flow, tier)
    local tag, base = run.tags[flow], ledger.virtual[tier % 4]
    if not tag then return base end
    return less(now, run.tags_seen[flow]) <= K.THERE and tag or max(tag, base)
  end,

  correct = function(flow, tier, by)
    local tag = run.tags[flow]
    if not tag then return end
    run.is_tag_new[flow] = true
    run.tags[flow] = by > 0 and tag + by or max(less(tag, -by), min(ledger.virtual[tier % 4], tag))
  end,

  -- Forgets the flows that others have caught up with and that are not there.
  prune = function(now)
    if not run.forgotten then
      local all = redis_call('HGETALL', KEYS[2])
      for i = 1, #all, 2 do
        if run.tags[all[i]] == nil then run.tags[all[i]], run.tags_seen[all[i]] = decode(all[i + 1]) end
      end
    end
    local count = 0
    for flow, tag in pairs(run.tags) do
      if tag then
        if tag > ledger.virtual[tonumber(flow:sub(1, 1))] or less(now, run.tags_seen[flow]) <= K.THERE then
          count = count + 1
        else
          run.tags[flow] = false
          run.tags_gone[#run.tags_gone + 1] = flow
        end
      end
    end
    ledger.tags = count
  end,

  -- Remembers the service of a flow. Where so many are ahead of the others, or still there, a newcomer's is not.
  put = function(now, flow, tag)
    local is_known = run.tags[flow]
    if not is_known and ledger.tags >= K.TAGS_MAX then Tags.prune(now) end
    if is_known or ledger.tags < K.TAGS_MAX then
      if not is_known then ledger.tags = ledger.tags + 1 end
      run.tags[flow], run.tags_seen[flow], run.is_tag_new[flow] = tag, now, true
    end
  end,
}

